"""Variants of ``data`` that are read from the formats that people keep samples in."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from flexhpc.config.sections.base import CALLED, LOCATION
from flexhpc.config.sections.data import Images


class Kept(Images):
    """What all of them share."""

    path: Annotated[str, LOCATION]
    """Where they lie, or a file of `flexhpc data prepare`."""
    name: Annotated[str | None, CALLED] = None
    """Tells two of one sweep apart, as `path` is no part of a point's identity."""

    @property
    def own_test(self) -> bool:
        """It may have one."""
        return True


class Arrays(Kept):
    """Arrays of NumPy: a .npz file, or two .npy files, which are memory-mapped. Images (n,
    channels, height, width) or (n, height, width), or vectors (n, features)."""

    does: ClassVar[str] = "flexhpc.data.arrays:open_arrays"

    source: Literal["arrays"]
    path: Annotated[str, LOCATION]
    """The .npz file, or the .npy file of the inputs, or a file of `flexhpc data prepare`."""
    column: str | None = None
    """Array of the inputs in a .npz; by default `x_train`, `X_train`, `x`, `X`, `inputs`, `images`
    or `data`, whichever is there."""
    target: str | None = None
    """Array of the labels in a .npz, by default `y_train`, `y`, `labels` or `target`; or the .npy
    file of the labels beside the inputs."""
    test_column: str | None = None
    """Those to test on, by default `x_test` or `X_test`; or a .npy file."""
    test_target: str | None = None
    """Labels of these, by default `y_test`; or a .npy file."""


class ImageTable(Kept):
    """Parquet with images as bytes (PNG, JPEG, ...), or as {bytes, path} as Hugging Face keeps
    them."""

    does: ClassVar[str] = "flexhpc.data.image_table:open_image_table"

    source: Literal["image_table"]
    path: Annotated[str, LOCATION]
    """A .parquet file, or a folder of them, in the order of their names; or a file of `flexhpc data
    prepare`."""
    column: str = "image"
    """Column of the images."""
    target: str = "label"
    """Column of the classes."""
    split: str | None = None
    """In a folder, only files whose names begin so."""
    test_split: str | None = None
    """In a folder, files whose names begin so hold the test set."""


class HuggingFace(Kept):
    """A data set of Hugging Face, as `save_to_disk` writes it (Arrow): images, or vectors."""

    does: ClassVar[str] = "flexhpc.data.hugging_face:open_hugging_face"

    source: Literal["hugging_face"]
    path: Annotated[str, LOCATION]
    """The folder, or a file of `flexhpc data prepare`."""
    column: str = "image"
    """Column of the inputs: images, or lists of numbers."""
    target: str = "label"
    """Column of the classes."""
    split: str = "train"
    """Which of several splits is trained on."""
    test_split: str | None = None
    """Which is tested on; by default `test` or `validation`, where there is one."""


class WebDataset(Kept):
    """Tar files of images and their classes, `KEY.jpg` beside `KEY.cls`, as WebDataset reads
    them."""

    does: ClassVar[str] = "flexhpc.data.webdataset:open_webdataset"

    source: Literal["webdataset"]
    path: Annotated[str, LOCATION]
    """A .tar file, or a folder of them, in the order of their names; or a file of `flexhpc data
    prepare`."""
    column: str | None = None
    """Ending of the images, as `jpg`; by default any that images have."""
    target: str = "cls"
    """Ending of the classes, each a number or a word."""

    @property
    def own_test(self) -> bool:
        """None."""
        return False
