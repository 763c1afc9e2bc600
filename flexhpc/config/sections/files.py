"""Variants of ``data`` for common file formats."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import DATA_SET_NAME, LOCATION, Problems
from flexhpc.config.sections.data import Data, Images


class FileFormat(Images):
    """Keys that all file formats share."""

    has_test_set: ClassVar[bool] = True

    path: Annotated[str, LOCATION]
    """Path of the samples, or of a file written by `flexhpc data prepare`."""
    name: Annotated[str | None, DATA_SET_NAME] = None
    """Name of the data set. It distinguishes two data sets of this format in one sweep, because the
    name is part of a point's id and `path` is not."""


class Arrays(FileFormat):
    """NumPy arrays: a .npz file, or one memory-mapped .npy file per array. Inputs are images
    (n, channels, height, width) or (n, height, width), vectors (n, features), or token ids (n,
    length). Labels have shape (n,); or, if a network predicts the tokens of a sequence, (n,
    length), with -100 for tokens that need not be predicted."""

    import_path: ClassVar[str] = "flexhpc.data.arrays:open_arrays"

    source: Literal["arrays"]
    path: Annotated[str, LOCATION]
    """Path of the .npz file, of the .npy file with the inputs, or of a file written by `flexhpc
    data prepare`."""
    column: str | None = None
    """Name of the input array in a .npz file; by default the first of `input_ids`, `pixel_values`,
    `x_train`, `X_train`, `x`, `X`, `inputs`, `images` and `data` that exists. `input_ids` are token
    ids, which are not standardised; they are padding where the array `attention_mask` is 0."""
    target: str | None = None
    """Name of the label array in a .npz file; by default the first of `y_train`, `y`, `labels` and
    `target` that exists. With .npy files, the name of the .npy file with the labels (required). The
    file must be in the same folder as the inputs."""
    test_column: str | None = None
    """Name of the array (.npz) or of the .npy file that contains the test inputs. By default, the
    array `x_test` or `X_test` is used if the .npz file also contains `y_test`."""
    test_target: str | None = None
    """Name of the array (.npz) or of the .npy file that contains the test labels. By default, the
    array `y_test` is used if the .npz file also contains `x_test` or `X_test`."""

    @property
    def has_tokens(self) -> None:
        return None


class ImageTable(FileFormat):
    """Parquet files with images as bytes (PNG, JPEG, ...), or as structs {bytes, path}, as in
    Hugging Face data sets."""

    import_path: ClassVar[str] = "flexhpc.data.image_table:open_image_table"

    source: Literal["image_table"]
    path: Annotated[str, LOCATION]
    """A .parquet file or a folder of such files, read in the order of their names; or a file
    written by `flexhpc data prepare`."""
    column: str = "image"
    """Column of the images."""
    target: str = "label"
    """Column of the classes."""
    split: str | None = None
    """Prefix of the names of the training files. If `path` is a folder, only files with this prefix
    are used for training."""
    test_split: str | None = None
    """Prefix of the names of the test files. If `path` is a folder, the files with this prefix are
    the test set."""


class HuggingFace(FileFormat):
    """A Hugging Face data set, as written by `save_to_disk` (Arrow): images or vectors."""

    import_path: ClassVar[str] = "flexhpc.data.hugging_face:open_hugging_face"

    source: Literal["hugging_face"]
    path: Annotated[str, LOCATION]
    """The folder of the data set, or a file written by `flexhpc data prepare`."""
    column: str = "image"
    """Column with the inputs, which are images or lists of numbers."""
    target: str = "label"
    """Column of the classes."""
    split: str = "train"
    """Name of the training split, if there are several splits."""
    test_split: str | None = None
    """Name of the test split; by default `test`, or `validation` if there is no `test`."""


class WebDataset(FileFormat):
    """Tar files in the WebDataset format: each sample consists of an image file `KEY.jpg` and a
    file `KEY.cls` with its class."""

    import_path: ClassVar[str] = "flexhpc.data.webdataset:open_webdataset"
    has_test_set: ClassVar[bool] = False

    source: Literal["webdataset"]
    path: Annotated[str, LOCATION]
    """A .tar file or a folder of such files, read in the order of their names; or a file written by
    `flexhpc data prepare`."""
    column: str | None = None
    """Extension of the image files, such as `jpg`; by default files with any image extension are
    read."""
    target: str = "cls"
    """Extension of the class files, each of which contains a number or a word."""


class Text(Data):
    """A table (CSV or Parquet) with a column of text, which a tokenizer converts to token ids.
    Every text has a class (`target`, or `labels: random`), or a network predicts its answer
    (`answer`)."""

    import_path: ClassVar[str] = "flexhpc.data.text:open_text"
    has_vectors: ClassVar[bool] = True

    source: Literal["text"]
    path: Annotated[str, LOCATION]
    """The file of the table."""
    column: str = "text"
    """Column of the text."""
    target: str | None = None
    """Column of the classes; not required with `labels: random` and `classes`."""
    answer: str | None = None
    """Column of the text to predict from the text in `column`. The loss includes only the tokens of
    the answer, and a sample is fitted if each of them has the highest predicted probability."""
    tokenizer: Annotated[str, LOCATION]
    """File tokenizer.json of the package tokenizers, or a folder that contains this file."""
    length: Annotated[int, Field(ge=1, le=2**16)] = 128
    """Largest number of tokens. Longer texts are truncated; with `answer`, they are an error."""
    name: Annotated[str | None, DATA_SET_NAME] = None
    """Name that distinguishes two tables in one sweep, because `path` is not part of a point's
    id."""

    @property
    def has_tokens(self) -> bool:
        """Whether a network predicts the tokens of answers."""
        return self.answer is not None

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        has_classes = self.target is not None or (self.labels, self.answer) == ("random", None)
        if has_classes == (self.answer is not None):
            yield "target", "give exactly one of target, answer and labels: random"
        if has_classes and self.target is None and self.classes is None:
            yield "classes", "is required without target; give the number of random classes"
        if self.has_tokens:
            for key in self.keys_of_labelled_samples():
                yield key, "has no effect with answer; remove it"
        if self.inputs != "original":
            yield "inputs", "has no effect on text; remove it"
        if self.standardise != "channel":
            yield "standardise", "has no effect on text; remove it"
