"""Read samples from arrays in memory or in NumPy files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.data import IGNORED, PADDING
from flexhpc.config.sections.files import Arrays
from flexhpc.data.classes import class_names_of, encode_labels
from flexhpc.data.dataset import Array, Ints, Source, Split, iterate_blocks
from flexhpc.data.raw_files import check_fits_in_memory, convert_read_errors
from flexhpc.errors import PointError

_DEFAULT_NAMES = {
    "column": (
        "input_ids",
        "pixel_values",
        "x_train",
        "X_train",
        "x",
        "X",
        "inputs",
        "images",
        "data",
    ),
    "target": ("y_train", "y", "labels", "target"),
    "test_column": ("x_test", "X_test"),
    "test_target": ("y_test",),
}
"""Key -> names of arrays in an .npz file; the first that exists is used if the key is not set."""
_TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids")
_TEST_KEYS = ("test_column", "test_target")


def open_arrays(data: Arrays) -> Source:
    """Open the arrays of an .npz file, or memory-map several .npy files.

    Raises:
        PointError: the file or an array does not exist, or the arrays are not valid samples and
            labels.
    """
    path = Path(data.path).expanduser()
    if not path.is_file():
        raise PointError(f"data.path: file not found ({data.path})")
    if path.suffix == ".npy":
        if data.column is not None:
            raise PointError("data.column: has no effect with an .npy file; remove it")
        if data.target is None:
            raise PointError(
                "data.target: is required with an .npy file; give the name of the .npy file with "
                "the labels"
            )
        if (data.test_column is None) != (data.test_target is None):
            raise PointError("data.test_column, data.test_target: give both keys or neither")
        names = {
            "path": path.name, "target": data.target,
            "test_column": data.test_column, "test_target": data.test_target,
        }  # fmt: skip
        arrays = [_memory_map(path.parent / name, key) for key, name in names.items() if name]
        return array_source(f"arrays {path}", arrays)
    with convert_read_errors(path, "an .npz file"), open_regular_file(path) as file:
        archive = NpzFile(file)
        keys = ["column", "target"]
        has_tests = all({*_DEFAULT_NAMES[key]} & {*archive.files} for key in _TEST_KEYS)
        if has_tests or data.test_column or data.test_target:
            keys += _TEST_KEYS
        arrays = [_read_member(archive, path, key, getattr(data, key)) for key in keys]
        if data.column in (None, "input_ids") and "input_ids" in archive.files:
            present = [name for name in _TOKEN_KEYS if name in archive.files]
            if len(arrays) > 2:
                raise PointError(
                    f"{path}: test arrays are not supported with input_ids; use data.test_fraction"
                )
            if data.inputs != "original":
                raise PointError("data.inputs: has no effect on token ids; remove it")
            tokens = {name: _read_member(archive, path, "column", name) for name in present}
            return array_source(
                f"arrays {path}", [token_ids(f"arrays {path}", tokens), *arrays[1:]]
            )
        if "attention_mask" in archive.files and "input_ids" not in archive.files:
            raise PointError(
                f"{path}: attention_mask has no effect without input_ids; rename the array of "
                "token ids to input_ids, or remove attention_mask"
            )
    return array_source(f"arrays {path}", arrays)


def _memory_map(path: Path, key: str) -> Any:
    with convert_read_errors(f"data.{key}: {path}", "an .npy file"):
        open_regular_file(path).close()  # np.load would block on a named pipe
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_member(archive: Any, path: Path, key: str, name: str | None) -> Array:
    names = (name,) if name else _DEFAULT_NAMES[key]
    name = next((name for name in names if name in archive.files), None)
    if name is None:
        raise PointError(
            f"data.{key}: {path} has no array {' or '.join(names)}; it has "
            f"{', '.join(archive.files)}"
        )
    check_fits_in_memory(path, archive.zip, name)
    with convert_read_errors(f"{path}: {name}", "an array"):
        array: Array = archive[name]
        return array


def array_source(name: str, arrays: Sequence[Any]) -> Source:
    """Create a source from arrays.

    Args:
        name: name of the source, for messages.
        arrays: inputs and labels, optionally followed by test inputs and test labels. Inputs can be
            the result of :func:`token_ids`. Labels of shape (n, length) are labels of tokens; see
            ``Source.token_labels``.

    Raises:
        PointError: the arrays are not valid samples and labels, or the lengths of inputs and labels
            differ.
    """
    inputs, labels, *tests = arrays
    if np.ndim(labels) == 2:
        return _sequence_source(name, inputs, labels, has_tests=bool(tests))
    codes, sorted_labels = encode_labels(name, labels)
    inputs, is_tokens = _unwrap_tokens(inputs)
    train, test = _make_split(name, inputs, codes, is_tokens=is_tokens), None
    if tests:
        tests[0], test_is_tokens = _unwrap_tokens(tests[0])
        test_codes, _ = encode_labels(name, tests[1], sorted_labels)
        test = _make_split(f"{name}, test set", tests[0], test_codes, is_tokens=test_is_tokens)
        if test.shape != train.shape:
            raise PointError(
                f"{name}: test samples have shape {test.shape}, but training samples have shape "
                f"{train.shape}"
            )
    return Source(
        name=name,
        classes=len(sorted_labels),
        train=train,
        open_test=lambda: test,
        class_names=class_names_of(sorted_labels),
        standardised_mask=np.zeros(train.shape, dtype=np.bool_) if is_tokens else None,
    )


def token_ids(name: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """Check the inputs of a tokenizer, and mark padding.

    Args:
        name: name of the data set, for messages.
        inputs: arrays (n, length): input_ids; optionally attention_mask, which is 0 for padding;
            and token_type_ids, which must be 0.

    Returns:
        A mapping with one entry: input_ids, int64 (n, length), which are ``PADDING`` where the
        attention mask is 0.

    Raises:
        PointError: a key is missing or unknown, or an array is invalid.
    """
    if "input_ids" not in inputs or (unknown := set(inputs) - {*_TOKEN_KEYS}):
        problem = "unknown" if "input_ids" in inputs else "missing"
        key = unknown.pop() if "input_ids" in inputs else "input_ids"
        raise PointError(
            f"{name}: inputs: {problem} key {key}; a mapping must contain only pixel_values, or "
            f"{', '.join(_TOKEN_KEYS)}"
        )
    ids = inputs["input_ids"]
    for key, array in inputs.items():
        if array.ndim != 2 or array.shape != ids.shape or array.dtype.kind not in "biu":
            raise PointError(
                f"{name}: {key} must contain integers of shape (n, length), as input_ids, not "
                f"{array.dtype} of shape {array.shape}"
            )
    if np.any(inputs.get("token_type_ids", 0)):
        raise PointError(f"{name}: token_type_ids other than 0 are not supported")
    mask = inputs.get("attention_mask", ids >= 0).astype(np.bool_)
    if np.any(mask & (ids < 0)):
        raise PointError(f"{name}: input_ids must not be negative where attention_mask is 1")
    if not mask.any(axis=1).all():
        raise PointError(f"{name}: sample {int(mask.any(axis=1).argmin())} has no tokens")
    return {"input_ids": np.where(mask, ids.astype(np.int64), PADDING)}


def _unwrap_tokens(inputs: Array | dict[str, Array]) -> tuple[Array, bool]:
    """Return the array of inputs, and whether these are token ids."""
    return (inputs["input_ids"], True) if isinstance(inputs, dict) else (inputs, False)


def _sequence_source(
    name: str, inputs: Array | dict[str, Array], labels: Array, *, has_tests: bool
) -> Source:
    """Create a source of sequences with one label per token."""
    if not isinstance(inputs, dict):
        if np.ndim(inputs) != 2 or inputs.dtype.kind not in "iu":
            raise PointError(
                f"{name}: labels must have shape (n,), not {labels.shape}; only sequences of token "
                "ids (n, length) can have one label per token"
            )
        inputs = token_ids(name, {"input_ids": inputs})
    ids = inputs["input_ids"]
    if labels.shape != ids.shape or labels.dtype.kind not in "iu":
        raise PointError(
            f"{name}: labels of tokens must be integers of shape {ids.shape}, as input_ids, not "
            f"{labels.dtype} of shape {labels.shape}"
        )
    if has_tests:
        raise PointError(f"{name}: a test set is not supported with one label per token")
    labels = labels.astype(np.int64)
    scored, padding = labels != IGNORED, ids == PADDING
    for problem, rows in (
        ("has no label", ~scored.any(axis=1)),
        (f"has a label below 0 other than {IGNORED}", (scored & (labels < 0)).any(axis=1)),
        ("has a label where it is padded", (scored & padding).any(axis=1)),
        ("is padded before its last token", (padding[:, :-1] & ~padding[:, 1:]).any(axis=1)),
    ):
        if rows.any():
            raise PointError(f"{name}: sample {int(rows.argmax())} {problem}")
    ids = np.where(padding, 0, ids)  # no token with a label follows
    train = _make_split(name, ids, np.zeros(len(ids), np.int64), is_tokens=True)
    return Source(
        name=name,
        classes=int(max(ids.max(), labels.max())) + 1,
        train=train,
        standardised_mask=np.zeros(ids.shape[1], dtype=np.bool_),
        token_labels=labels,
    )


def _make_split(name: str, inputs: Array, labels: Ints, *, is_tokens: bool) -> Split:
    """Create a split; convert samples to float32, except uint8 samples and token ids.

    Token ids are int64. They therefore have another fingerprint than features with the same values,
    which are standardised.
    """
    if len(labels) != len(inputs):
        raise PointError(
            f"{name}: inputs of shape {inputs.shape} and labels of shape {labels.shape} do not "
            "match"
        )
    if len(labels) < 2:
        raise PointError(f"{name}: {len(labels)} samples are too few; at least 2 are needed")
    if inputs.ndim not in (2, 3, 4) or 0 in inputs.shape:
        raise PointError(
            f"{name}: inputs of shape {inputs.shape} are neither vectors (n, features) nor images "
            "(n, channels, height, width) or (n, height, width)"
        )
    if inputs.dtype.kind not in "biuf":
        raise PointError(f"{name}: inputs have dtype {inputs.dtype}, which is not numeric")
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.dtype == np.uint8 or is_tokens:
        return Split.from_arrays(inputs, labels)

    def blocks() -> Iterator[Array]:
        start = 0
        for block in iterate_blocks(inputs):
            with np.errstate(over="ignore"):
                converted = np.ascontiguousarray(block, dtype=np.float32)
            if not (finite := np.isfinite(converted)).all():
                row, *rest = np.argwhere(~finite)[0].tolist()
                column = f"column {rest[0]}" if len(rest) == 1 else f"pixel {tuple(rest)}"
                raise PointError(
                    f"{name}: row {start + row}, {column} of the inputs is "
                    f"{block[row, *rest]}, not a finite float32 number; remove or correct the row"
                )
            start += len(block)
            yield converted

    shape = tuple(int(side) for side in inputs.shape[1:])
    split = Split(labels=labels, shape=shape, dtype=np.dtype(np.float32), blocks=blocks)
    return split if isinstance(inputs, np.memmap) else Split.from_arrays(split.gather(), labels)
