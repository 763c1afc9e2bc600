"""scikit-learn classifiers as trainers: keyword arguments are their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]


def forest(inputs: Inputs, labels: Labels, seed: int, **settings: Any) -> Labels:
    """Train a random forest; return its predictions for the training samples."""
    return _predictions(RandomForestClassifier(random_state=seed, **settings), inputs, labels)


def boosting(inputs: Inputs, labels: Labels, seed: int, **settings: Any) -> Labels:
    """Train gradient boosting over binned features."""
    return _predictions(
        HistGradientBoostingClassifier(random_state=seed, **settings), inputs, labels
    )


def svm(inputs: Inputs, labels: Labels, **settings: Any) -> Labels:
    """Train a support vector machine."""
    return _predictions(SVC(**settings), inputs, labels)


def neighbours(inputs: Inputs, labels: Labels, **settings: Any) -> Labels:
    """Predict the majority class of the nearest neighbours, including the sample itself."""
    settings["n_neighbors"] = min(settings.get("n_neighbors", 5), len(labels))
    return _predictions(KNeighborsClassifier(**settings), inputs, labels)


def _predictions(classifier: Any, inputs: Inputs, labels: Labels) -> Labels:
    vectors = inputs.reshape(len(inputs), -1)
    if len(np.unique(labels)) == 1:  # some classifiers reject a single class
        return labels
    predicted: Labels = classifier.fit(vectors, labels).predict(vectors)
    return predicted
