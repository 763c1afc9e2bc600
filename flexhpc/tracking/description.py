"""Descriptions of points and comparisons on MLflow pages."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.analysis.reasons import best_values_text, censoring_reason, emc_warnings, ending_text
from flexhpc.analysis.text import doubling_text, emc_text, ratio_text
from flexhpc.config.sections.compare import Compare
from flexhpc.store.status import PointStatus


def point_description(status: PointStatus) -> str:
    """Return a Markdown description of a finished point: estimate, interval and warnings."""
    record, estimate = status.record, status.estimate
    assert record is not None
    assert estimate is not None
    params, reason = record.header.params, censoring_reason(status)
    prefix = f"{reason}, " if reason else ""
    parts = [f"**EMC {emc_text(estimate)}** ({prefix}{estimate.estimand}, level {estimate.level})"]
    if params:
        parts += [f"{params:,} parameters", f"EMC per parameter {ratio_text(estimate, params)}"]
    if doubling := doubling_text(estimate, with_interval=True):
        parts.append(f"twice the budget raises the EMC by {doubling}")
    parts += [f"{estimate.probes} probes", f"{estimate.cost:,} sample passes"]
    if best := best_values_text(status):
        parts.append(f"best at {best}")
    if ended := ending_text(status):
        parts.append(f"ended by: {ended}")
    warnings = [f"\n\n{text[0].upper()}{text[1:]}." for text, _ in emc_warnings([status])]
    return ", ".join(parts) + "".join(warnings)


def decision_description(statuses: Sequence[PointStatus], compare: Compare) -> str:
    """Return the verdicts of a comparison as Markdown text; the comparison must set ``decide``."""
    from flexhpc.analysis.decision import decide  # takes a tenth of a second

    decision = decide(statuses, compare)
    return "\n".join([f"{decision.text}.\n", *(f"- {effect.text}" for effect in decision.effects)])
