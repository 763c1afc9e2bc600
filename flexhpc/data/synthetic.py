"""Data sources that need no files: scikit-learn's digits, Gaussian inputs, random tokens, facts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flexhpc.config.sections.data import (
    IGNORED,
    Digits,
    Gaussian,
    KeyValue,
    RandomTokens,
    Tokens,
)
from flexhpc.data.dataset import Ints, Source, Split
from flexhpc.seeds import derive_seed


def open_digits(data: Digits) -> Source:
    """Open scikit-learn's digits, whose images are uint8 (1797, 1, 8, 8) with values from 0 to 16.

    scikit-learn is not imported, because every worker would need nearly as long for this import as
    for the import of torch.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, np.int64, delimiter=",")
    images = table[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8)
    return Source(name="digits", classes=10, train=Split.from_arrays(images, table[:, -1]))


def draw_gaussian(data: Gaussian, seed: int) -> Source:
    """Draw standard-normal inputs, float32 (size, dims), for the ``seed`` of a point.

    The original labels come from a random linear teacher without bias. A linear model fits any
    number of samples with these labels, because they are linearly separable. With
    ``labels: random``, this is the perceptron problem of Cover (1965): the number of samples that a
    linear model fits with probability 1/2 is known exactly. Inputs are not standardised.
    """
    rng = np.random.default_rng(derive_seed(seed, "inputs"))
    inputs = rng.standard_normal((data.size, data.dims), dtype=np.float32)
    teacher = rng.standard_normal((data.dims, data.classes), dtype=np.float32)
    return Source(
        name=f"gaussian ({data.size} x {data.dims})",
        classes=data.classes,
        train=Split.from_arrays(inputs, (inputs @ teacher).argmax(axis=1)),
        standardised_mask=np.zeros(data.dims, dtype=np.bool_),
    )


def draw_random_tokens(data: RandomTokens, seed: int) -> Source:
    """Draw uniformly random tokens for the ``seed`` of a point."""
    rng = np.random.default_rng(derive_seed(seed, "inputs"))
    return _token_source(data, rng.integers(0, data.vocabulary, (data.size, data.length)))


def draw_key_value(data: KeyValue, seed: int) -> Source:
    """Draw uniformly random facts for the ``seed`` of a point; no two facts have the same key."""
    rng = np.random.default_rng(derive_seed(seed, "inputs"))
    keys = rng.integers(0, data.vocabulary, (0, data.key_length))
    while len(keys) < data.size:
        drawn = rng.integers(0, data.vocabulary, (data.size, data.key_length))
        keys = np.concatenate([keys, drawn])
        _, first = np.unique(keys, axis=0, return_index=True)
        keys = keys[np.sort(first)]
    values = rng.integers(0, data.vocabulary, (data.size, data.value_length))
    return _token_source(data, np.concatenate([keys[: data.size], values], axis=1))


def _token_source(data: Tokens, tokens: Ints) -> Source:
    """Return a source of token sequences, (size, sequence_length), stored as float32."""
    token_labels = tokens.copy()
    token_labels[:, : data.first_in_loss] = IGNORED
    return Source(
        name=f"{data.source} ({data.size} x {tokens.shape[1]}, vocabulary {data.vocabulary})",
        classes=data.vocabulary,
        train=Split.from_arrays(tokens.astype(np.float32), np.zeros(data.size, np.int64)),
        standardised_mask=np.zeros(tokens.shape[1], dtype=np.bool_),
        token_labels=token_labels,
    )
