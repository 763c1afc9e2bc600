"""Read tar files of images and their classes, in the format of the WebDataset library."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Set
from pathlib import Path

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.files import WebDataset
from flexhpc.data.dataset import Source
from flexhpc.data.images import SUFFIXES, LabelledImages, NamedImage, image_source
from flexhpc.data.raw_files import MAX_BYTES, convert_read_errors
from flexhpc.errors import PointError

_NUMBER = re.compile(r"-?\d{1,18}")
"""Pattern of an integer label, with at most 18 digits so that it fits into int64. If any label does
not match, all labels are treated as text."""


def open_webdataset(data: WebDataset) -> Source:
    """Open the images in a tar file or a folder of tar files, as uint8 (n, 3, height, width).

    The tar files of a folder are read in the order of their names.

    Raises:
        PointError: a file is missing or unreadable, or a sample does not have one image and one
            class.
    """
    path = Path(data.path).expanduser()
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise PointError(
            f"data.path: {data.path} is neither a .tar file nor a folder of .tar files"
        )
    image_suffixes = {f".{data.column.lstrip('.').lower()}"} if data.column else SUFFIXES
    target = f".{data.target.lstrip('.').lower()}"
    keys: dict[str, list[str]] = {"class": [], "image": []}
    texts: list[str] = []
    for file in files:
        for name, suffix, content in _iterate_members(file, {target, *image_suffixes}, {target}):
            keys["class" if suffix == target else "image"].append(f"{file}/{name}")
            if suffix == target:
                texts.append(content.decode(errors="replace").strip())
    if not texts:
        raise PointError(
            f"{files[0]}: contains no label files *{target}; set data.target to the "
            "extension of the label files"
        )
    if unpaired := set(keys["class"]) ^ set(keys["image"]):
        key = min(unpaired)
        missing = "image" if key in keys["class"] else f"class (extension {target})"
        raise PointError(f"{key}: has no {missing}")
    if keys["class"] != keys["image"]:
        raise PointError(
            f"{files[0]}: a sample has several images, or images and classes differ in order; "
            "set data.column to the extension of the images"
        )

    def images() -> Iterator[NamedImage]:
        for file in files:
            for name, suffix, content in _iterate_members(file, image_suffixes, image_suffixes):
                yield f"{file}/{name}{suffix}", content

    numbers = all(_NUMBER.fullmatch(text) for text in texts)
    labels = [int(text) for text in texts] if numbers else texts
    train = LabelledImages(name=str(files[0]), labels=labels, images=images)
    return image_source(f"webdataset {path}", train, lambda: None, data.side)


def _iterate_members(
    file: Path, suffixes: Set[str], read_suffixes: Set[str]
) -> Iterator[tuple[str, str, bytes]]:
    """Yield the key, suffix and content of every member whose suffix is in ``suffixes``.

    The key of a member is its path up to the first dot of the file name, as in WebDataset. The
    content is empty unless the suffix is in ``read_suffixes``.
    """
    with (
        convert_read_errors(file, "a tar file"),
        open_regular_file(file) as tar_file,
        tarfile.open(fileobj=tar_file) as tar,
    ):
        for member in tar:
            folder, slash, file_name = member.name.rpartition("/")
            stem, dot, extension = file_name.partition(".")
            suffix = (dot + extension).lower()
            if not member.isfile() or suffix not in suffixes:
                continue
            if member.size > MAX_BYTES:  # a sparse file is small in the archive
                raise PointError(f"{file}/{member.name}: is larger than a gigabyte; remove it")
            content = b""
            if suffix in read_suffixes and (member_file := tar.extractfile(member)):
                content = member_file.read()
            yield folder + slash + stem, suffix, content
