"""What MLflow's page of a point says at its top."""

from __future__ import annotations

from flexhpc.analysis.board import PointStatus
from flexhpc.analysis.censoring import why_bound
from flexhpc.analysis.text import emc_text, ratio_text


def note_of(status: PointStatus) -> str:
    """Return the estimate of a finished point in a line of Markdown, as a bound where it is one."""
    record, estimate = status.record, status.estimate
    assert record is not None
    assert estimate is not None
    why = why_bound(status)
    return (
        f"**EMC {emc_text(estimate)}** ({why + ', ' if why else ''}{estimate.estimand}, "
        f"level {estimate.level}), {record.header.params:,} parameters, EMC per parameter "
        f"{ratio_text(estimate, record.header.params)}, {estimate.probes} probes, "
        f"{estimate.cost:,} sample passes"
    )
