"""Tables and figures of docs/findings.md and docs/findings_details.md, from the stored records."""

from __future__ import annotations

import json
import math
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from bench.common import markdown_table
from bench.findings import claims
from bench.findings.records import load_records
from flexhpc.analysis.comparison import compare_as_specified, compare_at_budgets
from flexhpc.analysis.effect import Effect
from flexhpc.analysis.figures.chart import Chart, Spec
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.generalization import generalization_figure
from flexhpc.analysis.figures.ratios import ratio_budget_figure, ratio_figure
from flexhpc.analysis.generalization import (
    Correlation,
    Pair,
    correlate,
    correlations,
    label_pairs,
    pairs_by_family,
    uncensored_pairs,
)
from flexhpc.analysis.results import with_eps_estimates
from flexhpc.analysis.scaling_law import PowerLaw, power_laws
from flexhpc.analysis.summary import describe_limitations
from flexhpc.atomic import write_atomic
from flexhpc.config.point import swept_value_text
from flexhpc.store.status import PointStatus

RECORDS = Path(__file__).parent / "records"
RIVALS = RECORDS / "rivals.json"
"""Other predictors of test accuracy (:mod:`bench.findings.rivals`): record -> model -> values."""
_LAWS = {
    "finding_activations": ["model.activation"],
    "finding_families": ["data.labels", "model.family"],
    "finding_families_cifar": ["data.labels", "model.family"],
    "finding_families_size": ["model.family"],
}
"""For sweeps over sizes: keys that group the points; a power law is fitted to each group."""
_EPS = (0.01, 0.05, 0.1)
_ARTANH_VARIANCE = {
    "Pearson": (3, 1.0),
    "Spearman": (3, 1.06),
    "Kendall": (4, 0.437),
    "Pearson given log parameters": (4, 1.0),
}
"""For each coefficient, numbers o and c: with n models, the variance of artanh(coefficient) is
c / (n - o) (Fisher 1921, Metron 1; rank correlations: Fieller, Hartley and Pearson 1957, Biometrika
44)."""
_IMAGES = {"finding_generalization": 300, "finding_generalization_600": 600}
"""Number of training images of the networks whose test accuracy is predicted."""
_ERROR, _POWER = 0.05, 0.9
"""Error rate (two-sided) and power for the number of models that a correlation needs."""
_PREDICTORS: dict[str, Callable[[Pair], float]] = {
    "log(EMC original / EMC random)": lambda model: model.log_ratio,
    "log(EMC original)": lambda model: math.log(model.emc_original),
    "log(EMC random)": lambda model: math.log(model.emc_random),
    "log(parameters)": lambda model: math.log(model.params),
}
_MIN_MODELS, _MIN_FAMILIES = 8, 3
"""Minimum number of models for a correlation, and of families for predictions."""


