"""Images in ROOT/[train/]CLASS/..., the layout of ImageNet and of torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from flexhpc.data.dataset import Array, Part, Source
from flexhpc.data.images import resized
from flexhpc.errors import PointError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_IMAGES_AT_ONCE = 64


def open_image_folder(root: str, side: int | None) -> Source:
    """Open a folder of images as RGB: uint8 (n, 3, height, width), all of one size or of ``side``.

    Classes are the sorted folder names; files are walked recursively in sorted order, so that
    global sample ids are the same everywhere. Beside ROOT/train, ROOT/val or ROOT/test is the test
    set.

    Raises:
        PointError: no such folder, no images, an unreadable image, or images of several sizes.
    """
    top = Path(root).expanduser()
    if not top.is_dir():
        raise PointError(f"data.root: {root} is not a folder")
    folder = top / "train" if (top / "train").is_dir() else top
    classes = _folders(folder)
    if len(classes) < 2:
        raise PointError(f"{folder}: needs at least two folders of images, one per class")
    train = _part(folder, classes, side, None)

    def test() -> Part | None:
        if folder == top:
            return None
        found = next((top / name for name in ("val", "test") if (top / name).is_dir()), None)
        return _part(found, classes, side, train.shape) if found else None

    return Source(name=f"image_folder {folder}", classes=len(classes), train=train, test=test)


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _part(
    folder: Path, classes: list[str], side: int | None, shape: tuple[int, ...] | None
) -> Part:
    """List the images of a folder; those of the training set say the ``shape`` of all."""
    paths: list[str] = []  # a million of them: Path objects would take half a gigabyte
    labels: list[int] = []
    for name in _folders(folder):
        if name not in classes:
            raise PointError(f"{folder / name}: is no class of the training set")
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise PointError(f"{folder / name}: holds no images ({', '.join(sorted(SUFFIXES))})")
        paths += map(str, found)
        labels += [classes.index(name)] * len(found)
    if not paths:
        raise PointError(f"{folder}: holds no folders of images, one per class")
    size = shape or _read(paths[0], side, None).shape
    return Part(
        labels=np.array(labels, dtype=np.int64),
        shape=size,
        dtype=np.dtype(np.uint8),
        blocks=partial(_blocks, paths, side, size),
    )


def _blocks(paths: list[str], side: int | None, shape: tuple[int, ...]) -> Iterator[Array]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for at in range(0, len(paths), _IMAGES_AT_ONCE):
            chunk = paths[at : at + _IMAGES_AT_ONCE]
            yield np.stack(list(pool.map(partial(_read, side=side, shape=shape), chunk)))


def _read(path: str, side: int | None, shape: tuple[int, ...] | None) -> Array:
    """Return uint8 (3, height, width)."""
    try:
        with Image.open(path) as image:
            colour = image.convert("RGB")
            pixels = np.asarray(colour if side is None else resized(colour, side), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PointError(f"{path}: not a readable image: {error}") from None
    channels_first = pixels.transpose(2, 0, 1)
    if shape is not None and channels_first.shape != shape:
        raise PointError(
            f"{path}: is {_size(channels_first.shape)}, but the first image is {_size(shape)}; "
            "all images must have one size: give data.side"
        )
    return channels_first


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
