"""Information (bits) about labels or tokens that a network stores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from flexhpc.search import History
from flexhpc.search.history import accepted_probes
from flexhpc.store.record import ProbeSummary

_MAX_RATIO = 1.1
"""Probes are averaged if their n differ by at most this factor."""


def label_information(n: int, accuracy: float, classes: int) -> float:
    """Return the mutual information (bits) between n uniform random labels and the predictions.

    For accuracy a among C classes, this is n [log2 C + a log2 a + (1 - a) log2((1 - a) / (C - 1))],
    assuming that errors are spread evenly over the wrong classes (Collins et al. 2017, arXiv
    1611.09913). At or below chance accuracy, it is 0.
    """
    if accuracy <= 1 / classes:
        return 0.0
    error = 1 - accuracy
    error_term = error * math.log2(error / (classes - 1)) if error > 0 else 0.0
    return n * (math.log2(classes) + accuracy * math.log2(accuracy) + error_term)


class StoredBits(NamedTuple):
    """Information (bits) that a network stores, at the n for which it stores the most.

    Attributes:
        mean: mean information over the probes within a factor of ``_MAX_RATIO`` of this n.
        low, high: 90 % interval of this mean by Student's t; None for a single probe. The interval
            is not corrected for the selection of the largest of several means.
    """

    mean: float
    low: float | None
    high: float | None


def max_label_information(history: History, classes: int) -> StoredBits | None:
    """Return the maximum over n of the information about labels that a network stores.

    The maximum over n follows Morris et al. 2025 (arXiv 2505.24832). The information at n is n
    times the mean number of bits per sample over all probes within a factor of ``_MAX_RATIO`` of n.
    Probes are averaged because the maximum over single probes would be biased upwards. The average
    includes probes of similar n because a search seldom probes the same n twice.

    Args:
        history: finished probes, in any order; probes rejected by a convergence gate are ignored.
        classes: number of classes, at least 2.

    Returns:
        The maximum; None if no probe has finished or all were rejected.
    """
    probes = accepted_probes(history)
    return _max_stored_bits(
        [(p.n, label_information(p.n, 1 - p.n_errors / p.n, classes)) for p in probes]
    )


def max_token_information(
    probes: Iterable[ProbeSummary], length: int, vocabulary: int
) -> StoredBits | None:
    """Return the maximum over n of the information about random tokens that a network stores.

    n sequences of ``length`` tokens from a vocabulary of V tokens contain ``n * length * log2(V)``
    bits. If they are encoded with the network, they take ``n * length * loss / ln(2)`` bits. The
    network stores the difference (Morris et al. 2025, arXiv 2505.24832, section 3.1). Probes of
    similar n are averaged as in :func:`max_label_information`.

    Args:
        probes: finished probes, with the loss per token (nats).
        length: number of tokens per sequence.
        vocabulary: number of different tokens, V.

    Returns:
        The maximum; None if no probe has finished with a finite loss.
    """
    bits = math.log2(vocabulary)
    stored = [
        (p.n, max(0.0, p.n * length * (bits - p.loss / math.log(2))))
        for p in probes
        if math.isfinite(p.loss)
    ]
    return _max_stored_bits(stored)


def _max_stored_bits(n_and_bits: Sequence[tuple[int, float]]) -> StoredBits | None:
    """Average the stored bits over probes of similar n, and return the maximum over n.

    Args:
        n_and_bits: for each probe, n and the number of bits that the network stores.
    """
    if not n_and_bits:
        return None
    n, bits = np.array(n_and_bits, dtype=np.float64).T
    near = np.abs(np.log(n[:, None] / n)) <= math.log(_MAX_RATIO) + 1e-12
    means = n * (near @ (bits / n)) / near.sum(axis=1)
    best = int(means.argmax())
    mean, values = float(means[best]), (bits / n)[near[best]] * n[best]
    if (count := len(values)) < 2:
        return StoredBits(mean, None, None)
    half = float(stdtrit(count - 1, 0.95) * values.std(ddof=1) / math.sqrt(count))
    return StoredBits(mean, max(0.0, mean - half), mean + half)
