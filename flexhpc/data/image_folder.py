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
from flexhpc.errors import PointError, one_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_IMAGES_AT_ONCE = 64


def open_image_folder(root: str, side: int | None) -> Source:
    """Open a folder of images as RGB: uint8 (n, 3, height, width), all of one size or of ``side``.

    Classes are the sorted folder names; files are walked recursively in sorted order, so that
    global sample ids are the same everywhere. Names that start with a dot are no classes and no
    images; 16-bit grey is scaled to 8 bits. Beside ROOT/train, ROOT/val or ROOT/test is the test
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
        test_folder = next((top / name for name in ("val", "test") if (top / name).is_dir()), None)
        return _part(test_folder, classes, side, train.shape) if test_folder else None

    return Source(name=f"image_folder {folder}", classes=len(classes), train=train, test=test)


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[str]:
    """Return the images of a class, in the order of their folders' and own names."""

    def refuse(error: OSError) -> None:
        raise PointError(f"{error.filename}: cannot be read: {error.strerror}")

    images: list[tuple[str, ...]] = []
    for inner, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(inner).relative_to(folder).parts
        images += [(*inside, name) for name in files if _is_image(name)]
    return [os.path.join(folder, *parts) for parts in sorted(images)]


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _part(
    folder: Path, classes: list[str], side: int | None, shape: tuple[int, ...] | None
) -> Part:
    """List the images of a folder; those of the training set say the ``shape`` of all."""
    paths: list[str] = []  # a million of them: Path objects would take half a gigabyte
    labels: list[int] = []
    for name in _folders(folder):
        if name not in classes:
            raise PointError(f"{folder / name}: is no class of the training set")
        images = _images(folder / name)
        if not images:
            raise PointError(f"{folder / name}: holds no images ({', '.join(sorted(SUFFIXES))})")
        paths += images
        labels += [classes.index(name)] * len(images)
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
            colour = _eight_bits(image, path).convert("RGB")
            pixels = np.asarray(colour if side is None else resized(colour, side), dtype=np.uint8)
    except PointError:
        raise
    except Exception as error:  # what PIL raises on damaged files is no one kind
        raise PointError(f"{path}: not a readable image: {one_line(error)}") from None
    channels_first = pixels.transpose(2, 0, 1)
    if shape is not None and channels_first.shape != shape:
        raise PointError(
            f"{path}: is {_size(channels_first.shape)}, but the first image is {_size(shape)}; "
            "all images must have one size: give data.side"
        )
    return channels_first


def _eight_bits(image: Image.Image, path: str) -> Image.Image:
    """Return the image with 8 bits per pixel: PIL would cut larger values off at 255."""
    wide = image.mode == "I" and image.format == "PPM"  # PIL has scaled those to 16 bits
    if wide or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PointError(
            f"{path}: has 32 bits per pixel, of which no range is known; save it with 8 or 16"
        )
    return image


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
