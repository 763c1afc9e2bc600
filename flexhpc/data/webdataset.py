"""Tar files of images and their classes, in the format of the WebDataset library."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Set
from pathlib import Path

from flexhpc.config.sections.files import WebDataset
from flexhpc.data.classes import coded, names_of
from flexhpc.data.dataset import Source, no_test
from flexhpc.data.decode import SUFFIXES, Named, image_part
from flexhpc.data.unpacked import MOST_BYTES, open_file
from flexhpc.errors import PointError, one_line

_NUMBER = re.compile(r"-?\d{1,18}")
"""A label that fits into int64; Python refuses to parse more than 4,300 digits."""


def open_webdataset(data: WebDataset, seed: int) -> Source:
    """Open tar files of images: uint8 (n, 3, height, width), in the order of the files.

    Raises:
        PointError: the file does not exist, or a sample has no image or no class.
    """
    path = Path(data.path).expanduser()
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise PointError(f"data.path: {data.path} is no .tar file, and no folder that holds one")
    endings = {f".{data.column.lstrip('.').lower()}"} if data.column else SUFFIXES
    labels: list[str] = []
    keys: list[str] = []
    images: list[str] = []
    target = f".{data.target.lstrip('.')}"
    for file in files:
        for name, content in _members(file, {target}, named={target, *endings}):
            if _ending(name) == target:
                keys.append(f"{file}/{_key(name)}")
                labels.append(content.decode(errors="replace").strip())
            else:
                images.append(f"{file}/{_key(name)}")
    if not keys:
        raise PointError(f"{files[0]}: holds no KEY.{data.target}; data.target gives the ending")
    if lost := set(keys) ^ set(images):
        what = "image" if (some := min(lost)) in keys else f"class (.{data.target})"
        raise PointError(f"{some}: has no {what}")
    if images != keys:
        raise PointError(
            f"{files[0]}: a key has several images, or keys stand in another order for them; "
            "data.column gives the ending of the images"
        )
    numbers = all(_NUMBER.fullmatch(label) for label in labels)
    codes, order = coded(str(files[0]), [int(one) for one in labels] if numbers else labels)

    def encoded() -> Iterator[Named]:
        for file in files:
            for name, content in _members(file, endings, named=endings):
                yield f"{file}/{name}", content

    return Source(
        name=f"webdataset {path}",
        classes=len(order),
        train=image_part(encoded, codes, data.side),
        test=no_test,
        class_names=names_of(order),
    )


def _key(name: str) -> str:
    """Return the name of a member up to the first dot of its last part, as WebDataset does."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    return last[last.find(".") :].lower() if "." in last else ""


def _members(file: Path, read: Set[str], named: Set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the members with extensions in ``named``.

    The content is empty unless the extension is in ``read``.
    """
    try:
        with open_file(file) as opened, tarfile.open(fileobj=opened) as tar:
            for member in tar:
                if not member.isfile() or _ending(member.name) not in named:
                    continue
                if member.size > MOST_BYTES:  # a sparse file takes no space
                    raise PointError(f"{file}/{member.name}: is larger than a gigabyte; remove it")
                content = tar.extractfile(member) if _ending(member.name) in read else None
                yield member.name, content.read() if content is not None else b""
    except (PointError, MemoryError):
        raise
    except Exception as error:  # tarfile raises various exceptions on damaged files
        raise PointError(f"{file}: is no readable tar file: {one_line(error)}") from None
