"""Information about labels that a network stores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from flexhpc.analysis.information import label_information, max_label_information
from flexhpc.analysis.results import results_row
from flexhpc.search import ProbeResult
from tests.analysis.builders import measured_point, one_point


@example(400, 2, 1.0)
@given(st.integers(1, 10**6), st.integers(2, 100), st.floats(0, 1))
def test_information_equals_that_of_a_symmetric_channel(
    n: int, classes: int, accuracy: float
) -> None:
    """Compare with the sum over the joint distribution of labels and predictions."""
    information = label_information(n, accuracy, classes)
    if accuracy <= 1 / classes:
        assert information == 0
        return
    joint = np.full((classes, classes), (1 - accuracy) / (classes - 1) / classes)
    np.fill_diagonal(joint, accuracy / classes)
    positive = joint[joint > 0]
    expected = n * float((positive * np.log2(positive * classes**2)).sum())
    assert information == pytest.approx(expected, rel=1e-6, abs=1e-6 * n)


def probe_result(n: int, missed: int, *, rejected: bool = False) -> ProbeResult:
    verdict = "not_fit" if missed else "fit"
    return ProbeResult(n=n, repeat=0, verdict=verdict, n_errors=missed, cost=n, rejected=rejected)


def test_maximum_information_averages_over_similar_n() -> None:
    """Of ten training runs near one n, nine miss half of the samples."""
    fit, others = probe_result(200, 0), [probe_result(200 + i, 100 + i // 2) for i in range(1, 10)]
    of_fit, of_other = label_information(200, 1.0, 2), label_information(209, 105 / 209, 2)
    assert max_label_information([fit, *others], 2).mean == pytest.approx(of_fit / 10, rel=0.05)
    assert of_other < 0.01
    distant = probe_result(2_000, 1_000)
    assert max_label_information([fit, distant], 2).mean == of_fit, "distant probes do not count"


def test_maximum_information_may_be_above_the_emc() -> None:
    """Twice as many samples with 5 % missed contain more information here."""
    outcomes = [(100, 0), (200, 10), (1000, 890)] * 3
    maximum = max_label_information([probe_result(*outcome) for outcome in outcomes], 10).mean
    assert maximum == pytest.approx(label_information(200, 0.95, 10))
    fits = [probe_result(95, 0), probe_result(100, 0)]
    assert max_label_information(fits, 10).mean == pytest.approx(100 * math.log2(10))


def test_information_interval_is_students_t_over_similar_n() -> None:
    missed = (8, 10, 14)
    bits = [label_information(200, 1 - count / 200, 10) for count in missed]
    probes = [*(probe_result(200, count) for count in missed), probe_result(20, 0)]
    stored = max_label_information(probes, 10)
    low, high = stats.t.interval(0.9, 2, np.mean(bits), stats.sem(bits))
    assert (stored.low, stored.high) == pytest.approx((low, high))
    assert stored.mean == pytest.approx(np.mean(bits))
    assert max_label_information([probe_result(20, 0)], 10).low is None, "no interval for one probe"
    with_rejected = [probe_result(50, 0), probe_result(900, 0, rejected=True)]
    assert max_label_information(with_rejected, 2).mean == 50
    assert max_label_information([probe_result(50, 1, rejected=True)], 2) is None
    assert max_label_information([], 2) is None


@pytest.mark.parametrize("labels", ["random", "original", "corrupted"])
def test_bits_per_parameter_are_for_random_labels_only(labels: str, tmp_path: Path) -> None:
    data = f"labels: {labels}" + (", corruption: 0.5" if labels == "corrupted" else "")
    point = one_point(tmp_path, data=data)
    row = results_row(measured_point(point, [(16, 0), (32, 0)], params=50, classes=10))
    expected = pytest.approx(32 * math.log2(10) / 50) if labels == "random" else None
    assert row["bits_per_param"] == expected
    if labels == "random":
        several = measured_point(point, [(200, 8), (200, 10), (200, 14)], params=50, classes=10)
        row = results_row(several)
        stored = max_label_information([probe_result(200, missed) for missed in (8, 10, 14)], 10)
        ends = row["bits_per_param_lo"], row["bits_per_param_hi"]
        assert ends == pytest.approx((stored.low / 50, stored.high / 50))
    unknown_classes = measured_point(point, [(16, 0)], classes=0)
    assert results_row(unknown_classes)["bits_per_param"] is None
