"""The report page: its size, its tables, and interaction in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from flexhpc.analysis.figures.chart import COLOURS, DARK_COLOURS
from flexhpc.store import RunFolder, create_point_file
from flexhpc.store.status import PointStatus, StatusReader, open_run
from tests.analysis.builders import measured_point, probe_summary, swept_points, write_report
from tests.barrier import TIMEOUT
from tests.point_files import edited


def test_report_of_8000_training_runs_is_smaller_than_5_mb(tmp_path: Path) -> None:
    rates = [round(1e-4 * 1.1**i, 8) for i in range(50)]
    statuses = swept_points(
        tmp_path, [40, 90], [100, 200], lr=rates, activation=["relu", "tanh"], width=[4, 8]
    )
    probes = [probe_summary((40 + i, i % 2), epochs=500) for i in range(40)]
    curve = np.random.default_rng(0).random(500).astype(np.float32)
    source, run = tmp_path / "source.h5", RunFolder(tmp_path / "out" / "test")
    create_point_file(source, statuses[0].record.header)
    with edited(source) as file:
        for number in range(len(probes)):
            file[f"probes/{number:04d}/loss_curve"] = curve
    for status in statuses:
        status.record.probes[:] = probes
        path = run.point_file(status.point.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
        with edited(path) as file:
            file.attrs["point_id"] = status.point.id
    page = write_report(statuses, tmp_path / "out", "name: test")
    assert page.read_text().count(f"{curve[-1]:.3g}]") >= 8000
    assert page.stat().st_size < 5e6


def test_report_names_its_networks_data_and_labels_and_contains_power_laws(tmp_path: Path) -> None:
    widths, params = [4, 8, 16], [100, 200, 400]
    statuses = swept_points(
        tmp_path, [25, 50, 100] * 2, params * 2, labels=["original", "random"], width=widths
    )
    page = write_report(statuses, tmp_path / "out", "name: test").read_text()
    assert "6 points: mlp on digits, original and random labels;" in page
    laws = page[page.index("<h2>Power laws</h2>") : page.index("<h2>Results</h2>")]
    rows = re.findall(
        r'<td class="text">(\w+)</td>\s*<td>([\d.-]+) \[([\d.-]+), ([\d.-]+)\]</td><td>(\d+)</td>',
        laws,
    )
    assert [row[0] for row in rows] == ["original", "random"]
    for _, slope, low, high, count in rows:
        assert float(low) < 1 < float(high)
        assert float(slope) == pytest.approx(1, abs=0.35)
        assert count == "3"


def test_comparisons_within_groups_and_of_all_points_have_the_same_columns(tmp_path: Path) -> None:
    statuses = swept_points(
        tmp_path, [40, 90] * 2, [100, 100, 200, 200], width=[4, 8], activation=["relu", "tanh"]
    )
    spec = "compare: [{by: model.activation, within: [model.width]}, {by: model.activation}]"
    page = write_report(statuses, tmp_path / "out", f"name: test\n{spec}").read_text()
    table = page[page.index("<h2>Comparisons</h2>") : page.index("<h2>Results</h2>")]
    assert "With 3 comparisons, a P(larger) above 0.99583" in table
    header, *rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    assert [len(re.findall("<td", row)) for row in rows] == [len(re.findall("<th", header))] * 3
    assert [re.search('<td class="text">(.*?)<', row)[1] for row in rows] == ["4", "8", "all"]


def open_page(
    chromium: Any, html: Path, width: int, figures: Sequence[str] = ("emc", "ratios"), **more: Any
) -> tuple[Any, list[str]]:
    """Open a report and wait for its figures.

    Returns:
        The page, and a list that collects script errors and URLs of external requests.
    """
    page = chromium.new_page(viewport={"width": width, "height": 900}, **more)
    page.set_default_timeout(TIMEOUT * 1000)
    errors: list[str] = []

    def on_request(request: Any) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            errors.append(request.url)

    page.on("request", on_request)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda log: errors.append(log.text) if log.type == "error" else None)
    page.goto(html.as_uri())
    for figure in figures:
        page.wait_for_selector(f"[data-spec={figure}] .vega-embed svg")
    return page, errors


@pytest.fixture
def page(small_run: Path, chromium: Any) -> Iterator[Any]:
    """The report of a run in a browser; fails after the test if there was an error in the page."""
    opened, errors = open_page(chromium, small_run / "report" / "index.html", 1440, ["emc"])
    yield opened
    assert not errors


@pytest.mark.browser
def test_selecting_a_point_shows_its_training_runs(page: Any, small_run: Path) -> None:
    folder, _, points = open_run(small_run)
    rows, details = page.locator("tr.point"), page.locator("#point")
    assert rows.count() == 3
    for number, point in enumerate(StatusReader(folder, points).read()):
        rows.nth(number).click()
        assert details.locator("tbody tr").count() == point.probes
        assert details.locator("h3").inner_text() == point.point.label
        text = details.locator("p").nth(1).inner_text()
        assert f"Largest n that fitted: {point.bracket.largest_fit}, in training" in text
        assert f"Smallest n that failed: {point.bracket.smallest_fail}, in training" in text
        for end in details.locator("tr.end").all():
            n, verdict = (end.locator("td").nth(i).inner_text() for i in (1, 3))
            bracket = point.bracket
            assert int(n) == (bracket.largest_fit if verdict == "fit" else bracket.smallest_fail)
        assert rows.nth(number).evaluate("row => row.nextSibling.className") == "panel-row"
    page.wait_for_selector("#point .vega-embed svg")
    legends = details.locator(".role-legend").all_text_contents()
    assert len(legends) == 2, "of the fit curve and of the losses"
    assert all("fit" in legend for legend in legends)
    rows.last.click()
    assert not details.is_visible(), "a second click on a row closes the details"
    marks = page.locator("[data-spec=emc] .vega-embed .mark-symbol path").all()
    assert len(marks) == 3
    for mark in marks:
        mark.click()
        label = mark.evaluate("path => path.__data__.datum.point")
        assert details.locator("h3").inner_text() == label
    close = page.locator("#point > button")
    close.click()
    assert not details.is_visible()
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 16)
    assert details.is_visible(), "a click near a mark selects it, as on a touch screen"
    close.click()
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] - 30, box["y"])
    page.mouse.down()
    page.mouse.move(box["x"], box["y"])
    page.mouse.up()
    assert not details.is_visible(), "panning selects no point"
    page.mouse.dblclick(box["x"] - 30, box["y"] + 30)
    assert not details.is_visible(), "resetting the zoom selects no point"
    rows.nth(1).press("Enter")
    close.press("Enter")
    focused = page.evaluate("document.activeElement.dataset.id")
    assert focused == "1", "closing the details returns the focus to the row"


@pytest.mark.browser
def test_results_can_be_sorted_filtered_and_saved(
    page: Any, small_run: Path, tmp_path: Path
) -> None:
    def widths() -> list[str]:
        return page.locator("tr.point:visible td:nth-child(3)").all_inner_texts()

    header = page.locator("#results thead th").nth(1).locator("button")
    header.click()
    ascending = widths()
    header.click()
    assert widths() == ascending[::-1]
    page.locator("tr.point").first.click()
    page.fill("#filter", "bracket 910")
    assert widths() == ["12"]
    assert page.locator("#matches").inner_text() == "1 of 3"
    cost = page.locator("tr.point:visible td").filter(has_text=re.compile("^[0-9]+,[0-9]{3}$"))
    digits = cost.first.inner_text().replace(",", "")
    page.fill("#filter", digits)
    assert widths() == ["12"]
    page.fill("#filter", digits[:-1])  # a number does not match its first digits
    assert widths() == []
    page.fill("#filter", "bracket 910.0")  # numbers are compared by value
    assert widths() == ["12"]

    def saved() -> list[str]:
        with page.expect_download() as download:
            page.click("#csv")
        download.value.save_as(tmp_path / "saved.csv")
        return (tmp_path / "saved.csv").read_text().splitlines()

    first, *rest = (small_run / "report" / "results.csv").read_text().splitlines()
    assert saved() == [first, *(line for line in rest if ",12,910," in line)]
    page.fill("#filter", "")
    column = first.split(",").index("model.width")
    assert [line.split(",")[column] for line in saved()[1:]] == widths()
    assert sorted(saved()) == sorted([first, *rest])


@pytest.mark.browser
def test_escape_closes_the_details_and_links_lead_to_sections(page: Any) -> None:
    page.locator("tr.point").first.press("Enter")
    assert page.locator("#point").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#point").is_visible()
    headings = page.locator("h2").all_inner_texts()
    assert page.locator("nav a").all_inner_texts() == headings
    page.click("nav a:has-text('Results')")
    page.wait_for_function("document.querySelector('#filter').getBoundingClientRect().top < 200")


@pytest.fixture(scope="module")
def compared_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with rows, ratios of several verdicts, a bound and a failed point."""
    folder = tmp_path_factory.mktemp("compared")
    emc = {"relu": 40, "gelu": 43, "tanh": 90}
    points = [s.point for s in swept_points(folder, [40], activation=[*emc], seed=[*range(5)])]
    statuses = []
    for point in points:
        n = emc[point.swept["model.activation"]]
        outcomes = [(n // 2, 0), (n, 0), (n + 2, 1), (n - 2, 0), (n + 4, 2), (3 * n // 2, 9)]
        statuses.append(measured_point(point, [*outcomes, (2 * n, 20)]))
    failed = PointStatus(point=points[0], state="failed", message="its worker died")
    title = "a_long_name_without_a_space_in_it"
    return write_report([*statuses[1:], failed], folder / "out", "name: test\nx: 1", title)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_and_fits_the_screen(
    scheme: str, compared_page: Path, chromium: Any
) -> None:
    """Axe checks contrast, names, landmarks and keyboard access."""
    sentence = "<li>EMC compared with relu: tanh larger at this budget (ratio 2."
    assert sentence in compared_page.read_text()
    for width in (1440, 1024, 390):
        page, errors = open_page(chromium, compared_page, width, color_scheme=scheme)
        page.locator("tr.point").nth(1).press("Enter")
        page.wait_for_selector("#point .vega-embed svg")
        violations = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in violations] == []
        assert errors == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_fill_the_page_and_have_their_own_palette(
    scheme: str, compared_page: Path, chromium: Any
) -> None:
    page, errors = open_page(chromium, compared_page, 1440, color_scheme=scheme)
    available = page.locator("main").bounding_box()["width"]
    for name in ("emc", "ratios"):
        drawn = page.locator(f"[data-spec={name}] .vega-embed svg").bounding_box()["width"]
        assert 0.97 * available < drawn <= available
    table = page.locator("[aria-label=results]")
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")
    colours = page.locator("[data-spec=emc] .vega-embed svg").inner_html()
    assert (COLOURS[0] in colours) == (scheme == "light")
    assert (DARK_COLOURS[COLOURS[0]] in colours) == (scheme == "dark")
    assert errors == []


@pytest.mark.browser
def test_figures_can_be_saved_from_a_page_without_its_folder(
    compared_page: Path, chromium: Any, tmp_path: Path
) -> None:
    mailed = tmp_path / "mailed.html"
    mailed.write_bytes(compared_page.read_bytes())
    page, _ = open_page(chromium, mailed, 1440)
    for suffix, start in (("pdf", b"%PDF"), ("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as download:
            page.click(f"[data-spec=emc] .files a:has-text('{suffix.upper()}')")
        assert download.value.suggested_filename == f"emc.{suffix}"
        assert Path(download.value.path()).read_bytes().startswith(start)


@pytest.mark.browser
def test_captions_describe_only_marks_of_their_figure(compared_page: Path, chromium: Any) -> None:
    page, _ = open_page(chromium, compared_page, 1440)
    caption = page.locator("[data-spec=emc] figcaption").inner_text()
    assert caption.startswith("Bars are intervals. The points of a row have different seeds.")
    assert "Curves" not in caption
    assert "Dashed" not in caption


@pytest.mark.browser
@pytest.mark.parametrize("initial_width", [390, 844])
def test_figures_fit_a_phone(initial_width: int, compared_page: Path, chromium: Any) -> None:
    """Figures are as wide as the page with readable text, also after the phone was rotated."""
    page, _ = open_page(chromium, compared_page, initial_width)
    page.set_viewport_size({"width": 390, "height": 900})
    figures = """Array.from(document.querySelectorAll("figure .vega-embed svg"), (svg) => [
      svg.getBoundingClientRect().width, Math.min(...Array.from(
        svg.querySelectorAll("text"), (text) => text.getBoundingClientRect().height))])"""
    page.wait_for_function(f"{figures}.every(([width]) => width <= 358)")
    sizes = page.evaluate(figures)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    cut = """Array.from(document.querySelectorAll("figure .vega-embed svg text"), (text) =>
      text.getBoundingClientRect().right - text.closest("svg").getBoundingClientRect().right)"""
    assert max(page.evaluate(cut)) <= 0
    assert len(sizes) >= 2
    assert all(250 <= width <= 358 and text >= 10 for width, text in sizes), sizes


@pytest.mark.browser
def test_every_table_can_be_sorted_by_numbers(compared_page: Path, chromium: Any) -> None:
    page, _ = open_page(chromium, compared_page, 1440)
    page.locator("tr.point").nth(1).press("Enter")

    def sorted_by(selector: str, title: str) -> list[float]:
        table = page.locator(selector)
        titles = [text.strip(" ↑↓") for text in table.locator("thead th").all_inner_texts()]
        table.locator("thead th button").nth(titles.index(title)).click()
        cells = table.locator(f"tbody tr td:nth-child({titles.index(title) + 1})").all_inner_texts()
        return [float(re.match(r"[\d.]+", cell)[0]) for cell in cells]

    for selector, title in (
        ("#point table", "n"), ("#point table", "seconds"),
        ("[aria-label='comparisons by model.activation'] table", "EMC ratio"),
    ):  # fmt: skip
        ascending = sorted_by(selector, title)
        assert ascending == sorted(ascending), title
        assert len(set(ascending)) > 1 or title == "seconds"
        assert sorted_by(selector, title) == ascending[::-1], title
    assert page.locator("#point").is_visible(), "sorting does not close the details"


@pytest.mark.browser
def test_printed_page_is_complete(compared_page: Path, chromium: Any, tmp_path: Path) -> None:
    """All rows are printed, and no element is wider than the paper."""
    page, _ = open_page(chromium, compared_page, 1000)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    pdf = page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=False)
    assert pdf.startswith(b"%PDF")
    assert not page.locator("#filter").is_visible()
    assert page.locator("tr.point").last.is_visible()
