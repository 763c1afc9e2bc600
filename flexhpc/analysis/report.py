"""Report on one or several runs: a self-contained HTML page with the figures."""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flexhpc.analysis import generalization, reasons, results, text
from flexhpc.analysis.comparison import (
    Comparisons,
    compare_as_specified,
    compare_at_budgets,
    requested_comparisons,
)
from flexhpc.analysis.conflicts import conflict_notes
from flexhpc.analysis.details import MAX_POINTS, details_of, json_for_script
from flexhpc.analysis.effect import sufficient_chance
from flexhpc.analysis.figures import figures_of_report
from flexhpc.analysis.figures.chart import (
    DARK_COLOURS,
    Chart,
    ReportFigure,
    Spec,
    svg_to_pdf,
    svg_to_png,
    vega_script,
)
from flexhpc.analysis.figures.layout import layout_of
from flexhpc.analysis.figures.point import fit_spec, loss_spec
from flexhpc.analysis.figures.ratios import (
    RATIO_BUDGET_CAPTION,
    RATIO_CAPTION,
    ratio_budget_figure,
    ratio_figure,
)
from flexhpc.analysis.grouping import group_by, swept_keys
from flexhpc.analysis.sample_views import SampleView, sample_view_of
from flexhpc.analysis.samples import sample_scores
from flexhpc.analysis.scaling_law import PowerLaw, power_laws
from flexhpc.analysis.summary import summarize
from flexhpc.atomic import write_atomic
from flexhpc.config.point import swept_value_text
from flexhpc.errors import InputError, PointError
from flexhpc.search.fit_curve import estimand_level
from flexhpc.search.history import LEVEL
from flexhpc.store import RunFolder
from flexhpc.store.run_record import read_run_record
from flexhpc.store.status import PointStatus

_MAX_SVG = 1_000_000
"""Maximum size (characters) of an SVG on the page; a larger figure is embedded as a PNG image."""
_MEDIA_TYPES = {".pdf": "application/pdf", ".svg": "image/svg+xml", ".png": "image/png"}
_MAX_NAMES = 4
"""Maximum number of data sets, kinds of labels or network families that the header names."""
_MAX_POINTS = 500
"""Masks are not read, and power laws are not fitted, if there are more points than this."""
_IN_FIRST_TABLE = {
    "emc_per_param_bound", "censored_because", "ended_by", "wider_than_asked", "doubling",
}  # fmt: skip


def _provenance(run: RunFolder) -> dict[str, Any]:
    """Return the name, folder and command of a run, and the metadata that run.json contains."""
    record = read_run_record(run.metadata)
    launches = record.launches
    started = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(launch.time)) for launch in launches]
    facts = {
        "started": started[0] if started else "",
        "last launch": started[-1] if started else "",
        "launches": len(launches),
        "hosts": ", ".join(sorted({launch.host for launch in launches})),
        "image": ", ".join(sorted({launch.image for launch in launches if launch.image})),
        "commit of flexhpc": record.git,
        "Python": record.python,
        **record.packages,
    }
    return {
        "name": run.name, "folder": run.path,
        "command": f"flexhpc sweep {shlex.quote(str(run.spec))}",
        "facts": {key: value for key, value in facts.items() if value not in (None, "")},
    }  # fmt: skip


def report_runs(
    runs: Sequence[tuple[RunFolder, Sequence[PointStatus]]],
    folder: Path,
    eps: Sequence[float] = (),
) -> Path:
    """Write the report of one or several runs; return the path of its page.

    The report consists of index.html, results.csv and the figures as SVG, PNG and PDF.

    Args:
        runs: each run folder with the status of all its points.
        folder: output folder.
        eps: training errors at which EMC is additionally estimated from the stored probes.

    Raises:
        PointError: the folder cannot be written.
    """
    try:
        return _write_report(runs, folder, eps)
    except OSError as error:
        raise PointError(f"{folder}: the report cannot be written: {error.strerror}") from None


