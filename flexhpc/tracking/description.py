"""Descriptions of points and comparisons on MLflow pages."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.analysis.reasons import best_values_text, censoring_reason, emc_warnings, ending_text
from flexhpc.analysis.text import doubling_text, emc_text, ratio_text
from flexhpc.config.sections.compare import Compare
from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus


def point_description(status: PointStatus) -> str:
    """Return a Markdown description of a finished point: estimate, interval and warnings."""
    record, estimate = status.record, status.estimate
    assert record is not None
    assert estimate is not None
    reason, ended, best = censoring_reason(status), ending_text(status), best_values_text(status)
    doubling = doubling_text(estimate, with_interval=True)
    warning_text = "".join(
        f"\n\n{text[0].upper()}{text[1:]}." for text, _ in emc_warnings([status])
    )
    return (
        f"**EMC {emc_text(estimate)}** ({reason + ', ' if reason else ''}{estimate.estimand}, "
        f"level {estimate.level}), {_parameters_text(record.header.params, estimate)}"
        f"{'twice the budget raises the EMC by ' + doubling + ', ' if doubling else ''}"
        f"{estimate.probes} probes, {estimate.cost:,} sample passes"
        f"{', best at ' + best if best else ''}{', ended by: ' + ended if ended else ''}"
        f"{warning_text}"
    )


def decision_description(statuses: Sequence[PointStatus], compare: Compare) -> str:
    """Return the verdicts of a comparison as Markdown text; the comparison must set ``decide``."""
    from flexhpc.analysis.decision import decide  # takes a tenth of a second

    decision = decide(statuses, compare)
    return "\n".join([f"{decision.text}.\n", *(f"- {effect.text}" for effect in decision.effects)])


def _parameters_text(params: int, estimate: Estimate) -> str:
    if not params:
        return ""
    return f"{params:,} parameters, EMC per parameter {ratio_text(estimate, params)}, "
