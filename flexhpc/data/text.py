"""Read text from tables, and convert it to token ids with a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.config.sections.data import IGNORED, PADDING
from flexhpc.config.sections.files import Text
from flexhpc.data.arrays import array_source
from flexhpc.data.dataset import Array, Source
from flexhpc.data.table import encode_target, normalise_column, read_table
from flexhpc.errors import PointError, one_line_message

if TYPE_CHECKING:
    import pandas as pd


def open_text(data: Text) -> Source:
    """Open a table with text; convert the text to token ids (n, length).

    With ``target``, each text has one class; longer texts are truncated. With ``answer``, the
    sequences consist of a text and its answer, and only the tokens of the answer have labels.
    Without both, all texts have the class 0, which random labels replace.

    Raises:
        PointError: the table or the tokenizer cannot be read, a column does not exist or contains
            other values than text, or a text with its answer is longer than ``length``.
    """
    path = Path(data.path).expanduser()
    names = {"column": data.column, "target": data.target, "answer": data.answer}
    columns = {key: [column] for key, column in names.items() if column}
    frame = read_table(path, columns, as_text=True)
    if not len(frame):
        raise PointError(f"{path}: has no rows")
    tokenizer, name = _read_tokenizer(data), f"text {path}"
    if data.answer is None:
        tokenizer.enable_truncation(data.length)
        ids = _encode(tokenizer, frame, data.column, path)
        labels = np.zeros(len(frame), np.int64)
        if data.target is not None:
            labels, _ = encode_target(normalise_column(frame[data.target]), path)
        return array_source(name, [{"input_ids": _pad(ids, PADDING, path)}, labels])
    ids = _encode(tokenizer, frame, data.column, path)
    answers = _encode(tokenizer, frame, data.answer, path, add_special_tokens=False)
    sequences = [a + b for a, b in zip(ids, answers, strict=True)]
    for row, sequence in enumerate(sequences):
        if len(sequence) > data.length:
            raise PointError(
                f"{path}: row {row + 1} has {len(sequence)} tokens; increase data.length "
                f"({data.length}), or shorten the text"
            )
    token_labels = [[IGNORED] * len(a) + b for a, b in zip(ids, answers, strict=True)]
    inputs = {"input_ids": _pad(sequences, PADDING, path)}
    return array_source(name, [inputs, _pad(token_labels, IGNORED, path)])


def _encode(
    tokenizer: Any, frame: pd.DataFrame, name: str, path: Path, **options: Any
) -> list[list[int]]:
    """Return the token ids of each cell of a column."""
    column = frame[name]
    if missing := int(column.isna().sum()):
        raise PointError(f"{path}: column {name} is missing in {missing} of {len(column)} rows")
    try:
        encodings = tokenizer.encode_batch([str(cell) for cell in column], **options)
    except Exception as error:  # tokenizers raises Exception
        raise PointError(f"data.tokenizer: {one_line_message(error)}") from None
    return [encoding.ids for encoding in encodings]


def _pad(rows: list[list[int]], filler: int, path: Path) -> Array:
    """Return rows of different lengths as one array, filled up at their ends."""
    length = max(map(len, rows))
    for number, row in enumerate(rows):
        if not row:
            raise PointError(f"{path}: the text in row {number + 1} has no tokens")
    return np.array([row + [filler] * (length - len(row)) for row in rows], dtype=np.int64)


def _read_tokenizer(data: Text) -> Any:
    """Read the file ``data.tokenizer``, or tokenizer.json in this folder."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise PointError(
            "data.source: text requires the package tokenizers; install flexhpc[finetuning]"
        ) from None
    path = Path(data.tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise PointError(f"data.tokenizer: file not found ({path})")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception
        raise PointError(
            f"data.tokenizer: {path} is not a tokenizer.json file ({one_line_message(error)})"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if data.length <= special:
        raise PointError(
            f"data.length: must be above {special}, the number of special tokens, not {data.length}"
        )
    return tokenizer
