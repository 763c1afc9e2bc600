"""Classifiers of scikit-learn as trainers: keyword arguments are their own."""

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
    """Random forest; returns the classes that it predicts of what it learnt."""
    return _learnt(RandomForestClassifier(random_state=seed, **settings), inputs, labels)


def boosting(inputs: Inputs, labels: Labels, seed: int, **settings: Any) -> Labels:
    """Gradient boosting over binned features."""
    return _learnt(HistGradientBoostingClassifier(random_state=seed, **settings), inputs, labels)


def svm(inputs: Inputs, labels: Labels, **settings: Any) -> Labels:
    """Support vector machine."""
    return _learnt(SVC(**settings), inputs, labels)


def neighbours(inputs: Inputs, labels: Labels, **settings: Any) -> Labels:
    """Majority of the nearest neighbours, each sample among its own."""
    settings["n_neighbors"] = min(settings.get("n_neighbors", 5), len(labels))
    return _learnt(KNeighborsClassifier(**settings), inputs, labels)


def _learnt(classifier: Any, inputs: Inputs, labels: Labels) -> Labels:
    vectors = inputs.reshape(len(inputs), -1)
    if len(np.unique(labels)) == 1:  # which some of them refuse to learn
        return labels
    predicted: Labels = classifier.fit(vectors, labels).predict(vectors)
    return predicted
