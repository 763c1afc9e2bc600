"""Tables and figures of docs/findings.md, from the stored records."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.findings.records import kept
from flexhpc.analysis.comparison import Effect, compared
from flexhpc.analysis.comparison_table import pairs_text
from flexhpc.analysis.figures.chart import Spec, png
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.ratios import ratio_figure
from flexhpc.analysis.scaling_law import PowerLaw, power_laws
from flexhpc.atomic import write_atomic
from flexhpc.store.status import PointStatus

RECORDS = Path(__file__).parent / "records"
_LAWS = {
    "finding_activations": ["model.activation"],
    "finding_families": ["model.family"],
}
"""Keys whose values each have a power law, of the sweeps that vary size."""


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
            made = "\n".join([*_cost(statuses), "", *_effects(found), *_laws(laws)])
            text = _replaced(text, name, made)
            figures = {"emc": emc_figure(statuses), "ratios": ratio_figure(found)}
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


def _draw(path: Path, figure: Spec | None) -> None:
    if figure is not None:
        path.parent.mkdir(exist_ok=True)
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
    return [*_table(head, rows), ""]


def _laws(laws: Sequence[PowerLaw]) -> list[str]:
    if not laws:
        return []
    head = [*laws[0].name, "EMC ~ parameters ^", "points"]
    rows = [[*law.name.values(), law.slope_text, str(law.points)] for law in laws]
    return [*_table(head, rows), ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell or '-' for cell in line)} |" for line in lines]
