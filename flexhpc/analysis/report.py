"""Report: one self-contained HTML page, including the figures, on one or several runs."""

from __future__ import annotations

import base64
import io
import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from flexhpc.analysis.answer import answer
from flexhpc.analysis.censoring import bounds
from flexhpc.analysis.collect import Row, as_csv, row_of
from flexhpc.analysis.comparison import Effect, compared
from flexhpc.analysis.comparison_table import pairs_text, verdict_sentences
from flexhpc.analysis.conflicts import conflict_notes
from flexhpc.analysis.details import MOST_POINTS, as_script, details_of
from flexhpc.analysis.endings import ending_text, warnings
from flexhpc.analysis.failures import by_reason, named
from flexhpc.analysis.figures import report_figures
from flexhpc.analysis.figures.chart import Spec, library, pdf, png, svg
from flexhpc.analysis.figures.layout import layout_of
from flexhpc.analysis.figures.point import fit_spec, loss_spec
from flexhpc.analysis.figures.ratios import RATIOS, ratio_figure
from flexhpc.analysis.generalization import FEWEST, by_family, correlations, exact, pairs
from flexhpc.analysis.sample_views import SampleView, view_of
from flexhpc.analysis.samples import scores_of
from flexhpc.analysis.scaling_law import PowerLaw, power_laws
from flexhpc.analysis.text import bracket_text, emc_text, estimate_text, number_text, ratio_text
from flexhpc.analysis.training_error import with_errors
from flexhpc.analysis.trimmed import trimmed
from flexhpc.analysis.tuning import best_text, tuned
from flexhpc.atomic import read_json, write_atomic
from flexhpc.config.point import plain_text
from flexhpc.errors import InputError, PointError
from flexhpc.search.fit_curve import quantile_of
from flexhpc.search.history import LEVEL
from flexhpc.store import RunFolder
from flexhpc.store.status import PointStatus

_MOST_DRAWN = 1_000_000
"""Maximum size (bytes) of an interactive vector figure on the page; larger ones become images."""
_MOST_SOURCES = 4
_MOST_MASKED = 500
"""Maximum number of points for which masks are read and power laws are fitted."""
_IN_THE_FIRST_TABLE = {"emc_per_param_bound", "censored_because", "ended_by", "wider_than_asked"}


