"""The report: one self-contained HTML page over one or several runs, figures inside."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from flexhpc.analysis.censoring import bounds
from flexhpc.analysis.collect import Row, as_csv, row_of
from flexhpc.analysis.conflicts import conflict_notes
from flexhpc.analysis.endings import ending_text, warnings
from flexhpc.analysis.figures import report_figures
from flexhpc.analysis.generalization import FEWEST, by_family, correlations, exact, pairs
from flexhpc.analysis.text import bracket_text, emc_text, number_text, plain_text, ratio_text
from flexhpc.analysis.training_error import cut_short, with_errors
from flexhpc.analysis.tuning import best_text, tuned
from flexhpc.atomic import write_atomic
from flexhpc.search.history import LEVEL
from flexhpc.store.status import PointStatus

_IN_THE_FIRST_TABLE = {"emc_per_param_bound", "censored_because", "ended_by", "wider_than_asked"}


@dataclass(frozen=True, kw_only=True)
class _Shown:
    title: str
    caption: str
    svg: str


def write_report(
    title: str,
    statuses: Sequence[PointStatus],
    specs: Sequence[str],
    folder: Path,
    eps: Sequence[float] = (),
) -> Path:
    """Write index.html, results.csv and the figures as SVG; returns the page's path.

    Args:
        title: name of the sweep, or of several.
        statuses: every point.
        specs: the frozen specs as text.
        folder: where to write.
        eps: training errors whose EMC is estimated from the stored probes as well.
    """
    statuses = with_errors(statuses, eps)
    rows = [row_of(status) for status in statuses]
    swept = list(dict.fromkeys(key for status in statuses for key in status.point.swept))
    model_pairs = pairs(statuses)
    write_atomic(folder / "results.csv", as_csv(rows))
    figures = []
    for shown in report_figures():
        if (figure := shown.draw(statuses)) is None:
            continue
        svg = _svg(figure)
        write_atomic(folder / f"{shown.name}.svg", svg)
        inline = svg[svg.index("<svg") :]
        figures.append(_Shown(title=shown.title, caption=shown.caption, svg=inline))
    environment = Environment(
        loader=PackageLoader("flexhpc", "analysis"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=title,
        version=version("flexhpc"),
        points=list(zip(statuses, rows, strict=True)),
        swept=swept,
        further=_further(rows),
        interpolated=interpolated(statuses),
        correlations=[
            (family, len(some), outcome, correlations(some, key))
            for family, some in by_family(model_pairs).items()
            for key, outcome in (("test_accuracy", "test accuracy"), ("gap", "gap"))
        ],
        cut_short=cut_short(statuses, eps),
        pairs=len(model_pairs),
        left_out=len(model_pairs) - len(exact(model_pairs)),
        fewest=FEWEST,
        done=sum(status.state == "done" for status in statuses),
        failed=[status for status in statuses if status.state == "failed"],
        probes=sum(status.probes for status in statuses),
        cost=sum(status.cost for status in statuses),
        figures=figures,
        level=LEVEL,
        emc=emc_text,
        text=plain_text,
        ratio=ratio_text,
        cell=_cell,
        bracket=bracket_text,
        bounds=bounds(statuses),
        ending=ending_text,
        best=best_text if tuned(statuses) else None,
        warnings=warnings(statuses),
        notes=conflict_notes(statuses),
        specs=specs,
    )
    write_atomic(folder / "index.html", page)
    return folder / "index.html"


def _further(rows: Sequence[Row]) -> list[str]:
    """Return the columns after ``status`` that say something in these rows."""
    shown: dict[str, None] = {}
    for row in rows:
        keys = list(row)
        for key in keys[keys.index("status") + 1 :]:
            if (row[key] or row[key] is False) and key not in _IN_THE_FIRST_TABLE:
                shown[key] = None
    return list(shown)


def _cell(status: PointStatus, row: Row, key: str) -> str:
    """Return what stands in the second table; EMC per bit is a bound where EMC is one."""
    if key == "emc_per_bit":
        return ratio_text(status.estimate, row["bits"] or 0)
    bound = ">= " if row.get(f"{key}_censored") == "right" else ""
    return bound + number_text(row.get(key))


def _svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same for the same content."""
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "flexhpc", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def interpolated(statuses: Sequence[PointStatus]) -> str:
    """Say how many trainings behind test accuracy and gap interpolated; empty if there are none."""
    evaluations = {
        (status.point.id, json.dumps(record.evaluation["asked"])): record.evaluation
        for status in statuses
        if (record := status.record) is not None and record.evaluation is not None
    }
    if not evaluations:
        return ""
    short = Counter(e["verdict"] for e in evaluations.values() if not e["interpolated"])
    left = short.total()
    summary = (
        f"{len(evaluations) - left} of {len(evaluations)} trainings behind test accuracy and gap "
        "interpolated (train accuracy 1)."
    )
    if not left:
        return summary
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(short.items()))
    return (
        f"{summary} {left} did not ({verdicts}): their gap says how far training got, so "
        + (
            "no correlation is given"
            if left == len(evaluations)
            else f"correlations leave {left} out"
        )
        + ". A larger budget or a smaller n under evaluate may help."
    )
