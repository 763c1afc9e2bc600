"""Decode images from files or bytes to uint8 RGB of one size."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flexhpc.data.dataset import Array, Ints, Part
from flexhpc.data.images import resized
from flexhpc.data.unpacked import open_file
from flexhpc.errors import PointError, one_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_AT_ONCE = 64
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that PIL may detect, whatever the file name: for some others it would start programs."""

Named = tuple[str, Any]
"""Name of an image for messages, and its path, its bytes, or a PIL image."""


def image_part(
    images: Callable[[], Iterable[Named]], labels: Ints, side: int | None,
    shape: tuple[int, ...] | None = None,
) -> Part:  # fmt: skip
    """Return the part for images: uint8 (n, 3, height, width).

    Args:
        images: returns the images in order, each time it is called.
        labels: int64 (n,).
        side: side length to which they are resized; None if they all have one size.
        shape: required shape, for a test set that of the training set; None for the shape of the
            first image.

    Raises:
        PointError: the first image cannot be read. For any other image that cannot be read or has
            another size, the error is raised while the blocks are read.
    """
    if shape is None:
        first = next(iter(images()))
        shape = decoded(first, side, None).shape
    return Part(
        labels=labels,
        shape=shape,
        dtype=np.dtype(np.uint8),
        blocks=partial(_blocks, images, side, shape),
    )


def _blocks(
    images: Callable[[], Iterable[Named]], side: int | None, shape: tuple[int, ...]
) -> Iterator[Array]:
    decode = partial(decoded, side=side, shape=shape)
    rest = iter(images())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while chunk := list(islice(rest, _AT_ONCE)):
            yield np.stack(list(pool.map(decode, chunk)))


def decoded(image: Named, side: int | None, shape: tuple[int, ...] | None) -> Array:
    """Return one image, uint8 (3, height, width); 16-bit grey is scaled to 8 bits.

    Raises:
        PointError: the image cannot be read, or does not have the ``shape``.
    """
    name, given = image
    try:
        if isinstance(given, Image.Image):
            pixels = _pixels(given, name, side)
        else:
            content = io.BytesIO(given) if isinstance(given, bytes) else open_file(Path(given))
            with content, Image.open(content, formats=_FORMATS) as opened:
                pixels = _pixels(opened, name, side)
    except PointError:
        raise
    except Exception as error:  # PIL raises various exceptions on damaged files
        raise PointError(f"{name}: not a readable image: {one_line(error)}") from None
    channels_first = pixels.transpose(2, 0, 1)
    if shape is not None and channels_first.shape != shape:
        raise PointError(
            f"{name}: is {_size(channels_first.shape)}, but the first image is {_size(shape)}; "
            "all images must have one size: give data.side"
        )
    return channels_first


def _pixels(image: Image.Image, name: str, side: int | None) -> Array:
    colour = _eight_bits(image, name).convert("RGB")
    return np.asarray(colour if side is None else resized(colour, side), dtype=np.uint8)


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Return the image with 8 bits per pixel: PIL would clip larger values to 255."""
    wide = image.mode == "I" and image.format == "PPM"  # PIL has scaled these to 16 bits
    if wide or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PointError(
            f"{name}: has 32 bits per pixel, of which no range is known; save it with 8 or 16"
        )
    return image


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
