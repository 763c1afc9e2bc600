"""Decode images to uint8; resize them (with antialiasing, by PIL) and convert their colours."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from flexhpc.atomic import open_regular_file
from flexhpc.data.classes import class_names_of, encode_labels
from flexhpc.data.dataset import Array, Ints, Source, Split
from flexhpc.data.raw_files import convert_read_errors
from flexhpc.errors import PointError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_IMAGES_PER_BLOCK = 64
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that PIL is allowed to open; for some others, PIL would start an external program."""
_LUMA = np.array([19_595, 38_470, 7_471], dtype=np.uint32)  # ITU-R 601 weights x 2^16

NamedImage = tuple[str, Any]
"""Name of an image for messages, and the image: a path, the bytes of a file, or a PIL image."""


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Encoded images and their labels.

    Attributes:
        name: name of the labels, for messages.
        labels: one label per image, all whole numbers or all text.
        images: function that returns an iterable over the images in order; every call starts at the
            first image.
    """

    name: str
    labels: Any
    images: Callable[[], Iterable[NamedImage]]


def image_source(
    name: str,
    train: LabelledImages,
    test: Callable[[], LabelledImages | None],
    image_side: int | None,
) -> Source:
    """Create a source from encoded images and labels.

    ``test`` returns the test set, or None if there is none. ``image_side`` is as in
    :func:`make_image_split`.

    Raises:
        PointError: a label is invalid, or the first image cannot be read.
    """
    codes, sorted_labels = encode_labels(train.name, train.labels)
    split = make_image_split(train.images, codes, image_side)

    def open_test_split() -> Split | None:
        if (labelled := test()) is None:
            return None
        codes, _ = encode_labels(labelled.name, labelled.labels, sorted_labels)
        return make_image_split(labelled.images, codes, image_side, split.shape)

    return Source(
        name=name, classes=len(sorted_labels), train=split, open_test=open_test_split,
        class_names=class_names_of(sorted_labels),
    )  # fmt: skip


def make_image_split(
    images: Callable[[], Iterable[NamedImage]], labels: Ints, image_side: int | None,
    shape: tuple[int, ...] | None = None,
) -> Split:  # fmt: skip
    """Create a split that decodes images when its blocks are read: uint8 (n, 3, height, width).

    Args:
        images: see :class:`LabelledImages`.
        labels: class of each image, int64 (n,).
        image_side: side length in pixels of the square to which images are resized and cropped;
            None to keep the size of the images, which must be the same for all.
        shape: required shape of every image, for example the shape of the training images; None
            for the shape of the first image.

    Raises:
        PointError: the first image cannot be read. If another image cannot be read or has a
            different size, reading the blocks of the split raises the error.
    """
    if shape is None:
        shape = decode_image(next(iter(images())), image_side, None).shape
    decode = partial(decode_image, image_side=image_side, shape=shape)

    def blocks() -> Iterator[Array]:
        image_iterator = iter(images())
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            while chunk := list(islice(image_iterator, _IMAGES_PER_BLOCK)):
                yield np.stack(list(pool.map(decode, chunk)))

    return Split(labels=labels, shape=shape, dtype=np.dtype(np.uint8), blocks=blocks)


def decode_image(image: NamedImage, image_side: int | None, shape: tuple[int, ...] | None) -> Array:
    """Decode one image to uint8 (3, height, width); scale a 16-bit grey image to 8 bits.

    ``image_side`` and ``shape`` are as in :func:`make_image_split`.

    Raises:
        PointError: the image cannot be read, or its shape is not ``shape``.
    """
    name, content = image
    with convert_read_errors(name, "an image"), contextlib.ExitStack() as stack:
        if not isinstance(content, Image.Image):
            file = io.BytesIO(content) if isinstance(content, bytes) else open_regular_file(content)
            try:
                opened = Image.open(stack.enter_context(file), formats=_FORMATS)
            except UnidentifiedImageError:
                raise ValueError(f"its format is not one of {', '.join(_FORMATS)}") from None
            content = stack.enter_context(opened)
        colour = _to_eight_bits(content).convert("RGB")
        pixels = np.asarray(
            colour if image_side is None else resize_and_crop(colour, image_side), dtype=np.uint8
        )
    channels_first = pixels.transpose(2, 0, 1)
    if shape is not None and channels_first.shape != shape:
        height, width = pixels.shape[:2]
        raise PointError(
            f"{name}: size differs from the size of the first image ({width}x{height}, not "
            f"{shape[2]}x{shape[1]}); give data.side to resize all images (custom code must resize "
            "them itself)"
        )
    return channels_first


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale a 16-bit grey image to 8 bits. PIL's own conversion would clip the values to 255."""
    is_scaled_ppm = image.mode == "I" and image.format == "PPM"  # PIL scales these to 16 bits
    if is_scaled_ppm or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "it has 32 bits per pixel, and the range of the values is unknown; save it with 8 or "
            "16 bits"
        )
    return image


def resize_and_crop(image: Image.Image, side: int) -> Image.Image:
    """Scale an image so that its shorter side has ``side`` pixels; crop the central square."""
    width, height = image.size
    if (width, height) == (side, side):
        return image
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    scaled = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return scaled.crop((left, top, left + side, top + side))


def with_size_and_colour(split: Split, side: int | None, colour: str | None) -> Split:
    """Return a copy of ``split`` whose images are resized, then converted to grey or RGB.

    If ``side`` is None, images keep their size; if ``colour`` is None, they keep their colour.
    Return ``split`` itself if its images already have the requested size and colour.
    """
    channels = {None: split.shape[0], "grey": 1, "rgb": 3}[colour]
    shape = (channels, side or split.shape[1], side or split.shape[2])
    if shape == split.shape:
        return split

    def blocks() -> Iterator[Array]:
        for block in split.small_blocks():
            yield _convert_colour(_resize_all(block, side), channels)

    return replace(split, shape=shape, blocks=blocks)


def _resize_all(images: Array, side: int | None) -> Array:
    """Resize and crop images, uint8 (k, channels, height, width), unless ``side`` is None."""
    if side is None or images.shape[2:] == (side, side):
        return images
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if channels_last.shape[3] == 1:
        channels_last = channels_last[..., 0]
    resized = [np.asarray(resize_and_crop(Image.fromarray(image), side)) for image in channels_last]
    stacked = np.stack(resized)
    return stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)


def _convert_colour(images: Array, channels: int) -> Array:
    """Convert images to one or three channels, uint8 (k, channels, height, width)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    luma: Array = np.einsum("kchw,c->khw", images, _LUMA, dtype=np.uint32)
    grey: Array = ((luma + 2**15) >> 16).astype(np.uint8)
    return grey[:, None]
