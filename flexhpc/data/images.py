"""Resize uint8 images (with antialiasing, by PIL) and convert their colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from flexhpc.data.dataset import Array, Split

_LUMA = np.array([19_595, 38_470, 7_471], dtype=np.uint32)  # ITU-R 601 weights x 2^16


def resize_and_crop(image: Image.Image, side: int) -> Image.Image:
    """Return an image of side x side pixels: resize the shorter side, then crop the centre."""
    width, height = image.size
    if (width, height) == (side, side):
        return image
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    scaled = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return scaled.crop((left, top, left + side, top + side))


def with_size_and_colour(split: Split, side: int | None, colour: str | None) -> Split:
    """Return the split with its images resized, then converted to grey or RGB.

    Return ``split`` itself if its images already have this size and colour.
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
    """Resize images, uint8 (k, channels, height, width)."""
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
