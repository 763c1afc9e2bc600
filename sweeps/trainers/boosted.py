"""LightGBM as a trainer: keyword arguments are its parameters."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray


def fit(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int, rounds: int,
    **parameters: Any,
) -> NDArray[np.float64]:  # fmt: skip
    """Boost trees for a number of rounds; return the scores of all classes, (n, classes)."""
    vectors = inputs.reshape(len(inputs), -1)
    settings = {
        "objective": "multiclass", "num_class": classes, "seed": seed, "deterministic": True,
        "num_threads": 1, "verbose": -1, "min_data_in_leaf": 1, "min_data_in_bin": 1,
    }  # fmt: skip
    dataset = lightgbm.Dataset(vectors, labels)
    trees = lightgbm.train(settings | parameters, dataset, num_boost_round=rounds)
    return np.asarray(trees.predict(vectors))