def write_pages(docs: Path, *, figures: bool = True) -> None:
    """Recreate the tables and figures of both pages from the stored records.

    On docs/findings_details.md, the main tables of the record NAME are written between
    ``<!-- NAME -->`` and ``<!-- end -->``, and its other tables between ``<!-- NAME tables -->``
    and ``<!-- end -->``. On docs/findings.md, the table of claim N is written between
    ``<!-- claim N -->`` and ``<!-- end -->``.

    Args:
        docs: folder of the pages, which are changed.
        figures: whether to write the figures too, into the folder ``findings``.
    """
    page, details = docs / "findings.md", docs / "findings_details.md"
    text, rivals = details.read_text(), json.loads(RIVALS.read_text())
    folder, all_records = docs / "findings", {}
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(RECORDS.glob("*.json.xz")):
            name = path.name.split(".")[0]
            statuses, spec = all_records[name] = load_records(path, Path(scratch))
            comparisons = compare_as_specified(statuses, [spec])
            effects = comparisons.effects
            by_budget = compare_at_budgets(statuses, comparisons.requests)
            laws = power_laws(statuses, _LAWS[name]) if name in _LAWS else []
            models = label_pairs(statuses)
            main = [
                [_cost_text(statuses)], _limitation_list(statuses), _comparison_table(effects),
                _law_table(laws, statuses), _correlation_table(models),
                prediction_table(models, rivals.get(name, {})),
            ]  # fmt: skip
            others = [_budget_table(by_budget), _training_error_table(statuses, effects)]
            text = _replace_tables(text, name, main)
            text = _replace_tables(text, f"{name} tables", others)
            if figures:
                write_figures(statuses, effects, by_budget, folder / name, text)
    write_atomic(details, text)
    text = _replace_tables(page.read_text(), "claim 1", [claims.size_table(all_records)])
    for number, sources in claims.RATIO_CLAIMS.items():
        text = _replace_tables(text, f"claim {number}", [claims.ratio_table(sources, all_records)])
    pairs = {name: label_pairs(all_records[name][0]) for name in sorted(rivals)}
    write_atomic(page, _replace_tables(text, "claim 4", [_claim_4_table(pairs, rivals)]))
    if figures:
        _save(claims.size_figure(all_records), folder / "claim_1.png")
        for number, sources in claims.RATIO_CLAIMS.items():
            _save(claims.ratio_figure(sources, all_records), folder / f"claim_{number}.png")


