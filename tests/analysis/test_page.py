"""The report's page as a reader uses it: what is said first, which figure, what a click shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from flexhpc.analysis.answer import answer
from flexhpc.analysis.details import json_for_script
from flexhpc.analysis.figures.chart import Chart
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.layout import layout_of
from flexhpc.analysis.report import write_report
from flexhpc.store.status import PointStatus, StatusReader, open_run
from tests.analysis.made import BAYES, points_of, status, summary
from tests.conftest import Cli

SLOW = 120_000
"""Milliseconds to wait for a page where other tests take the cores."""


def swept(
    folder: Path, outcomes: Sequence[int], params: Sequence[int], **grid: list[Any]
) -> list[PointStatus]:
    """Points of a grid; each fits what is given for it, in turn, and one more fails."""
    keys = {"width": "model.width", "activation": "model.activation", "labels": "data.labels",
            "lr": "training.lr", "seed": "seed"}  # fmt: skip
    lines = "".join(f"  {keys[key]}: {values}\n".replace("'", "") for key, values in grid.items())
    points = points_of(
        folder,
        "fixed:\n  data: {source: digits}\n  model: {family: mlp, width: 4}\n"
        f"  training: {{optimizer: adam}}\n  search: {BAYES}\ngrid:\n{lines}",
    )
    return [
        status(point, [(n // 2, 0), (n, 0), (n + 1, 1)], params=size)
        for point, n, size in zip(points, cycle(outcomes), cycle(params), strict=False)
    ]


def test_words_that_others_use_as_well_are_named(tmp_path: Path) -> None:
    """As random, of labels or of merged classes; what has no value of its own is plain."""
    zipped = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits}\n  model: {family: mlp, width: 4}\n"
        f"  training: {{optimizer: adam}}\n  search: {BAYES}\nzip:\n"
        "  - data.labels: [original, original, original, random, random]\n"
        "    data.merge: [random, null, null, null, null]\n"
        "    data.classes: [2, null, null, 2, 5]\n"
        "    data.class_map: [null, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1], null, null, null]\n",
    )
    some = [
        status(point, [(n // 2, 0), (n, 0), (n + 1, 1)])
        for point, n in zip(zipped, (90, 80, 30, 20, 10), strict=True)
    ]
    rows = {row["row"] for row in emc_figure(some)["data"]["values"]}
    assert "original, merge random, classes 2" in rows
    assert "original, class_map [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]" in rows
    said = answer(some)
    assert said[0].startswith("original: largest EMC at merge random, classes 2: ")
    assert "smallest at plain original: " in said[0]


def test_points_that_failed_are_no_points_to_come(tmp_path: Path) -> None:
    some = swept(tmp_path, [40, 90], [100], width=[4, 8], activation=["relu", "tanh"])
    some[1], some[2] = replace(some[1], state="failed"), replace(some[2], state="running")
    said = answer(some)
    assert "1 of 4 points failed; Failed points lists the reasons." in said
    assert "1 of 4 points are not finished yet." in said
    dead = [replace(one, state="failed", estimate=None, record=None) for one in some]
    why = "4 of 4 points failed; Failed points lists the reasons."
    assert answer(dead) == ["Nothing was measured yet.", why]


def test_sizes_run_along_a_curve_for_each_kind(tmp_path: Path) -> None:
    some = swept(tmp_path, [40, 90], [100, 200], labels=["random", "original"], width=[4, 8])
    layout = layout_of(some)
    assert (layout.along, layout.facets, layout.colours) == ("size", (), ("data.labels",))
    spec = emc_figure(some)
    labels = {row["series"] for row in spec["data"]["values"] if row["kind"] == "label"}
    assert labels == {"random", "original"}, "curves are labelled where they end"
    assert Chart(spec).svg().startswith("<svg")
    said = answer(some)
    assert said[0] == "random: EMC " + said[0].split("EMC ")[1]
    assert "at 100 parameters" in said[0]
    assert "at 200" in said[0]


def test_two_kinds_of_data_and_network_are_facets_and_colours(tmp_path: Path) -> None:
    grid = {"labels": ["random", "original"], "activation": ["relu", "tanh"], "width": [4, 8]}
    some = swept(tmp_path, [40, 90], [100, 200], **grid)
    layout = layout_of(some)
    assert (layout.facets, layout.colours) == (("data.labels",), ("model.activation",))
    assert emc_figure(some)["facet"]["sort"] == ["random", "original"]


def test_what_follows_from_another_value_tells_nothing_apart(tmp_path: Path) -> None:
    """``zip`` gives each optimizer its batch size, and each point one of two budgets."""
    zipped = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits}\n  model: {family: mlp}\n"
        f"  search: {BAYES}\ngrid:\n  model.width: [4, 8]\n  seed: [0, 1]\nzip:\n"
        "  - training.batch_size: [null, 64]\n    training.optimizer: [gd, sgd]\n"
        "  - training.steps: [2000, null]\n    training.epochs: [null, 300]\n",
    )
    some = [status(p, [(40, 0), (41, 1)], params=100 * p.swept["model.width"]) for p in zipped]
    layout = layout_of(some)
    assert layout.along == "size"
    series = {layout.series(one) for one in some}
    assert series == {"gd, steps 2000", "gd, epochs 300", "sgd, steps 2000", "sgd, epochs 300"}


def test_sections_that_are_swept_as_a_whole_are_their_keys(tmp_path: Path) -> None:
    """Networks of several sizes are a curve for each family, whatever else follows from that."""
    networks = [
        *(f"{{family: mlp, depth: 2, width: {width}}}" for width in (4, 8, 16)),
        *(f"{{family: vit, depth: 1, heads: 2, patch: 4, width: {width}}}" for width in (8, 16)),
    ]

    def measured_with(networks: list[str]) -> list[PointStatus]:
        text = f"fixed:\n  data: {{source: digits}}\n  search: {BAYES}\ngrid:\n  model:\n"
        points = points_of(tmp_path, text + "".join(f"    - {network}\n" for network in networks))
        sizes = [100 * point.swept["model"]["width"] for point in points]
        return [
            status(point, [(40, 0), (41, 1)], params=size)
            for point, size in zip(points, sizes, strict=True)
        ]

    some = measured_with(networks)
    layout = layout_of(some)
    assert (layout.along, layout.facets) == ("size", ())
    assert set(map(layout.series, some)) == {"mlp", "vit"}
    assert answer(some)[0].startswith("mlp: EMC ")
    for other in ("{family: mlp, depth: 1, width: 4}", "{family: mlp, width: 4, norm: layer}"):
        along = layout_of(measured_with([*networks, other])).along
        assert along == "rows", "two points of one place would be taken for seeds"


def test_another_number_runs_along_an_axis_of_its_own(tmp_path: Path) -> None:
    """Points without this number are not omitted."""
    rates = swept(tmp_path, [40, 90], [100], lr=[1e-4, 1e-3, 1e-2, 1e-1])
    layout = layout_of(rates)
    assert (layout.along, layout.key) == ("number", "training.lr")
    (tmp_path / "other").mkdir()
    names = swept(tmp_path / "other", [50], [0], activation=["relu", "tanh"])
    spec = emc_figure([*rates, *names])
    assert len([row for row in spec["data"]["values"] if row["kind"] == "point"]) == 6
    assert Chart(spec).svg()


def test_names_are_rows_by_group_and_size_and_seeds_share_one(tmp_path: Path) -> None:
    some = swept(
        tmp_path, [30, 32, 300, 280], [100], labels=["random"],
        activation=["relu", "tanh"], seed=[0, 1],
    )  # fmt: skip
    assert layout_of(some).along == "rows"
    spec = emc_figure(some)
    place = spec["layer"][0]["encoding"]["y"]
    assert place["sort"] == ["tanh", "relu"]
    (said, *_) = answer(some)
    assert said.startswith("Largest EMC at random, tanh, seed")
    assert "do not overlap" in said or "overlap, so" in said


@pytest.mark.parametrize(("count", "names"), [(10, True), (60, False)])
def test_too_many_curves_become_rows(count: int, names: bool, tmp_path: Path) -> None:
    rates = [round(1e-5 * 1.1**i, 8) for i in range(count)]
    some = swept(
        tmp_path, [40, 90], [100, 200], lr=rates, activation=["relu", "tanh", "gelu"], width=[4, 8],
    )  # fmt: skip
    assert layout_of(some).along == "rows"
    spec = emc_figure(some)
    assert len(spec["data"]["values"]) == 6 * count, "none is left out"
    assert (spec["layer"][0]["encoding"]["y"]["type"] == "nominal") == names
    assert spec["height"] < 2000
    assert Chart(spec).svg()


def test_two_hundred_points_of_forty_trainings_are_a_page_of_five_megabytes(tmp_path: Path) -> None:
    rates = [round(1e-4 * 1.1**i, 8) for i in range(50)]
    some = swept(
        tmp_path, [40, 90], [100, 200], lr=rates, activation=["relu", "tanh"], width=[4, 8]
    )
    curve = np.random.default_rng(0).random(500).astype(np.float32)
    for one in some:
        probes = [summary((40 + i, i % 2), loss_curve=curve, epochs=500) for i in range(40)]
        one.record.probes[:] = probes
    page = write_report("made", some, ["name: made"], tmp_path / "out")
    assert page.stat().st_size < 5e6


def test_a_report_of_sizes_says_how_emc_grows(tmp_path: Path) -> None:
    widths, params = [4, 8, 16], [100, 200, 400]
    some = swept(
        tmp_path, [25, 50, 100] * 2, params * 2, labels=["original", "random"], width=widths
    )
    page = write_report("made", some, ["name: made"], tmp_path / "out").read_text()
    growth = page[page.index("<h2>Growth</h2>") : page.index("<h2>Results</h2>")]
    rows = re.findall(
        r'<td class="text">(\w+)</td>\s*<td>([\d.-]+) \[([\d.-]+), ([\d.-]+)\]</td><td>(\d+)</td>',
        growth,
    )
    assert [row[0] for row in rows] == ["original", "random"]
    for _, slope, low, high, count in rows:
        assert float(low) < 1 < float(high)
        assert float(slope) == pytest.approx(1, abs=0.35)
        assert count == "3"


def test_no_text_ends_the_script_it_is_given_to() -> None:
    text = json_for_script({"label": "</script><img src=x onerror=alert(1)>", "n": 3})
    assert "<" not in text
    assert "\\u003c/script" in text


def open_page(
    chromium: Any, html: Path, width: int, figures: Sequence[str] = ("emc", "ratios"), **more: Any
) -> tuple[Any, list[str]]:
    """Open a report in a browser; return its page and what goes wrong in it.

    These are errors of its script and requests to other places.
    """
    opened = chromium.new_page(viewport={"width": width, "height": 900}, **more)
    opened.set_default_timeout(SLOW)
    wrong: list[str] = []

    def on_request(request: Any) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            wrong.append(request.url)

    opened.on("request", on_request)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.goto(html.as_uri())
    for figure in figures:
        opened.wait_for_selector(f"[data-spec={figure}] .vega-embed svg")
    return opened, wrong


@pytest.fixture
def page(measured: Path, tmp_path: Path, cli: Cli, chromium: Any) -> Iterator[Any]:
    """The report in a browser, in which nothing goes wrong."""
    html = Path(cli("report", measured, "-o", tmp_path / "out").stdout.strip())
    opened, wrong = open_page(chromium, html, 1440, ["emc"])
    yield opened
    assert not wrong


@pytest.mark.browser
def test_a_reader_finds_every_training(page: Any, measured: Path) -> None:
    folder, _, points = open_run(measured)
    statuses = StatusReader(folder, points).read()
    rows = page.locator("tr.point")
    assert rows.count() == 3
    for number, one in enumerate(statuses):
        rows.nth(number).click()
        shown = page.locator("#point tbody tr")
        assert shown.count() == one.probes
        assert page.locator("#point h3").inner_text() == one.point.label
        said = page.locator("#point p").nth(1).inner_text()
        assert f"Largest n that fitted: {one.bracket.largest_fit}, in training" in said
        assert f"Smallest n that failed: {one.bracket.smallest_fail}, in training" in said
        for ending in page.locator("#point tr.end").all():
            n, verdict = (ending.locator("td").nth(i).inner_text() for i in (1, 3))
            fitted = verdict == "fit"
            assert int(n) == (one.bracket.largest_fit if fitted else one.bracket.smallest_fail)
        below = page.locator("tr.point").nth(number).evaluate("row => row.nextSibling.className")
        assert below == "within", "a row's training runs stand below it"
    page.wait_for_selector("#point .vega-embed svg")
    page.locator("tr.point").last.click()
    assert not page.locator("#point").is_visible(), "a second click closes them"
    marks = page.locator("[data-spec=emc] .mark-symbol path").all()
    assert len(marks) == 3
    for mark in marks:
        mark.click()
        named = mark.evaluate("path => path.__data__.datum.point")
        assert page.locator("#point h3").inner_text() == named
    page.locator("#point > button").click()
    assert not page.locator("#point").is_visible()
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 16)
    assert page.locator("#point").is_visible(), "a finger need not meet it"
    page.locator("#point > button").click()
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] - 30, box["y"])
    page.mouse.down()
    page.mouse.move(box["x"], box["y"])
    page.mouse.up()
    assert not page.locator("#point").is_visible(), "a figure that is moved shows none"
    page.mouse.dblclick(box["x"] - 30, box["y"] + 30)
    assert not page.locator("#point").is_visible(), "nor does one that goes back"
    page.locator("tr.point").nth(1).press("Enter")
    page.locator("#point > button").press("Enter")
    focused = page.evaluate("document.activeElement.dataset.id")
    assert focused == "1", "the keyboard goes on where it was"


@pytest.mark.browser
def test_the_table_is_sorted_filtered_and_saved(page: Any, tmp_path: Path) -> None:
    def widths() -> list[str]:
        return page.locator("tr.point:visible td:nth-child(3)").all_inner_texts()

    head = page.locator("#results thead th").nth(1).locator("button")
    head.click()
    ascending = widths()
    head.click()
    assert widths() == ascending[::-1]
    page.locator("tr.point").first.click()
    page.fill("#filter", "bracket 12")
    assert widths() == ["12"]
    assert page.locator("#left").inner_text() == "1 of 3"
    cost = page.locator("tr.point:visible td").filter(has_text=re.compile("^[0-9]+,[0-9]{3}$"))
    whole = cost.first.inner_text().replace(",", "")
    page.fill("#filter", whole)
    assert widths() == ["12"]
    page.fill("#filter", whole[:-1])  # a part of a number is another number
    assert widths() == []
    page.fill("#filter", "bracket 12.0")  # numbers are equal however they are written
    assert widths() == ["12"]

    def saved() -> list[str]:
        with page.expect_download() as download:
            page.click("#csv")
        download.value.save_as(tmp_path / "got.csv")
        return (tmp_path / "got.csv").read_text().splitlines()

    first, *rest = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert saved() == [first, *(line for line in rest if ",12," in line)]
    page.fill("#filter", "")
    shown = widths()
    assert [line.split(",")[first.split(",").index("model.width")] for line in saved()[1:]] == shown
    assert sorted(saved()) == sorted([first, *rest])


@pytest.mark.browser
def test_escape_shuts_a_point_and_links_lead_to_parts(page: Any) -> None:
    page.locator("tr.point").first.press("Enter")
    assert page.locator("#point").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#point").is_visible()
    heads = page.locator("h2").all_inner_texts()
    assert page.locator("nav a").all_inner_texts() == heads
    page.click("nav a:has-text('Results')")
    page.wait_for_function("document.querySelector('#filter').getBoundingClientRect().top < 200")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_the_page_fits_its_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("tr.point").first.press("Enter")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width


@pytest.fixture
def compared_page(tmp_path: Path) -> Path:
    """A report with rows, ratios of several verdicts, a bound and a failed point."""
    some = swept(
        tmp_path, [40, 43, 90], [100], activation=["relu", "gelu", "tanh"], seed=[0, 1, 2, 3, 4]
    )
    emc = {"relu": 40, "gelu": 43, "tanh": 90}
    some = [
        status(one.point, [(n // 2, 0), (n, 0), (n + 2, 1), (n - 2, 0), (n + 4, 2)], params=100)
        for one in some
        if (n := emc[one.point.swept["model.activation"]])
    ]
    lost = PointStatus(point=some[0].point, state="failed", message="its worker died")
    title = "made_under_a_name_without_a_space"
    return write_report(title, [*some[1:], lost], ["name: made\nx: 1"], tmp_path / "out")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(scheme: str, compared_page: Path, chromium: Any) -> None:
    """Contrast, names, landmarks and keyboard, by axe; and nothing goes wrong in its script."""
    said = compared_page.read_text()
    assert "<li>Against relu: tanh larger (2." in said
    for width in (1440, 390):
        opened, wrong = open_page(chromium, compared_page, width, color_scheme=scheme)
        opened.locator("tr.point").nth(1).press("Enter")
        opened.wait_for_selector("#point .vega-embed svg")
        found = Axe().run(opened).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
        assert wrong == []
        opened.close()


@pytest.mark.browser
@pytest.mark.parametrize("at_first", [390, 844])
def test_figures_can_be_read_on_a_phone(at_first: int, compared_page: Path, chromium: Any) -> None:
    """As wide as the page, with letters of their own size; also when it was turned."""
    opened, _ = open_page(chromium, compared_page, at_first)
    opened.set_viewport_size({"width": 390, "height": 900})
    opened.wait_for_function(
        """Array.from(document.querySelectorAll("figure .vega-embed svg"),
          (svg) => svg.getBoundingClientRect().width).every((width) => width <= 358)"""
    )
    drawn = opened.evaluate(
        """Array.from(document.querySelectorAll("figure .vega-embed svg"), (svg) => [
          svg.getBoundingClientRect().width, Math.min(...Array.from(
            svg.querySelectorAll("text"), (text) => text.getBoundingClientRect().height))])"""
    )
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(drawn) >= 2
    assert all(250 <= width <= 358 and letters >= 10 for width, letters in drawn), drawn


@pytest.mark.browser
def test_every_table_is_sorted_by_its_numbers(compared_page: Path, chromium: Any) -> None:
    opened, _ = open_page(chromium, compared_page, 1440)
    opened.locator("tr.point").nth(1).press("Enter")

    def sorted_by(place: str, title: str) -> list[float]:
        table = opened.locator(place)
        titles = [text.strip(" ↑↓") for text in table.locator("thead th").all_inner_texts()]
        table.locator("thead th button").nth(titles.index(title)).click()
        cells = table.locator(f"tbody tr td:nth-child({titles.index(title) + 1})").all_inner_texts()
        return [float(re.match(r"[\d.]+", cell)[0]) for cell in cells]

    for place, title in (
        ("#point table", "n"), ("#point table", "seconds"),
        ("[aria-label='comparisons by model.activation'] table", "EMC ratio"),
    ):  # fmt: skip
        ascending = sorted_by(place, title)
        assert ascending == sorted(ascending), title
        assert len(set(ascending)) > 1 or title == "seconds"
        assert sorted_by(place, title) == ascending[::-1], title
    assert opened.locator("#point").is_visible(), "sorting the training runs leaves them open"


@pytest.mark.browser
def test_it_prints_whole(compared_page: Path, chromium: Any, tmp_path: Path) -> None:
    """Figures and all rows are on paper, and nothing is wider than a page."""
    opened, _ = open_page(chromium, compared_page, 1000)
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 718, "height": 1000})  # A4 within its margins
    wide = opened.evaluate("document.documentElement.scrollWidth")
    assert wide <= 718
    printed = opened.pdf(path=tmp_path / "page.pdf", format="A4", print_background=False)
    assert printed.startswith(b"%PDF")
    assert not opened.locator("#filter").is_visible()
    assert opened.locator("tr.point").last.is_visible()