@dataclass(frozen=True, kw_only=True)
class _Shown:
    name: str
    title: str
    caption: str
    svg: str
    spec: str
    asked: bool


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of a run.

    Attributes:
        name: name of the run; folder: path of the run folder; command: command that repeats it.
        facts: contents of run.json as text, by description.
    """

    name: str
    folder: str
    command: str
    facts: Mapping[str, str]

    @classmethod
    def of(cls, run: RunFolder) -> Provenance:
        """Read the provenance of a run from its folder."""
        record = read_json(run.record) or {}
        listed = record.get("launches")
        launches = (
            [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        )
        packages = record.get("packages")
        versions = packages if isinstance(packages, dict) else {}
        facts = {
            "begun": _time(launches[0]) if launches else "",
            "last launch": _time(launches[-1]) if launches else "",
            "launches": str(len(launches)),
            "hosts": ", ".join(sorted({str(one.get("host")) for one in launches})),
            "image": ", ".join(sorted({str(one["image"]) for one in launches if one.get("image")})),
            "commit of flexhpc": str(record.get("git") or ""),
            "Python": str(record.get("python") or ""),
            **{str(name): str(text) for name, text in versions.items()},
        }
        command = f"flexhpc sweep {shlex.quote(str(run.spec))}"
        return cls(
            name=run.name, folder=str(run.path), command=command,
            facts={key: text for key, text in facts.items() if text},
        )  # fmt: skip


def _time(launch: Mapping[str, Any]) -> str:
    seconds = launch.get("time")
    if not isinstance(seconds, int | float):
        return ""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def write_report(
    title: str,
    statuses: Sequence[PointStatus],
    specs: Sequence[str],
    folder: Path,
    eps: Sequence[float] = (),
    provenance: Sequence[Provenance] = (),
    masks: Sequence[tuple[RunFolder, PointStatus]] = (),
) -> Path:
    """Write index.html, results.csv and the figures; return the path of the page.

    Figures are written as SVG; Vega-Lite figures also as PNG and PDF.

    Args:
        title: name of the sweep or sweeps.
        statuses: all points.
        specs: text of the frozen specs.
        folder: output folder.
        eps: training errors at which EMC is additionally estimated from the stored probes.
        provenance: provenance of each run.
        masks: points whose masks are used for sample scores, each with its run; ignored if there
            are more than 500.
    """
    statuses = with_errors(statuses, eps)
    rows = [row_of(status) for status in statuses]
    found = _compared(statuses, specs)
    statuses = trimmed(statuses)
    shown = [{**row, **s.point.swept} for row, s in zip(rows, statuses, strict=True)]
    swept = list(dict.fromkeys(key for status in statuses for key in status.point.swept))
    model_pairs = pairs(statuses)
    write_atomic(folder / "results.csv", as_csv(rows))
    drawn = [
        (kind.name, kind.title, kind.caption, kind.draw(statuses)) for kind in report_figures()
    ]
    drawn.insert(1, ("ratios", "Ratios", RATIOS, ratio_figure(found)))
    figures = [
        _shown(name, title, caption, figure, folder)
        for name, title, caption, figure in drawn
        if figure is not None
    ]
    environment = Environment(
        loader=PackageLoader("flexhpc", "analysis"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=title,
        answer=[*answer(statuses), *verdict_sentences(found)],
        compared=found,
        pairs_text=pairs_text,
        laws=_laws(statuses),
        failures=by_reason(statuses),
        named=named,
        estimate=estimate_text,
        css=_text("report.css"),
        script=_text("report.js"),
        library=library(),
        details=as_script(details_of(statuses)),
        in_detail=MOST_POINTS,
        templates=as_script({"fit": fit_spec(), "loss": loss_spec()}),
        csv=as_script(as_csv(rows).splitlines()),
        provenance=provenance,
        samples=_samples(masks),
        version=version("flexhpc"),
        points=list(zip(statuses, shown, strict=True)),
        swept=swept,
        further=_further(rows),
        interpolated=interpolated(statuses),
        correlations=[
            (family, len(some), outcome, correlations(some, key))
            for family, some in by_family(model_pairs).items()
            for key, outcome in (("test_accuracy", "test accuracy"), ("gap", "gap"))
        ],
        pairs=len(model_pairs),
        left_out=len(model_pairs) - len(exact(model_pairs)),
        fewest=FEWEST,
        measured=sum(s.state == "done" and not _bound(s) for s in statuses),
        bounded=sum(s.state == "done" and _bound(s) for s in statuses),
        open=sum(status.state != "done" for status in statuses),
        of_data=_of_data(statuses),
        estimand=_estimand(statuses),
        probes=sum(status.probes for status in statuses),
        cost=sum(status.cost for status in statuses),
        took=_took(statuses),
        devices=_devices(statuses),
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


def _compared(statuses: Sequence[PointStatus], specs: Sequence[str]) -> list[Effect]:
    """Return the comparisons; none if a spec names a key or value that other runs lack."""
    try:
        return compared(statuses, specs)
    except InputError:
        return []


def _bound(status: PointStatus) -> bool:
    return status.estimate is not None and status.estimate.censored != "none"


def _devices(statuses: Sequence[PointStatus]) -> str:
    """Return the names of the training devices, as far as they were recorded."""
    found = {p.machine.get("device") for s in statuses if s.record for p in s.record.probes}
    return ", ".join(sorted(one for one in found if one))


def _took(statuses: Sequence[PointStatus]) -> str:
    """Format the total duration of all trainings, as if run one after another."""
    seconds = sum(probe.seconds for s in statuses if s.record for probe in s.record.probes)
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.1f} hours"


def _of_data(statuses: Sequence[PointStatus]) -> str:
    """Format the data sets of the points for the header of the page."""
    sources = dict.fromkeys(str(s.point.data.model_dump().get("source", "")) for s in statuses)
    return f" on {', '.join(sources)}" if sources and len(sources) <= _MOST_SOURCES else ""


def _estimand(statuses: Sequence[PointStatus]) -> str:
    """Describe the estimand of the EMCs."""
    kinds = {s.estimate.estimand for s in statuses if s.estimate}
    if len(kinds) != 1:
        return "the largest n that is fitted perfectly"
    (kind,) = kinds
    if kind == "last_fit":
        return "the last n before the first that failed"
    part = "half" if kind == "n50" else f"{quantile_of(kind):.0%}"
    return f"the n at which {part} of the trainings fit all of their n samples"


def _laws(statuses: Sequence[PointStatus]) -> list[PowerLaw]:
    """Fit a power law of EMC over parameters to each curve of the figure; none without curves."""
    measured = [s for s in statuses if s.estimate and s.record]
    if not measured or len(measured) > _MOST_MASKED:
        return []
    layout = layout_of(measured)
    keys = [*layout.facets, *layout.colours]
    return power_laws(measured, keys) if layout.along == "size" else []


def _samples(masks: Sequence[tuple[RunFolder, PointStatus]]) -> list[SampleView]:
    """Return the views of samples; none if masks cannot be read."""
    if not any(status.probes for _, status in masks) or len(masks) > _MOST_MASKED:
        return []
    try:
        views = map(view_of, scores_of(masks))
        return [view for view in views if view is not None]
    except PointError:
        return []


def _shown(name: str, title: str, caption: str, figure: Figure | Spec, folder: Path) -> _Shown:
    """Write the files of a figure, and return its content for the page."""
    spec = None if isinstance(figure, Figure) else figure
    text = _svg(figure) if isinstance(figure, Figure) else svg(figure)
    write_atomic(folder / f"{name}.svg", text)
    drawn = text[text.index("<svg") :]
    if spec is not None:
        picture = png(spec)
        write_atomic(folder / f"{name}.png", picture)
        write_atomic(folder / f"{name}.pdf", pdf(spec))
        if len(drawn) > _MOST_DRAWN:
            drawn, spec = _picture(picture, title), None
    return _Shown(
        name=name, title=title, caption=caption, svg=drawn, spec=as_script(spec),
        asked=spec is not None,
    )  # fmt: skip


def _picture(content: bytes, title: str) -> str:
    """Return an HTML image element with an inline PNG."""
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(title)}" width="620" src="data:image/png;base64,{data}">'


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _further(rows: Sequence[Row]) -> list[str]:
    """Return the columns after ``status`` for the second table.

    These are the columns with a boolean or a nonzero value in any row that are not in the first
    table.
    """
    shown: dict[str, None] = {}
    for row in rows:
        keys = list(row)
        for key in keys[keys.index("status") + 1 :]:
            if (row[key] or row[key] is False) and key not in _IN_THE_FIRST_TABLE:
                shown[key] = None
    return list(shown)


def _cell(status: PointStatus, row: Row, key: str) -> str:
    """Format a cell of the second table; EMC per bit is a bound if EMC is one."""
    if key == "emc_per_bit":
        return ratio_text(status.estimate, row["bits"] or 0)
    bound = ">= " if row.get(f"{key}_censored") == "right" else ""
    return bound + number_text(row.get(key))


def _svg(figure: Figure) -> str:
    """Render a figure as SVG text that is identical for identical content."""
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "flexhpc", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def interpolated(statuses: Sequence[PointStatus]) -> str:
    """Describe how many evaluated trainings interpolated; empty if there are none."""
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
