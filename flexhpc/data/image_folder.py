"""Read images in ROOT/[train/]CLASS/..., the layout of ImageNet and torchvision's ImageFolder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from flexhpc.config.sections.data import ImageFolder
from flexhpc.data.dataset import Source, Split
from flexhpc.data.images import SUFFIXES, make_image_split
from flexhpc.data.packed import reject_unpacked_file
from flexhpc.errors import PointError


def open_image_folder(data: ImageFolder) -> Source:
    """Open a folder of images as RGB: uint8 (n, 3, height, width).

    Classes are the sorted folder names. Files are found recursively and sorted, so that global
    sample ids are the same on every machine. Names that start with a dot are ignored. If ROOT/train
    exists, the test set is ROOT/val or, if this folder does not exist, ROOT/test.

    Raises:
        PointError: the folder does not exist, a class has no images, or the first image cannot be
            read. If another image cannot be read, reading the samples raises the error.
    """
    root = Path(data.root).expanduser()
    reject_unpacked_file(data.root)
    if not root.is_dir():
        raise PointError(f"data.root: {data.root} is not a folder")
    folder = root / "train" if (root / "train").is_dir() else root
    classes = _class_folders(folder)
    if len(classes) < 2:
        raise PointError(f"{folder}: must contain at least two folders of images, one per class")
    train = _open_split(folder, classes, data.side, None)

    def open_test_split() -> Split | None:
        for name in ("val", "test"):
            if folder != root and (root / name).is_dir():
                return _open_split(root / name, classes, data.side, train.shape)
        return None

    return Source(
        name=f"image_folder {folder}", classes=len(classes), train=train, open_test=open_test_split,
        class_names=classes,
    )  # fmt: skip


def _class_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _find_images(folder: Path) -> list[str]:
    """Return the paths of the images of a class, sorted by the names of folders and files."""

    def reraise_as_point_error(error: OSError) -> None:
        raise PointError(f"{error.filename}: cannot be read ({error.strerror})")

    images: list[tuple[str, ...]] = []
    for inner, folders, files in os.walk(folder, onerror=reraise_as_point_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        parts = Path(inner).relative_to(folder).parts
        images += [
            (*parts, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    return [os.path.join(folder, *parts) for parts in sorted(images)]


def _open_split(
    folder: Path, classes: list[str], image_side: int | None, shape: tuple[int, ...] | None
) -> Split:
    """Open the images in the folders of all classes.

    ``image_side`` and ``shape`` are as in :func:`make_image_split`.
    """
    paths: list[str] = []  # str, because a million Path objects would take half a gigabyte
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in classes:
            raise PointError(
                f"{folder / name}: the training set has no class of this name; remove the folder"
            )
        images = _find_images(folder / name)
        if not images:
            raise PointError(
                f"{folder / name}: contains no images (files that end in "
                f"{', '.join(sorted(SUFFIXES))})"
            )
        paths += images
        labels += [classes.index(name)] * len(images)
    if not paths:
        raise PointError(
            f"{folder}: contains no folders; it must contain one folder of images per class"
        )
    return make_image_split(
        lambda: zip(paths, paths, strict=True), np.array(labels, dtype=np.int64), image_side, shape
    )
