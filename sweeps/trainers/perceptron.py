"""Rosenblatt's perceptron in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fit(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int, passes: int = 1000
) -> dict[str, Any]:
    """Train on two classes, with a bias, until all samples are correct or ``passes`` is reached."""
    signs = 2 * labels - 1
    vectors = np.c_[inputs.reshape(len(inputs), -1), np.ones(len(inputs))] * signs[:, None]
    order, weights = np.random.default_rng(seed), np.zeros(vectors.shape[1])
    epochs = 0
    while epochs < passes and not (vectors @ weights > 0).all():
        for i in order.permutation(len(vectors)):
            if vectors[i] @ weights <= 0:
                weights += vectors[i]
        epochs += 1
    return {"right": vectors @ weights > 0, "epochs": epochs, "cost": epochs * len(vectors)}
