"""Data that needs no file: scikit-learn's digits, and Gaussian inputs."""

from __future__ import annotations

import numpy as np

from flexhpc.data.dataset import Dataset
from flexhpc.seeds import derive


def load_digits() -> Dataset:
    """Load the digits that ship with scikit-learn: uint8 (1797, 1, 8, 8), values 0 to 16."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    return Dataset(
        name="digits",
        inputs=digits.images.astype(np.uint8)[:, None],
        labels=digits.target.astype(np.int64),
        classes=10,
    )


def make_gaussian(dims: int, classes: int, size: int, seed: int) -> Dataset:
    """Draw standard-normal inputs, float32 (size, dims), for one ``seed`` of a point.

    Original labels are those of a random linear teacher without bias: linearly separable, so a
    linear model fits any number of them. With random labels this is the perceptron problem of
    Cover (1965), whose n50 is known exactly. Inputs are not standardised.
    """
    rng = np.random.default_rng(derive(seed, "inputs"))
    inputs = rng.standard_normal((size, dims), dtype=np.float32)
    teacher = rng.standard_normal((dims, classes), dtype=np.float32)
    return Dataset(
        name=f"gaussian ({size} x {dims})",
        inputs=inputs,
        labels=(inputs @ teacher).argmax(axis=1).astype(np.int64),
        classes=classes,
        standardise=False,
    )
