"""How much information about labels a network has taken up."""

from __future__ import annotations

import math

from flexhpc.store import PointRecord


def information(n: int, accuracy: float, classes: int) -> float:
    """Return the mutual information (bits) of n uniform random labels and a network's answers.

    n [log2 C + a log2 a + (1 - a) log2((1 - a) / (C - 1))] for accuracy a among C classes, if
    errors fall on all wrong classes alike; 0 at or below chance. Collins et al. 2017 (arXiv
    1611.09913).
    """
    if accuracy <= 1 / classes:
        return 0.0
    wrong = 1 - accuracy
    missing = wrong * math.log2(wrong / (classes - 1)) if wrong > 0 else 0.0
    return n * (math.log2(classes) + accuracy * math.log2(accuracy) + missing)


def bits_per_parameter(record: PointRecord) -> float | None:
    """Return the most information that any probe of a point took up, per parameter.

    With labels that are not random it is an upper bound, as they can be told from the inputs in
    part. None before the first probe, or where an old file does not say the number of classes.
    """
    classes = record.header.classes
    if classes < 2 or not record.probes:
        return None
    most = max(information(p.n, p.train_accuracy, classes) for p in record.probes)
    return most / record.header.params
