"""For each claim of docs/findings.md, one table and one figure from several stored sweeps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.common import markdown_table
from flexhpc.analysis.comparison import (
    BUDGET_FRACTIONS,
    compare_at_budgets,
    compare_points,
    requested_comparisons,
)
from flexhpc.analysis.effect import Effect
from flexhpc.analysis.figures.chart import Spec
from flexhpc.analysis.figures.ratios import MAX_INTERVAL, chart_over_budget
from flexhpc.analysis.grouping import group_by
from flexhpc.analysis.likelihood import SAME_MARGIN
from flexhpc.analysis.results import budget_value, emc_at_budget
from flexhpc.config.sections.compare import Compare
from flexhpc.store.status import PointStatus

_BUDGETS = {
    "steps": "updates", "epochs": "epochs", "gradient_evaluations": "per-sample gradients",
}  # fmt: skip
"""Units of budgets in the tables."""
_MIN_UPDATES = 500
"""Smallest budget (updates) in the figures."""
_LINEAR = "identity"
"""Activation of linear networks, which claim 1 is not about."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stored sweep as part of the table and of the figure of a claim.

    Attributes:
        record: name of the record.
        data: data set, as text.
        networks: networks, as text.
        by: key whose values are compared.
        within: for each set of comparisons, its grouping keys.
        baseline: value of the key with which the other values are compared.
    """

    record: str
    data: str
    networks: str
    by: str
    within: Sequence[Sequence[str]]
    baseline: str


_FAMILIES = Source(
    record="finding_families", data="Fashion-MNIST", networks="MLP, CNN, ViT", by="model.family",
    within=[["data.labels", "model.match_params"]], baseline="mlp",
)  # fmt: skip
_FAMILIES_SIZE = Source(
    record="finding_families_size", data="Fashion-MNIST", networks="MLP, CNN, ViT",
    by="model.family", within=[["model.match_params"]], baseline="mlp",
)  # fmt: skip
_FAMILIES_CIFAR = Source(
    record="finding_families_cifar", data="CIFAR-10", networks="MLP, CNN, ViT", by="model.family",
    within=[["data.labels", "model.match_params"]], baseline="mlp",
)  # fmt: skip
_OPTIMIZERS = Source(
    record="finding_optimizers", data="digits", networks="MLP, SGD and GD", by="training.optimizer",
    within=[["training.steps", "training.epochs", "training.gradient_evaluations"]], baseline="gd",
)  # fmt: skip
_OPTIMIZERS_SATURATION = Source(
    record="finding_optimizers_saturation", data="digits", networks="MLP, SGD and GD",
    by="training.optimizer", within=[["model.width"]], baseline="gd",
)  # fmt: skip
_CONVERGENCE = Source(
    record="finding_convergence", data="digits", networks="MLP, SGD and GD",
    by="training.optimizer", within=[[]], baseline="gd",
)  # fmt: skip
_ACTIVATIONS = Source(
    record="finding_activations", data="Fashion-MNIST", networks="MLP, nonlinear activations",
    by="model.activation", within=[[]], baseline="identity",
)  # fmt: skip
_ACTIVATIONS_DEPTH = Source(
    record="finding_activations_depth", data="Fashion-MNIST", networks="MLP, nonlinear activations",
    by="model.activation", within=[["model.depth"], []], baseline="identity",
)  # fmt: skip
RATIO_CLAIMS = {
    2: [_FAMILIES, _FAMILIES_SIZE, _FAMILIES_CIFAR],
    3: [_OPTIMIZERS, _OPTIMIZERS_SATURATION, _CONVERGENCE],
    5: [_ACTIVATIONS, _ACTIVATIONS_DEPTH],
}
"""Claims about ratios of EMCs, with the sweeps that test them."""
SIZE_CLAIM = [
    _FAMILIES, _FAMILIES_SIZE, _FAMILIES_CIFAR, _ACTIVATIONS, _ACTIVATIONS_DEPTH, _OPTIMIZERS,
    _OPTIMIZERS_SATURATION, _CONVERGENCE,
]  # fmt: skip
"""The sweeps that test claim 1."""
_SIZE_FIGURE = [
    _FAMILIES, _FAMILIES_SIZE, _FAMILIES_CIFAR, _ACTIVATIONS, _ACTIVATIONS_DEPTH,
    _OPTIMIZERS_SATURATION,
]  # fmt: skip
"""The sweeps in the figure of claim 1, all with budgets in updates."""
Records = Mapping[str, tuple[Sequence[PointStatus], str]]
"""Name of each record -> its points and the text of its spec."""


def ratio_table(sources: Sequence[Source], records: Records) -> list[str]:
    """Return a table of ratios at the largest budgets, with one column per compared value.

    Ratios with a verdict are bold.
    """
    rows: list[tuple[list[str], dict[str, str]]] = []
    for source in sources:
        statuses, _ = records[source.record]
        comparisons = compare_points(statuses, _requests(source, records))
        for effects in _groups(source, comparisons.effects):
            points, ratios = _points_of(effects, statuses), {}
            for effect in effects:
                mark = "" if effect.verdict == "not decided" else "**"
                ratios[_comparison_text(effect)] = f"{mark}{effect.ratio_text}{mark}"
            rows.append(([
                source.data, _labels(points[0]), _networks_text(effects[0], points),
                _budget_text(points), str(effects[0].pairs),
            ], ratios))  # fmt: skip
    columns = list(dict.fromkeys(column for _, ratios in rows for column in ratios))
    return markdown_table(
        ["data", "labels", "parameters", "budget", "pairs", *columns],
        [[*cells, *(ratios.get(column, "") for column in columns)] for cells, ratios in rows],
    )


def ratio_figure(sources: Sequence[Source], records: Records) -> Spec:
    """Plot the ratios against the number of updates, with one facet per row of the table.

    Comparisons at equal budgets in other units are omitted, and ratios with wide intervals.
    """
    rows = []
    for source in sources:
        statuses, _ = records[source.record]
        at_budgets = compare_at_budgets(statuses, _requests(source, records))
        for fraction, effects in at_budgets.items():
            for group in _groups(source, effects):
                points = _points_of(group, statuses)
                if _unit(points[0]) != "steps":
                    continue
                networks, labels = _networks_text(group[0], points), _labels(points[0])
                budget = fraction * _largest_budget(statuses, "steps")
                rows += [
                    {
                        "facet": f"{source.data}, {labels}, {networks} parameters",
                        "series": _comparison_text(effect), "x": budget,
                        "y": effect.ratio, "lo": effect.low, "hi": effect.high,
                    }
                    for effect in group
                    if effect.low and effect.high and effect.high / effect.low <= MAX_INTERVAL
                    and budget >= _MIN_UPDATES
                ]  # fmt: skip
    names = {str(row["series"]) for row in rows}
    y_title = "ratio of EMCs" if len(names) > 1 else f"ratio of EMCs ({names.pop()})"
    return chart_over_budget(
        rows, x_title="budget (updates)", y_title=y_title, same=1 + SAME_MARGIN
    )


def size_table(records: Records) -> list[str]:
    """Return a table of the samples per parameter in each sweep, by labels and budget."""
    rows = []
    for source in SIZE_CLAIM:
        groups: dict[tuple[str, str], list[PointStatus]] = {}
        for status in _nonlinear(records[source.record][0]):
            groups.setdefault((_labels(status), _unit(status)), []).append(status)
        for (labels, _), points in groups.items():
            results = [(s.estimate, s.record) for s in points if s.estimate and s.record]
            ratios = [e.emc / r.header.params for e, r in results if e.censored == "none"]
            saturated = sum(estimate.saturated == "yes" for estimate, _ in results)
            rows.append([
                source.data, source.networks, labels, _sizes_text(points), _budget_text(points),
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{saturated} of {len(points)}" if _unit(points[0]) else "no budget",
            ])  # fmt: skip
    head = ["data", "networks", "labels", "parameters", "budget", "samples per parameter"]
    return markdown_table([*head, "saturated"], rows)


def size_figure(records: Records) -> Spec:
    """Plot samples per parameter against the number of updates, for random labels.

    A line is the geometric mean over sizes and seeds, and bars are the range of the points.
    """
    rows = []
    for source in _SIZE_FIGURE:
        groups: dict[str, list[PointStatus]] = {}
        for status in _nonlinear(records[source.record][0]):
            if _labels(status) == "random":
                groups.setdefault(_series_text(source, status), []).append(status)
        in_facet = [status for points in groups.values() for status in points]
        for series, points in groups.items():
            largest = _largest_budget(points, "steps")
            for budget in (fraction * largest for fraction in BUDGET_FRACTIONS):
                values = [_emc_per_parameter(status, budget) for status in points]
                known = [value for value in values if value is not None]
                if len(known) == len(points) and budget >= _MIN_UPDATES:
                    rows.append({
                        "facet": f"{source.data}, {_sizes_text(in_facet)} parameters",
                        "series": series, "x": budget, "y": statistics.geometric_mean(known),
                        "lo": min(known), "hi": max(known),
                    })  # fmt: skip
    return chart_over_budget(rows, x_title="budget (updates)", y_title="EMC / parameters", same=1.0)


def _emc_per_parameter(status: PointStatus, budget: float) -> float | None:
    """Return EMC / parameters at a budget; None if the EMC at this budget is unknown."""
    estimate, record = status.estimate, status.record
    assert estimate is not None
    assert record is not None
    if estimate.saturated == "yes":
        budget = min(budget, budget_value(status))
    emc = emc_at_budget(status, budget) if budget <= budget_value(status) else None
    if emc is None or emc.censored != "none":
        return None
    return emc.emc / record.header.params


def _requests(source: Source, records: Records) -> list[Compare]:
    """Return the comparisons of the spec, and those of the source that it does not contain."""
    requests = requested_comparisons(records[source.record][1])
    known = [(request.baseline, list(request.within or [])) for request in requests]
    return requests + [
        Compare(by=source.by, baseline=source.baseline, within=list(keys))
        for keys in source.within if (source.baseline, list(keys)) not in known
    ]  # fmt: skip


def _groups(source: Source, effects: Sequence[Effect]) -> list[list[Effect]]:
    """Group the comparisons of a source by the values of their grouping keys."""
    keys = [list(within) for within in source.within]
    selected = [
        effect for effect in effects
        if list(effect.within) in keys and effect.baseline == source.baseline
    ]  # fmt: skip
    return list(group_by(selected, lambda effect: effect.within_text).values())


def _points_of(effects: Sequence[Effect], statuses: Sequence[PointStatus]) -> list[PointStatus]:
    """Return the points of comparisons with the same values of the grouping keys."""
    values = {value for effect in effects for value in (effect.value, effect.baseline)}
    return [
        status for status in statuses
        if status.point.value_text(effects[0].by) in values
        and all((status.point.value_text(k) or "") == v for k, v in effects[0].within.items())
    ]  # fmt: skip


def _comparison_text(effect: Effect) -> str:
    return f"{effect.value} / {effect.baseline}"


def _nonlinear(statuses: Sequence[PointStatus]) -> list[PointStatus]:
    return [s for s in statuses if s.point.value_text("model.activation") != _LINEAR]


def _labels(status: PointStatus) -> str:
    return status.point.value_text("data.labels") or "random"


def _series_text(source: Source, status: PointStatus) -> str:
    value = status.point.value_text(source.by)
    return "mlp" if source.by == "model.activation" or value is None else value


def _networks_text(effect: Effect, points: Sequence[PointStatus]) -> str:
    """Return the range of the numbers of parameters, and the depth if it is a grouping key."""
    depth = effect.within.get("model.depth")
    return f"depth {depth}, {_sizes_text(points)}" if depth else _sizes_text(points)


def _sizes_text(points: Sequence[PointStatus]) -> str:
    sizes = [s.record.header.params for s in points if s.record is not None]
    low, high = min(sizes), max(sizes)
    return f"{low:,} to {high:,}" if high > low else f"{low:,}"


def _unit(status: PointStatus) -> str:
    """Return the unit of the budget of a point; an empty text if it has no budget."""
    return (status.point.training.budget or ("", 0))[0]


def _largest_budget(points: Sequence[PointStatus], unit: str) -> int:
    return max(budget_value(status) for status in points if _unit(status) == unit)


def _budget_text(points: Sequence[PointStatus]) -> str:
    unit = _unit(points[0])
    return f"{_largest_budget(points, unit):,} {_BUDGETS[unit]}" if unit else "to convergence"
