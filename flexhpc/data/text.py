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

    Raises:
        PointError: the table or the tokenizer cannot be read, a column does not exist or contains
            other values than text, or a text with its answer is longer than ``length``.
    """
    path = Path(data.path).expanduser()
    names = {"column": data.column, "target": data.target, "answer": data.answer}
    frame = read_table(path, {key: [column] for key, column in names.items() if column})
    name = f"text {path}"
    tokenizer = _read_tokenizer(data.tokenizer)
    texts = _text_column(frame, data.column, path)
    if data.target is not None:
        tokenizer.enable_truncation(data.length)
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        labels, _ = encode_target(normalise_column(frame[data.target]), path)
        return array_source(name, [{"input_ids": _pad(ids, PADDING, path)}, labels])
    assert data.answer is not None
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    answers = [
        encoding.ids
        for encoding in tokenizer.encode_batch(
            _text_column(frame, data.answer, path), add_special_tokens=False
        )
    ]
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


def _text_column(frame: pd.DataFrame, name: str, path: Path) -> list[str]:
    import pandas as pd

    column = frame[name]
    if missing := int(column.isna().sum()):
        raise PointError(f"{path}: column {name} is missing in {missing} of {len(column)} rows")
    if not pd.api.types.is_string_dtype(column):
        raise PointError(f"{path}: column {name} must contain text")
    return [str(text) for text in column]


def _pad(rows: list[list[int]], filler: int, path: Path) -> Array:
    """Return rows of different lengths as one array, filled up at their ends."""
    length = max(map(len, rows))
    for number, row in enumerate(rows):
        if not row:
            raise PointError(f"{path}: the text in row {number + 1} has no tokens")
    return np.array([row + [filler] * (length - len(row)) for row in rows], dtype=np.int64)


def _read_tokenizer(location: str) -> Any:
    """Read a file tokenizer.json, or this file in a folder."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise PointError(
            "data.source: text requires the package tokenizers; install flexhpc[finetuning]"
        ) from None
    path = Path(location).expanduser()
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
    return tokenizer