def _write_report(
    runs: Sequence[tuple[RunFolder, Sequence[PointStatus]]], folder: Path, eps: Sequence[float]
) -> Path:
    points = [(run, status) for run, statuses in runs for status in statuses]
    specs = [run.spec.read_text() for run, _ in runs]
    statuses = results.with_eps_estimates([status for _, status in points], eps)
    rows = [results.results_row(status) for status in statuses]
    comparisons = _comparisons(statuses, specs)
    by_budget = compare_at_budgets(statuses, comparisons.requests)
    is_comparison = any(map(requested_comparisons, specs))
    statuses = text.without_shared_entries(statuses)
    laws = _fit_power_laws(statuses)
    done = [status for status in statuses if status.state == "done"]
    bounded = sum(map(reasons.is_censored, done))
    probes = [run for s in statuses if s.record for run in s.record.training_runs]
    models = generalization.label_pairs(statuses)
    ratios = ReportFigure(
        name="ratios",
        title="Ratios",
        caption=RATIO_CAPTION,
        draw=lambda _: ratio_figure(comparisons.effects),
    )
    ratios_over_budget = ReportFigure(
        name="ratios_over_budget",
        title="Ratios over budget",
        caption=RATIO_BUDGET_CAPTION,
        draw=lambda _: ratio_budget_figure(by_budget),
    )
    further_columns = _further_columns(rows)
    tests = sum(effect.pairs > effect.bounds for effect in comparisons.effects)
    first, *others = figures_of_report()
    figures = [
        _write_figure(figure, spec, folder)
        for figure in (first, ratios, ratios_over_budget, *others)
        if (spec := figure.draw(statuses)) is not None
    ]
    csv = results.as_csv(rows)
    write_atomic(folder / "results.csv", csv)
    environment = Environment(
        loader=PackageLoader("flexhpc", "analysis"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=", ".join(run.name for run, _ in runs),
        version=version("flexhpc"),
        level=LEVEL,
        css=_read_asset("report.css"),
        script=_read_asset("report.js"),
        text=text,
        reasons=reasons,
        library=vega_script(),
        specs=specs,
        provenance=[_provenance(run) for run, _ in runs],
        # header
        subject=_subject_text(statuses),
        estimand=_estimand_text(statuses),
        training_time=text.duration_text(sum(probe.seconds for probe in probes)),
        devices=", ".join(sorted({p.machine["device"] for p in probes if "device" in p.machine})),
        measured=len(done) - bounded,
        bounded=bounded,
        unfinished=len(statuses) - len(done),
        probes=len(probes),
        cost=sum(probe.cost for probe in probes),
        budget=_budget_text(statuses),
        summary=summarize(statuses, comparisons.effects, laws, is_comparison=is_comparison),
        failures=reasons.failures_by_message(statuses),
        # figures
        figures=figures,
        details=json_for_script(
            details_of([(run, s) for (run, _), s in zip(points, statuses, strict=True)])
        ),
        max_details=MAX_POINTS,
        templates=json_for_script(
            {"fit": fit_spec(), "loss": loss_spec(), "dark": DARK_COLOURS},
        ),
        # tables
        points=[(s, {**row, **s.point.swept}) for s, row in zip(statuses, rows, strict=True)],
        swept=swept_keys(statuses),
        csv=json_for_script(csv.splitlines()),
        further_columns=further_columns,
        descriptions=group_by(further_columns, results.describe_column),
        has_tuned_keys=reasons.has_tuned_keys(statuses),
        has_doubling=any(row["doubling"] for row in rows),
        swept_value_text=swept_value_text,
        format_cell=_format_cell,
        warnings=reasons.emc_warnings(statuses),
        censored=reasons.group_censored_by_reason(statuses),
        conflict_notes=conflict_notes(statuses),
        effects=comparisons.effects,
        tests=tests,
        sufficient_chance=sufficient_chance(max(tests, 1)),
        decisions=comparisons.decisions,
        laws=laws,
        samples=_sample_views(points),
        interpolation=generalization.interpolation_text(statuses),
        correlations=[
            (family, len(pairs), outcome, generalization.correlations(pairs, key))
            for family, pairs in generalization.pairs_by_family(models).items()
            for key, outcome in (("test_accuracy", "test accuracy"), ("gap", "gap"))
        ],
        pairs=len(models),
        omitted=len(models) - len(generalization.uncensored_pairs(models)),
        min_pairs=generalization.MIN_PAIRS,
    )
    write_atomic(folder / "index.html", page)
    return folder / "index.html"


def _comparisons(statuses: Sequence[PointStatus], specs: Sequence[str]) -> Comparisons:
    """Return the requested comparisons; empty if no point has a requested key or baseline."""
    try:
        return compare_as_specified(statuses, specs)
    except InputError:
        return Comparisons()


def _subject_text(statuses: Sequence[PointStatus]) -> str:
    """Name the networks, data and labels of the points: ``: cnn and mlp on digits, random labels``.

    Of each kind, more than ``_MAX_NAMES`` names are omitted.
    """

    def names(section: str, key: str) -> str:
        values = {getattr(getattr(s.point, section), key, "none"): None for s in statuses}
        values.pop("none", None)  # for example the family of a custom trainer without a model
        return " and ".join(values) if len(values) <= _MAX_NAMES else ""

    networks, data = names("model", "family"), names("data", "source")
    kinds = names("data", "labels")
    described = f": {networks}" if networks else ""
    described += f" on {data}" if data else ""
    return described + (f", {kinds} labels" if kinds else "")


def _budget_text(statuses: Sequence[PointStatus]) -> str:
    """Format the budget of the points, ``1,500 steps``; empty if their budgets have no unit in
    common."""
    units = {(s.point.training.budget or ("",))[0] for s in statuses}
    if len(units) != 1 or not (unit := units.pop()):
        return ""
    values = sorted({results.budget_value(status) for status in statuses})
    numbers = " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1])))
    return f"{numbers} {unit.replace('_', ' ')}"


def _estimand_text(statuses: Sequence[PointStatus]) -> str:
    kinds = {s.estimate.estimand for s in statuses if s.estimate}
    if len(kinds) != 1:
        return "the largest n that is fitted perfectly"
    (kind,) = kinds
    if kind == "last_fit":
        return "the last n before the first n that failed"
    part = "half" if kind == "n50" else f"{estimand_level(kind):.0%}"
    return f"the n at which {part} of the training runs fit all of their n samples"


def _fit_power_laws(statuses: Sequence[PointStatus]) -> list[PowerLaw]:
    """Fit a power law to each curve of EMC as a function of the number of parameters.

    Return [] without such curves, or with more than ``_MAX_POINTS`` points.
    """
    measured = [s for s in statuses if s.estimate and s.record]
    if not measured or len(measured) > _MAX_POINTS:
        return []
    layout = layout_of(measured)
    keys = [*layout.facets, *layout.colours]
    return power_laws(measured, keys) if layout.x_axis == "size" else []


def _sample_views(points: Sequence[tuple[RunFolder, PointStatus]]) -> list[SampleView]:
    """Return the hardest and easiest samples of each group of points.

    Return [] if masks cannot be read, or if there are more than ``_MAX_POINTS`` points.
    """
    if not any(status.probes for _, status in points) or len(points) > _MAX_POINTS:
        return []
    try:
        views = map(sample_view_of, sample_scores(points))
        return [view for view in views if view is not None]
    except PointError:
        return []


def _write_figure(figure: ReportFigure, spec: Spec, folder: Path) -> dict[str, Any]:
    """Write a figure as SVG, PNG and PDF; return its variables for the template of the page."""
    html = Chart(spec).svg()
    files = {".pdf": svg_to_pdf(html), ".svg": html.encode(), ".png": svg_to_png(html)}
    uris = {}
    for suffix, content in files.items():
        write_atomic(folder / f"{figure.name}{suffix}", content)
        data = base64.b64encode(content).decode()
        uris[suffix] = f"data:{_MEDIA_TYPES[suffix]};base64,{data}"
    interactive = len(html) <= _MAX_SVG
    if not interactive:
        html = f'<img alt="{escape(figure.title)}" width="620" src="{uris[".png"]}">'
    caption = figure.caption if isinstance(figure.caption, str) else figure.caption(spec)
    return {
        "name": figure.name, "title": figure.title, "caption": caption, "svg": html,
        "spec": json_for_script(spec if interactive else None), "interactive": interactive,
        # The page must work without its folder, for example in a mail.
        "files": {suffix: uri for suffix, uri in uris.items() if len(files[suffix]) <= _MAX_SVG},
    }  # fmt: skip


def _read_asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _further_columns(rows: Sequence[results.Row]) -> list[str]:
    """Return the columns of the second table of results.

    These are the columns after ``status`` that are not in the first table. Columns in which all
    values are None, zero or empty are omitted; False counts as a value.
    """
    return list(dict.fromkeys(
        key
        for row in rows
        for key in list(row)[list(row).index("status") + 1 :]
        if (row[key] or row[key] is False) and key not in _IN_FIRST_TABLE
    ))  # fmt: skip


def _format_cell(status: PointStatus, row: results.Row, key: str) -> str:
    """Format a cell of the second table of results; a bound gets a prefix such as ``>=``."""
    if key == "emc_per_bit":
        return text.ratio_text(status.estimate, row["bits"] or 0)
    bound = ">= " if row.get(f"{key}_censored") == "right" else ""
    return bound + text.number_text(row.get(key))
