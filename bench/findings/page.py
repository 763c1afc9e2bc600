"""Tables and figures of docs/findings.md, from the stored records."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.findings.records import kept
from flexhpc.analysis.comparison import Effect, compared
from flexhpc.analysis.comparison_table import pairs_text
from flexhpc.analysis.figures.chart import Spec, png
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.generalization import generalization_figure
from flexhpc.analysis.figures.ratios import ratio_figure
from flexhpc.analysis.generalization import Pair, by_family, correlations, pairs
from flexhpc.analysis.scaling_law import PowerLaw, power_laws
from flexhpc.analysis.training_error import with_errors
from flexhpc.atomic import write_atomic
from flexhpc.store.status import PointStatus

RECORDS = Path(__file__).parent / "records"
_LAWS = {
    "finding_activations": ["model.activation"],
    "finding_families": ["data.labels", "model.family"],
}
"""Keys whose values each have a power law, of the sweeps that vary size."""
_EPS = (0.01, 0.05, 0.1)


def write(page: Path) -> None:
    """Bring the tables and figures of a page up to what the records say.

    Between ``<!-- NAME -->`` and ``<!-- end -->`` stands what is made of the record of that name.
    """
    text = page.read_text()
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(RECORDS.glob("*.json.xz")):
            name = path.name.split(".")[0]
            statuses, spec = kept(path, Path(scratch))
            found = compared(statuses, [spec])
            laws = power_laws(statuses, _LAWS[name]) if name in _LAWS else []
            models = pairs(statuses)
            tables = [
                _cost(statuses), _effects(found), _laws(laws), _correlations(models),
                _errors(statuses, found[0].by),
            ]  # fmt: skip
            made = "\n".join(line for table in tables if table for line in [*table, ""])
            text = _replaced(text, name, made)
            figures = {
                "emc": emc_figure(statuses), "ratios": ratio_figure(found),
                "generalization": generalization_figure(models) if models else None,
            }  # fmt: skip
            for kind, figure in figures.items():
                _draw(page.parent / "findings" / f"{name}_{kind}.png", figure)
    write_atomic(page, text)


def _replaced(text: str, name: str, made: str) -> str:
    """Put what was made of a record between its marks; a page without them stays as it is."""
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    if begin not in text:
        return text
    before, rest = text.split(begin, 1)
    return f"{before}{begin}{made}\n{end}{rest.split(end, 1)[1]}"


def _draw(path: Path, figure: Spec | Figure | None) -> None:
    if figure is None:
        return
    path.parent.mkdir(exist_ok=True)
    if isinstance(figure, Figure):
        figure.savefig(path, dpi=100, metadata={"Software": None})
    else:
        write_atomic(path, png({**figure, "background": "white"}))


def _cost(statuses: Sequence[PointStatus]) -> list[str]:
    probes = [probe for s in statuses if s.record for probe in s.record.probes]
    hours = sum(probe.seconds for probe in probes) / 3600
    cost = sum(probe.cost for probe in probes)
    return [
        f"{len(statuses)} points, {len(probes):,} trainings, {cost:.1e} sample passes, "
        f"{hours:.1f} hours of one core."
    ]


def _effects(found: Sequence[Effect]) -> list[str]:
    if not found:
        return []
    kept_apart = list(found[0].within)
    head = [
        *kept_apart,
        found[0].by,
        "against",
        "EMC ratio",
        "by size",
        "P(larger)",
        "pairs",
        "verdict",
    ]
    rows = [
        [
            *effect.within.values(), effect.value, effect.baseline, effect.ratio_text,
            effect.sizes_text, effect.chance_text, pairs_text(effect), effect.said,
        ]
        for effect in found
    ]  # fmt: skip
    return _table(head, rows)


def _laws(laws: Sequence[PowerLaw]) -> list[str]:
    if not laws:
        return []
    head = [*laws[0].name, "EMC ~ parameters ^", "points"]
    rows = [[*law.name.values(), law.slope_text, str(law.points)] for law in laws]
    return [*_table(head, rows), ""]


def _correlations(models: Sequence[Pair]) -> list[str]:
    """Return what log(EMC with true labels / EMC with random labels) goes along with."""
    rows = [
        [
            f"{family} ({len(some)})", outcome, line.name,
            f"{line.value:.2f} [{line.lower:.2f}, {line.upper:.2f}]",
            f"{line.least:.2f} to {line.most:.2f}",
        ]
        for family, some in by_family(models).items()
        for key, outcome in (("test_accuracy", "test accuracy"), ("gap", "gap"))
        for line in correlations(some, key)
    ]  # fmt: skip
    head = ["models", "with", "measure", "correlation", "without one model"]
    return _table(head, rows) if rows else []


def _errors(statuses: Sequence[PointStatus], by: str) -> list[str]:
    """Return how many times its EMC a point fits if some samples may be missed."""
    factors: dict[tuple[str, str], list[float]] = {}
    bounds: dict[tuple[str, str], int] = {}
    for status in with_errors(statuses, _EPS):
        assert status.estimate is not None
        for eps, answer in status.estimate.by_eps.items():
            cell = str(status.point.swept[by]), eps
            held = factors.setdefault(cell, [])
            if "none" == answer.censored == status.estimate.censored:
                held.append(answer.emc / status.estimate.emc)
            else:
                bounds[cell] = bounds.get(cell, 0) + 1
    names = list(dict.fromkeys(eps for _, eps in factors))
    rows = [
        [value, *(_factor_text(factors[value, eps], bounds.get((value, eps), 0)) for eps in names)]
        for value in dict.fromkeys(value for value, _ in factors)
    ]
    return _table([by, *(f"{float(eps):.0%} missed" for eps in names)], rows)


def _factor_text(factors: Sequence[float], bounds: int) -> str:
    """Return the median and the quartiles, and how many points have a bound only."""
    note = f"{bounds} {'bound' if bounds == 1 else 'bounds'}" if bounds else ""
    if len(factors) < 2:
        return note
    low, middle, high = statistics.quantiles(factors, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f}{f'; {note}' if note else ''})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell or '-' for cell in line)} |" for line in lines]