def write_figures(
    statuses: Sequence[PointStatus], effects: Sequence[Effect],
    by_budget: Mapping[float, Sequence[Effect]], path: Path, page: str,
) -> None:  # fmt: skip
    """Write the figures of a finding that the page shows, as ``{path}_{kind}.png``.

    Args:
        statuses: all points.
        effects: the comparisons.
        by_budget: for each fraction of the largest budget, the comparisons at this budget.
        path: path of the files, without the kind of the figure and the extension.
        page: the text of the page, which contains the file names of the figures.
    """
    figures = {
        "emc": emc_figure(statuses), "ratios": ratio_figure(effects),
        "ratios_over_budget": ratio_budget_figure(by_budget),
        "generalization": generalization_figure(statuses),
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    for kind, figure in figures.items():
        if figure is not None and f"{path.name}_{kind}.png" in page:
            _save(figure, path.with_name(f"{path.name}_{kind}.png"))


def _save(figure: Spec, path: Path) -> None:
    Chart({**figure, "background": "white"}).save(path)


def _replace_tables(text: str, marker: str, tables: Sequence[Sequence[str]]) -> str:
    """Replace the tables after a marker; a page without the marker is returned unchanged."""
    begin, end = f"<!-- {marker} -->\n", "<!-- end -->"
    if begin not in text:
        return text
    before, rest = text.split(begin, 1)
    lines = "\n".join(line for table in tables if table for line in [*table, ""])
    return f"{before}{begin}{lines}\n{end}{rest.split(end, 1)[1]}"


def _cost_text(statuses: Sequence[PointStatus]) -> str:
    runs = [run for s in statuses if s.record for run in s.record.training_runs]
    hours = sum(run.seconds for run in runs) / 3600
    cost = sum(run.cost for run in runs)
    return (
        f"{len(statuses)} points, {len(runs):,} training runs, {cost:.1e} sample passes, "
        f"{hours:.1f} core-hours."
    )


def _limitation_list(statuses: Sequence[PointStatus]) -> list[str]:
    """Format the limitations of the EMCs as a Markdown list."""
    return [
        line
        for sentence in describe_limitations(statuses)
        for line in textwrap.wrap(f"- {sentence}", 120, subsequent_indent="  ")
    ]


def _comparison_table(effects: Sequence[Effect]) -> list[str]:
    if not effects:
        return []
    within = _grouping_keys(effects)
    head = [
        *within, effects[0].by, "against", "EMC ratio", "by size", "P(larger)", "pairs", "verdict"
    ]  # fmt: skip
    rows = [
        [
            *(effect.within.get(key, "") for key in within), effect.value, effect.baseline,
            effect.ratio_text, effect.sizes_text, effect.chance_text, effect.pairs_text,
            effect.verdict_text,
        ]
        for effect in effects
    ]  # fmt: skip
    return markdown_table(head, rows)


def _budget_table(by_budget: Mapping[float, Sequence[Effect]]) -> list[str]:
    """Format the ratios at equal budgets, from the largest budget B to B/32."""
    ratios = {
        f"B/{1 / fraction:g}" if fraction < 1 else "B": {e.key: e.ratio_text for e in effects}
        for fraction, effects in by_budget.items() if fraction >= 1 / 32
    }  # fmt: skip
    effects = by_budget.get(1.0, [])
    if not effects:
        return []
    within = _grouping_keys(effects)
    head = [*within, effects[0].by, "against", *ratios]
    rows = [
        [
            *(effect.within.get(key, "") for key in within), effect.value, effect.baseline,
            *(texts.get(effect.key, "") for texts in ratios.values()),
        ]
        for effect in effects
    ]  # fmt: skip
    return markdown_table(head, rows)


def _grouping_keys(effects: Sequence[Effect]) -> list[str]:
    return list(dict.fromkeys(key for effect in effects for key in effect.within))


def _law_table(laws: Sequence[PowerLaw], statuses: Sequence[PointStatus]) -> list[str]:
    if not laws:
        return []
    head = [*laws[0].within, "EMC / parameters", "EMC ~ parameters ^", "points"]
    rows = [
        [*law.within.values(), _per_parameter(law, statuses), law.slope_text, str(law.points)]
        for law in laws
    ]
    return markdown_table(head, rows)


def _per_parameter(law: PowerLaw, statuses: Sequence[PointStatus]) -> str:
    """Format the range of EMC / parameters of a law's points; mark bounds with < or >."""
    ratios = [
        (s.estimate.emc / s.record.header.params, s.estimate.censored)
        for s in statuses if s.estimate is not None and s.record is not None
        and all((s.point.value_text(key) or "") == value for key, value in law.within.items())
    ]  # fmt: skip
    (lowest, _), (highest, _) = min(ratios), max(ratios)
    below = "< " if any(censored == "left" for _, censored in ratios) else ""
    above = "> " if any(censored == "right" for _, censored in ratios) else ""
    return f"{below}{lowest:.2f} to {above}{highest:.2f}"


def _correlation_table(models: Sequence[Pair]) -> list[str]:
    """Correlate log(EMC with original labels / EMC with random labels) with the test accuracy.

    The correlation with the generalization gap has the opposite sign, because all models reach a
    training accuracy of 1.
    """
    rows = [
        [
            f"{family} ({len(group)})", line.name,
            _with_interval(line), line.jackknife_text, f"{models_needed(line):,}",
        ]
        for family, group in pairs_by_family(models).items() if len(group) >= _MIN_MODELS
        for line in correlations(group, "test_accuracy")
    ]  # fmt: skip
    head = ["models", "coefficient", "value", "range without one model", "models needed"]
    return markdown_table(head, rows) if rows else []


def _with_interval(correlation: Correlation) -> str:
    return f"{correlation.value:.2f} [{correlation.lower:.2f}, {correlation.upper:.2f}]"


def models_needed(correlation: Correlation) -> int:
    """Return how many independent models are needed to detect a correlation.

    If the true correlation has the given value, a test with error rate ``_ERROR`` detects it with
    probability ``_POWER``.
    """
    offset, factor = _ARTANH_VARIANCE[correlation.name]
    quantiles = ndtri(1 - _ERROR / 2) + ndtri(_POWER)
    value = min(max(abs(correlation.value), 1e-3), 1 - 1e-3)
    return math.ceil(offset + factor * (quantiles / math.atanh(value)) ** 2)


def prediction_table(
    models: Sequence[Pair], rivals: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return the table of :func:`_predictions`; no lines if there are too few families."""
    rows = _predictions(models, rivals)
    return markdown_table(["predictor", "Pearson", "R2 on omitted families"], rows) if rows else []


def _predictions(
    models: Sequence[Pair], rivals: Mapping[str, Mapping[str, float]]
) -> list[list[str]]:
    """Predict the test accuracy of each family by a linear regression on the other families.

    R2 is 1 - (sum of squared errors over all models) / (sum of squared errors if the mean accuracy
    of the other families is predicted).

    Args:
        models: one pair per model.
        rivals: for each model, the values of other predictors; empty if there are none.

    Returns:
        For each predictor its name, its correlation with the test accuracy and its R2. Empty if
        there are fewer than ``_MIN_FAMILIES`` families.
    """
    models = uncensored_pairs(models)
    families = np.array([model.family for model in models])
    accuracy = np.array([model.test_accuracy for model in models])
    if len(set(families)) < _MIN_FAMILIES:
        return []
    values = {name: [predictor(m) for m in models] for name, predictor in _PREDICTORS.items()}
    for name in rivals[models[0].name] if rivals else ():
        values[name] = [rivals[model.name][name] for model in models]
    log_params = np.log([model.params for model in models])
    rows = []
    for name, x in ((name, np.array(column)) for name, column in values.items()):
        error, baseline_error = 0.0, 0.0
        for family in sorted(set(families)):
            others = families != family
            slope, intercept = np.polyfit(x[others], accuracy[others], 1)
            error += np.sum((slope * x + intercept - accuracy)[~others] ** 2)
            baseline_error += np.sum((accuracy[others].mean() - accuracy[~others]) ** 2)
        pearson = correlate("Pearson", x, accuracy, log_params)
        r2 = 1 - error / baseline_error
        rows.append([name, _with_interval(pearson) if pearson else "", f"{r2:.2f}"])
    return rows


def _claim_4_table(models: Mapping[str, Sequence[Pair]], rivals: Mapping[str, Any]) -> list[str]:
    """Join the predictions of several records; their predictors are the same."""
    head = ["predictor"]
    for name in models:
        head += [f"Pearson, {_IMAGES[name]} images", f"R2, {_IMAGES[name]} images"]
    by_record = [_predictions(pairs, rivals[name]) for name, pairs in models.items()]
    return markdown_table(head, [
        [rows[0][0], *(cell for row in rows for cell in row[1:])]
        for rows in zip(*by_record, strict=True)
    ])  # fmt: skip


def _training_error_table(statuses: Sequence[PointStatus], effects: Sequence[Effect]) -> list[str]:
    """Compute the factors by which EMCs grow if a fraction of the samples may be missed.

    There is one row per combination of values of the compared key and of the keys of
    ``within``. Points whose EMC is censored are omitted.
    """
    if not effects:
        return []
    keys = [*effects[0].within, effects[0].by]
    factors: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for status in with_eps_estimates(statuses, _EPS):
        estimate = status.estimate
        if estimate is None or estimate.censored != "none":
            continue
        group = factors.setdefault(
            tuple(swept_value_text(status.point.swept[key]) for key in keys), {}
        )
        for eps, with_errors in estimate.by_eps.items():
            exact = with_errors.censored == "none"
            factor = with_errors.emc / estimate.emc if exact else math.inf
            group.setdefault(eps, []).append(factor)
    names = list(dict.fromkeys(eps for group in factors.values() for eps in group))
    rows = [
        [*values, *(_factor_text(by_eps[eps]) if eps in by_eps else "" for eps in names)]
        for values, by_eps in factors.items()
    ]
    return markdown_table([*keys, *(f"{float(eps):.0%} missed" for eps in names)], rows)


def _factor_text(factors: Sequence[float]) -> str:
    """Format the median and, of several factors, the quartiles; an infinite factor is "open"."""
    low, middle, high = (
        sorted(factors)[round(share * (len(factors) - 1))] for share in (0.25, 0.5, 0.75)
    )
    texts = [f"{f:.2f}" if math.isfinite(f) else "open" for f in (low, middle, high)]
    return f"{texts[1]} ({texts[0]} to {texts[2]})" if len(factors) > 1 else texts[1]
