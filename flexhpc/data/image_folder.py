"""Images in ROOT/[train/]CLASS/..., the layout of ImageNet and of torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flexhpc.data.dataset import Dataset
from flexhpc.errors import PointError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


def load_image_folder(root: str) -> Dataset:
    """Load a folder of equally large images as RGB: uint8 (n, 3, height, width).

    Classes are the sorted folder names; files are walked recursively in sorted order, so that
    global sample ids are the same everywhere.

    Raises:
        PointError: no such folder, no images, an unreadable image, or images of several sizes.
    """
    top = Path(root).expanduser()
    if not top.is_dir():
        raise PointError(f"data.root: {root} is not a folder")
    train = top / "train"
    folder = train if train.is_dir() else top
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise PointError(f"{folder / name}: holds no images ({', '.join(sorted(SUFFIXES))})")
        paths += found
        labels += [label] * len(found)
    if len(classes) < 2:
        raise PointError(f"{folder}: needs at least two folders of images, one per class")
    first = _read(paths[0])
    inputs = np.empty((len(paths), *first.shape), np.uint8)
    for i, path in enumerate(paths):
        image = _read(path)
        if image.shape != first.shape:
            raise PointError(
                f"{path}: is {_size(image)}, but {paths[0].name} is {_size(first)}; "
                "all images must have one size, so resize them first"
            )
        inputs[i] = image
    return Dataset(
        name=f"image_folder {folder}",
        inputs=inputs,
        labels=np.array(labels, dtype=np.int64),
        classes=len(classes),
    )


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PointError(f"{path}: not a readable image: {error}") from None
    return pixels.transpose(2, 0, 1)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
