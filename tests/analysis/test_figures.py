"""Layout of figures, offsets of points, printed figures, and the summary in sentences."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flexhpc
from flexhpc.analysis.comparison import compare_as_specified
from flexhpc.analysis.figures.chart import COLOURS, DARK_COLOURS, Chart, chart, svg_size
from flexhpc.analysis.figures.dodge import Dodge
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.layout import layout_of
from flexhpc.analysis.figures.publication import omitted_points_text, publication_figure
from flexhpc.analysis.summary import summarize
from flexhpc.errors import InputError, PointError
from flexhpc.store.status import PointStatus, open_run
from tests.analysis.builders import (
    BAYES,
    DIGITS,
    measured_point,
    points_of,
    swept_points,
    write_report,
)
from tests.conftest import Cli

NAMES = ["relu", "tanh", "gelu"]


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("seeds", [1, 2, 5, 40])
def test_points_are_distinct_and_nearest_to_their_x(seeds: int, logarithmic: bool) -> None:
    xs = [100.0, 300.0, 1200.0] if logarithmic else [100.0, 200.0, 350.0]
    points = product(["random", "original"], NAMES, xs, range(seeds))
    rows = [
        {"id": number, "facet": facet, "series": name, "x": x}
        for number, (facet, name, x, _) in enumerate(points)
    ]
    dodge = Dodge(rows, NAMES, [50, 2000], 600, logarithmic=logarithmic)
    drawn = [dodge.x(row["x"], row["series"], dodge.offsets[row["id"]]) for row in rows]
    distinct = {(row["facet"], round(x, 9)) for row, x in zip(rows, drawn, strict=True)}
    assert len(distinct) == len(rows)
    axis = np.log if logarithmic else np.asarray
    for row, x in zip(rows, drawn, strict=True):
        assert xs[int(np.abs(axis(np.array(xs)) - axis(x)).argmin())] == row["x"]
        assert dodge.right_end(row["x"]) >= x - 1e-9
    for x in xs:
        middles = [dodge.x(x, name) for name in NAMES]
        assert middles == sorted(middles)
        assert middles[1] == pytest.approx(x)


@pytest.mark.parametrize("order", [1, -1])
def test_nearly_equal_sizes_share_a_position(order: int) -> None:
    sizes = [1000.0, 1008.0, 1012.0][::order]
    rows = [
        {"id": i, "facet": "", "series": name, "x": x}
        for i, (name, x) in enumerate([*zip(NAMES, sizes, strict=True), ("relu", 4000.0)])
    ]
    dodge = Dodge(rows, NAMES, [500, 8000], 600, logarithmic=True)
    drawn = [dodge.x(row["x"], row["series"], dodge.offsets[row["id"]]) for row in rows[:3]]
    assert dodge.step > 0
    assert np.diff(np.log(drawn)) == pytest.approx([dodge.step] * 2)


def test_points_with_different_x_are_not_moved() -> None:
    rows = [{"id": i, "facet": "", "series": "", "x": x} for i, x in enumerate([10.0, 100.0])]
    dodge = Dodge(rows, [""], [1, 1000], 600, logarithmic=True)
    assert [dodge.x(row["x"], "", dodge.offsets[row["id"]]) for row in rows] == [10, 100]


@pytest.mark.parametrize("rates", [[2e-3, 3e-3, 4e-3], [1e-3, 3e-2, 1e-1]])
def test_axis_contains_all_points(rates: list[float], tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [40, 90, 50], lr=rates, activation=NAMES, seed=[*range(5)])
    spec = emc_figure(statuses)
    (scale,) = {str(layer["encoding"]["x"]["scale"]): layer["encoding"]["x"]["scale"]
                for layer in spec["layer"]}.values()  # fmt: skip
    drawn = [row["x"] for row in spec["data"]["values"] if row["kind"] in ("point", "label")]
    assert scale["type"] == ("log" if rates[-1] > 8 * rates[0] else "linear")
    assert scale["domain"][0] < min(drawn) < min(rates)
    assert max(drawn) < scale["domain"][1]


def test_ambiguous_values_are_shown_with_their_key(tmp_path: Path) -> None:
    """``random`` is a value of both labels and merge; one point has no other swept values."""
    zipped = points_of(
        tmp_path,
        f"{DIGITS}  training: {{optimizer: adam}}\n  search: {BAYES}\nzip:\n"
        "  - data.labels: [original, original, original, random, random]\n"
        "    data.merge: [random, null, null, null, null]\n"
        "    data.classes: [2, null, null, 2, 5]\n"
        "    data.class_map: [null, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1], null, null, null]\n",
    )
    statuses = [
        measured_point(point, [(n // 2, 0), (n, 0), (n + 1, 1)])
        for point, n in zip(zipped, (90, 80, 30, 20, 10), strict=True)
    ]
    rows = {row["row"] for row in emc_figure(statuses)["data"]["values"]}
    assert "original, merge random, classes 2" in rows
    assert "original, class_map [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]" in rows
    sentence = summarize(statuses)[0]
    assert sentence.startswith("original: largest EMC at merge random, classes 2: ")
    assert "smallest EMC at the point without values of the other swept keys: " in sentence


def test_failed_and_unfinished_points_are_counted_separately(tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [40, 90], width=[4, 8], activation=["relu", "tanh"])
    statuses[1] = replace(statuses[1], state="failed")
    statuses[2] = replace(statuses[2], state="running")
    sentences = summarize(statuses)
    assert '1 of 4 points failed; see "Failed points" for the reasons.' in sentences
    assert "1 of 4 points are not finished yet." in sentences
    failed = [replace(s, state="failed", estimate=None, record=None) for s in statuses]
    reasons = '4 of 4 points failed; see "Failed points" for the reasons.'
    assert summarize(failed) == ["Nothing has been measured yet.", reasons]


def test_each_value_of_a_key_is_a_curve_over_sizes(tmp_path: Path) -> None:
    grid = {"labels": ["random", "original"], "width": [4, 8]}
    statuses = swept_points(tmp_path, [40, 90], [100, 200], **grid)
    layout = layout_of(statuses)
    assert (layout.x_axis, layout.facets, layout.colours) == ("size", (), ("data.labels",))
    spec = emc_figure(statuses)
    labels = {row["series"] for row in spec["data"]["values"] if row["kind"] == "label"}
    assert labels == {"random", "original"}, "each curve has a label at its end"
    assert Chart(spec).svg().startswith("<svg")
    sentence = summarize(statuses)[0]
    assert sentence.rpartition("EMC ")[0] == "random: "
    assert "at 100 parameters" in sentence
    assert "at 200" in sentence


def test_data_keys_are_facets_and_network_keys_are_colours(tmp_path: Path) -> None:
    grid = {"labels": ["random", "original"], "activation": ["relu", "tanh"], "width": [4, 8]}
    statuses = swept_points(tmp_path, [40, 90], [100, 200], **grid)
    layout = layout_of(statuses)
    assert (layout.facets, layout.colours) == (("data.labels",), ("model.activation",))
    assert emc_figure(statuses)["facet"]["sort"] == ["random", "original"]


def test_keys_determined_by_a_different_key_are_omitted_from_names(tmp_path: Path) -> None:
    """``zip`` assigns a batch size to each optimizer, and one of two budgets to each point."""
    zipped = points_of(
        tmp_path,
        f"{DIGITS}  search: {BAYES}\ngrid:\n  model.width: [4, 8]\n  seed: [0, 1]\nzip:\n"
        "  - training.batch_size: [null, 64]\n    training.optimizer: [gd, sgd]\n"
        "  - training.steps: [2000, null]\n    training.epochs: [null, 300]\n",
    )
    statuses = [
        measured_point(p, [(40, 0), (41, 1)], params=100 * p.swept["model.width"]) for p in zipped
    ]
    layout = layout_of(statuses)
    assert layout.x_axis == "size"
    series = set(map(layout.series, statuses))
    assert series == {"gd, steps 2000", "gd, epochs 300", "sgd, steps 2000", "sgd, epochs 300"}


def test_whole_model_sections_are_one_curve_per_family(tmp_path: Path) -> None:
    """Points become rows if two networks have the same family and size."""
    networks = [
        *(f"{{family: mlp, depth: 2, width: {width}}}" for width in (4, 8, 16)),
        *(f"{{family: vit, depth: 1, heads: 2, patch: 4, width: {width}}}" for width in (8, 16)),
    ]

    def measured(networks: list[str]) -> list[PointStatus]:
        text = f"fixed:\n  data: {{source: digits}}\n  search: {BAYES}\ngrid:\n  model:\n"
        points = points_of(tmp_path, text + "".join(f"    - {network}\n" for network in networks))
        return [
            measured_point(point, [(40, 0), (41, 1)], params=100 * point.swept["model"]["width"])
            for point in points
        ]

    statuses = measured(networks)
    layout = layout_of(statuses)
    assert (layout.x_axis, layout.facets) == ("size", ())
    assert set(map(layout.series, statuses)) == {"mlp", "vit"}
    assert summarize(statuses)[0].startswith("mlp: EMC ")
    for same_size in ("{family: mlp, depth: 1, width: 4}", "{family: mlp, width: 4, norm: layer}"):
        assert layout_of(measured([*networks, same_size])).x_axis == "rows"


def test_swept_number_is_the_x_axis(tmp_path: Path) -> None:
    """Points without this number are shown as well."""
    rates = swept_points(tmp_path, [40, 90], lr=[1e-4, 1e-3, 1e-2, 1e-1])
    layout = layout_of(rates)
    assert (layout.x_axis, layout.key) == ("number", "training.lr")
    without_rate = swept_points(tmp_path, [50], [0], activation=["relu", "tanh"])
    spec = emc_figure([*rates, *without_rate])
    assert len([row for row in spec["data"]["values"] if row["kind"] == "point"]) == 6
    assert Chart(spec).svg()


def test_named_values_are_rows_sorted_by_emc(tmp_path: Path) -> None:
    """Seeds share a row."""
    statuses = swept_points(
        tmp_path, [30, 32, 300, 280], labels=["random"],
        activation=["relu", "tanh"], seed=[0, 1],
    )  # fmt: skip
    assert layout_of(statuses).x_axis == "rows"
    assert emc_figure(statuses)["layer"][0]["encoding"]["y"]["sort"] == ["tanh", "relu"]
    emc = [s.estimate.emc for s in statuses]
    means = f"tanh {(emc[2] + emc[3]) / 2:.0f}; relu {(emc[0] + emc[1]) / 2:.0f}"
    assert summarize(statuses)[0] == f"Mean EMC over 2 seeds: {means}."
    different_values = summarize(statuses[::2])[0]
    assert different_values.startswith("Largest EMC at random, tanh")
    assert "do not overlap" in different_values or "overlap, so" in different_values


def test_mean_over_seeds_is_a_bound_if_an_emc_is_a_bound(tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [30, 40], activation=NAMES[:2], seed=[0, 1])
    emc = statuses[1].estimate.emc
    for outcomes, mean in (
        ([(500, 0), (1000, 0)], f">= {(1000 + emc) / 2:.0f}"),
        ([(4, 2), (1, 1)], f"< {(1 + emc) / 2:.0f}"),
    ):
        bound = measured_point(statuses[0].point, outcomes)
        assert f"relu {mean}" in summarize([bound, *statuses[1:]])[0]


def test_summary_starts_with_the_comparison_or_the_growth_law(tmp_path: Path) -> None:
    statuses = swept_points(
        tmp_path, [40, 40, 80, 80, 160, 160], [100] * 2 + [200] * 2 + [400] * 2,
        activation=["relu", "tanh"], width=[4, 8, 16], seed=[0, 1],
    )  # fmt: skip

    def first_sentence(spec: str, folder: str) -> str:
        page = write_report(statuses, tmp_path / folder, spec).read_text()
        return re.search('<ul class="summary"><li>(.*?)</li>', page)[1]

    law = first_sentence("name: test", "law")
    assert re.match(r"relu: EMC scales as parameters \^ [\d.]+ \[[\d.]+, [\d.]+\]: ", law)
    assert re.search(r": \d+ \(mean of 2 seeds\) at 100 parameters, \d+ \(mean of 2 seeds\)", law)
    verdict = first_sentence("name: test\ncompare: [{by: model.activation}]", "comparison")
    assert re.match(r"EMC compared with relu: tanh [\w %]+ \(ratio 1\.0", verdict)


def test_summary_names_the_values_that_are_not_decided(tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [40, 90, 42], [100] * 3, activation=NAMES)
    tanh, gelu = compare_as_specified(statuses, []).effects
    sentence = summarize(statuses, [replace(tanh, verdict="larger"), gelu])[1]
    assert re.fullmatch(r"EMC compared with relu: tanh larger .*; not decided: gelu\.", sentence)


@pytest.mark.parametrize(("count", "named"), [(10, True), (60, False)])
def test_too_many_curves_become_rows(count: int, named: bool, tmp_path: Path) -> None:
    rates = [round(1e-5 * 1.1**i, 8) for i in range(count)]
    statuses = swept_points(
        tmp_path, [40, 90], [100, 200], lr=rates, activation=["relu", "tanh", "gelu"], width=[4, 8],
    )  # fmt: skip
    assert layout_of(statuses).x_axis == "rows"
    spec = emc_figure(statuses)
    assert len(spec["data"]["values"]) == 6 * count, "every point is a row"
    assert (spec["layer"][0]["encoding"]["y"]["type"] == "nominal") == named
    assert spec["height"] < 2000
    assert Chart(spec).svg()


def legend_names(chart: Chart) -> set[str]:
    layers = (chart.spec.get("spec") or chart.spec)["layer"]
    scales = [e["scale"] for layer in layers for e in layer["encoding"].values() if "scale" in e]
    return {name for scale in scales for name in scale["domain"] if isinstance(name, str)}


def test_few_sizes_are_ticks_and_four_facets_form_a_square(tmp_path: Path) -> None:
    statuses = swept_points(
        tmp_path, [40] * 4 + [90] * 4, [100] * 4 + [200] * 4, width=[4, 8], seed=[0, 1],
        labels=["random", "original"],
    )  # fmt: skip
    spec = emc_figure(statuses)
    assert spec["layer"][0]["encoding"]["x"]["axis"]["values"] == [100, 200]
    facets = [str(i) for i in range(4)]
    assert chart([], width=1, height=1, facets=facets, columns=3)["columns"] == 2


INTERVAL = "90 % interval"
OF_EACH_SEED = "90 % interval of each seed"


@pytest.fixture
def mixed(tmp_path: Path) -> list[PointStatus]:
    """Points with two labels, three activations, three sizes and two seeds."""
    statuses = swept_points(
        tmp_path, [40, 90, 45, 95], [100] * 2 + [200] * 2 + [400] * 2,
        labels=["random", "original"], activation=NAMES, width=[4, 8, 16], seed=[0, 1],
    )  # fmt: skip
    statuses[0] = measured_point(statuses[0].point, [(500, 0), (1000, 0)])
    return statuses


@pytest.mark.parametrize(
    ("arguments", "facets", "names"),
    [
        ({}, ["random", "original"], {*NAMES, "lower bound", OF_EACH_SEED, "median over seeds"}),
        ({"x": "model.width", "facet": "seed"}, ["seed 0", "seed 1"], {INTERVAL, "random, relu"}),
        ({"x": "model.activation"}, ["random", "original"], {OF_EACH_SEED, "width 4"}),
        (
            {"facet": "model.width", "y": "emc_per_param"},
            ["width 4", "width 8", "width 16"],
            {OF_EACH_SEED},
        ),
    ],
)
def test_printed_figure_has_requested_keys_and_size(
    arguments: dict[str, str], facets: list[str], names: set[str], mixed: list[PointStatus]
) -> None:
    chart = publication_figure(mixed, size=(6.6, 4), **arguments)
    assert chart.spec["facet"]["sort"] == facets
    assert legend_names(chart) >= names
    assert svg_size(Chart(chart.spec).svg()) == pytest.approx((6.6 * 108, 4 * 108), abs=1)
    assert 'width="6.6in" height="4in"' in chart.svg()


def test_axes_of_a_printed_figure_end_near_the_data(tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [40, 80, 160, 320], width=[4, 8, 16, 32])
    chart = publication_figure(statuses, x="model.width")
    x = chart.spec["layer"][0]["encoding"]["x"]
    assert x["axis"]["values"] == [4, 8, 16, 32]
    low, high = x["scale"]["domain"]
    assert 3.2 < low < 4
    assert 32 < high < 40
    assert INTERVAL in legend_names(chart)
    assert "median over seeds" not in legend_names(chart)


def test_dark_figure_has_dark_colours(mixed: list[PointStatus]) -> None:
    dark = publication_figure(mixed, style="dark", size=(6.6, 4)).svg()
    assert DARK_COLOURS[COLOURS[0]] in dark
    assert COLOURS[0] not in dark
    assert DARK_COLOURS[COLOURS[0]] not in publication_figure(mixed, size=(6.6, 4)).svg()


def test_wrong_arguments_of_a_printed_figure_are_reported_at_once(
    mixed: list[PointStatus],
) -> None:
    with pytest.raises(InputError) as error:
        publication_figure(mixed, x="width", y="EMC", facet="run", size=(0, 1), style="grey")
    keys = "data.labels, model.activation, model.width, seed"
    assert error.value.lines == [
        "y: must be emc or emc_per_param or doubling (EMC)",
        "style: must be light or dark (grey)",
        "size: must be a width and a height up to 20 inches ((0, 1))",
        f"x: unknown key (width); use one of params, {keys}",
        f"facet: unknown key (run); use one of {keys}",
    ]
    for arguments, message in (
        ({"x": "seed", "facet": "seed"}, r"facet: must differ from x \(seed\)"),
        ({"size": (1, 1)}, "size: is too small for axes and legend; use at least 1.* inches"),
    ):
        with pytest.raises(InputError, match=message):
            publication_figure(mixed, **arguments)
    with pytest.raises(PointError, match="doubling: is not known at any point yet"):
        publication_figure([replace(s, estimate=None, record=None) for s in mixed], y="doubling")


def test_figure_command_and_plot_write_the_same_figure(
    small_run: Path, tmp_path: Path, cli: Cli
) -> None:
    output = tmp_path / "figure.pdf"
    cli("figure", small_run, "--x", "model.width", "--size", "4x3", "-o", output)
    box = re.search(rb"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", output.read_bytes())
    assert [float(side) for side in box.groups()] == pytest.approx([288, 216], abs=0.1)  # points
    chart = flexhpc.load(small_run).plot("model.width", size=(4, 3))
    chart.save(tmp_path / "figure.svg")
    chart.save(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as png:
        assert png.size == pytest.approx((1200, 900), abs=1)
        assert png.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    cli("figure", small_run, "--x", "model.width", "--size", "4x3", "-o", tmp_path / "same.svg")
    assert (tmp_path / "same.svg").read_bytes() == (tmp_path / "figure.svg").read_bytes()


def test_figure_command_states_how_many_points_are_omitted(
    small_run: Path, tmp_path: Path, cli: Cli
) -> None:
    copy = shutil.copytree(small_run, tmp_path / "copy")
    output = tmp_path / "emc.svg"
    assert cli("figure", copy, "-o", output).stderr == ""
    folder, _, points = open_run(copy)
    folder.point_file(points[0].id).unlink()
    stderr = cli("figure", copy, "-o", output).stderr
    assert stderr == "1 of 3 points are not in the figure: 1 not measured yet\n"


def test_omitted_points_are_counted_by_reason(mixed: list[PointStatus]) -> None:
    unknown = replace(mixed[0], estimate=None, record=None)
    statuses = [replace(unknown, state="failed"), *mixed[1:]]
    assert all(status.estimate.doubling is None for status in mixed)
    text = "36 of 36 points are not in the figure: 1 failed, 35 without a value of doubling"
    assert omitted_points_text(statuses, "doubling") == text
