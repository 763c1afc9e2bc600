"""The study of docs/recipe.md: its specs, its factors and its tables."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.recipe import full_batch
from bench.recipe.__main__ import BEGIN, END, in_page
from bench.recipe.choices import choice, network
from bench.recipe.factors import Factor, factor
from bench.recipe.tables import markdown, study
from flexhpc.analysis.text import emc_text
from flexhpc.config import Point, checked
from flexhpc.config.sections.training import Gd
from flexhpc.errors import InputError
from flexhpc.search import estimate_so_far
from flexhpc.store.record import history_of
from flexhpc.store.status import PointStatus
from tests.analysis import builders
from tests.conftest import REPOSITORY, Cli

N_LIMIT = 1000
SPEC = """\
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, depth: 1, width: 4}
  search: {policy: bayes, start: 16, max_cost: 6}
"""
CHOICES = """\
zip:
  - training:
      - {optimizer: adam, lr: 3e-2, batch_size: 64, epochs: 60}
      - {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 60}
"""


def points(folder: Path, swept: str) -> list[Point]:
    return builders.points_of(folder, SPEC + swept)


def status(point: Point, verdicts: Sequence[tuple[int, bool]]) -> PointStatus:
    """Return a finished point; training runs that did not fit missed a tenth of the samples."""
    outcomes = [(n, 0 if fit else max(1, n // 10)) for n, fit in verdicts]
    return builders.measured_point(point, outcomes, n_limit=N_LIMIT, seconds=1.5)


def around(n: int) -> list[tuple[int, bool]]:
    """Return training runs with an EMC near n."""
    low, high = round(n * 0.9), round(n * 1.1)
    return [(low, True)] * 5 + [(n, True), (n, False)] + [(high, False)] * 5


def test_every_point_of_the_specs_differs_from_its_base_in_one_choice() -> None:
    choices_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    bases: dict[tuple[str, str], Point] = {}
    for name in ("recipe.yaml", "recipe_mup.yaml"):
        for point in checked(REPOSITORY / "sweeps" / name)[1]:
            base = bases.setdefault(network(point), point)
            if base is not point:
                choices_of[network(point)].append(choice(point, base))
    for (family, _), choices in choices_of.items():
        assert len(set(choices)) == len(choices)
        assert ("initialisation: torch to mup" in choices) == (family != "vit")
        assert {c for c in choices if "mup" not in c} == {
            "initialisation: torch to he", "initialisation: torch to lecun",
            "initialisation: torch to orthogonal", "gain / 2", "gain x 2",
            "standardisation: channel to pixel", "standardisation: channel to none",
            "learning rate / 3", "learning rate x 3", "batch size / 4", "batch size x 4",
            "schedule: constant to cosine", "batch split: near_equal to tail",
            "budget / 3", "budget x 3", "optimizer: adam to adamw", "optimizer: adam to sgd",
            "optimizer: adam to gd",
        }  # fmt: skip
    assert set(choices_of) == {
        (f, s) for f in ("mlp", "cnn", "vit") for s in ("digits", "fashion_mnist")
    }


def test_a_choice_describes_the_changed_key(tmp_path: Path) -> None:
    first, second = points(tmp_path, CHOICES)
    assert choice(second, first) == "learning rate / 3"
    swept = "grid:\n  model.init: [torch, he]\n  model.gain: [null, 0.5]\n"
    plain, halved, he, he_halved = points(tmp_path, swept)
    assert choice(halved, plain) == "gain / 2"
    assert choice(he, plain) == "initialisation: torch to he"
    assert choice(he_halved, he) == "gain: None to 0.5", "init: he has a default gain"
    with pytest.raises(ValueError, match=r"in model\.init, model\.gain, not one key"):
        choice(he_halved, plain)
    with pytest.raises(ValueError, match="in nothing"):
        choice(plain, plain)


def test_a_factor_is_the_ratio_of_two_emcs(tmp_path: Path) -> None:
    base, other = points(tmp_path, CHOICES)
    twice = factor(status(other, around(200)), status(base, around(100)))
    assert twice.middle == pytest.approx(2, rel=0.06)
    assert 1.5 < twice.low < 1.9 < 2.1 < twice.high < 2.6
    assert twice.moved
    assert twice.text.startswith(f"{twice.middle:.2f} [{twice.low:.2f}, ")
    half = factor(status(base, around(100)), status(other, around(200)))
    assert half.middle == pytest.approx(1 / 2, rel=0.06)
    same = factor(status(other, around(100)), status(base, around(100)))
    assert same.low < 0.95 < 1.05 < same.high, "equal EMCs are uncertain as well"
    assert same.middle == pytest.approx(1, abs=0.03)
    assert not same.moved
    precise = [(99, True)] * 40 + [(101, False)] * 40
    narrower = factor(status(other, around(200)), status(base, precise))
    assert np.log(twice.high / twice.low) > 1.2 * np.log(narrower.high / narrower.low)


def test_a_censored_emc_gives_a_bound(tmp_path: Path) -> None:
    base, other = points(tmp_path, CHOICES)
    everything = [(500, True), (N_LIMIT, True), (N_LIMIT, True)]
    nothing = [(4, False), (2, False), (2, False)]
    middle = around(100)
    above = factor(status(other, everything), status(base, middle))
    assert above.middle is None
    assert above.moved
    known = status(base, middle).estimate
    assert above.low == pytest.approx(N_LIMIT / known.emc_hi, rel=0.03)
    assert above.text == f">= {above.low:.2f}"
    below = factor(status(other, nothing), status(base, middle))
    assert below.high == pytest.approx(2 / known.emc_lo, rel=0.03)
    assert below.moved
    assert below.text == f"<= {below.high:.2g}"
    assert factor(status(other, middle), status(base, everything)).text.startswith("<= 0.1")
    assert factor(status(other, middle), status(base, nothing)).text.startswith(">= 4")
    for censored in (everything, nothing):
        both = factor(status(other, censored), status(base, censored))
        assert both.text == "unknown"
        assert not both.moved
    assert factor(status(other, everything), status(base, nothing)).low == N_LIMIT / 2
    few = factor(status(other, [(50, True), (60, True)]), status(base, middle))
    assert few.text.startswith(">= 0.5")
    assert not few.moved
    assert Factor(low=0.0123, middle=0.0456, high=0.5).text == "0.046 [0.012, 0.50]"


def test_the_factor_of_a_tuned_point_uses_its_best_values(tmp_path: Path) -> None:
    swept = (
        "zip:\n  - training:\n    - {optimizer: adam, lr: 1e-2}\n"
        "    - {optimizer: sgd, lr: {tune: [0.03, 0.1]}}\n"
    )
    base, tuned = points(tmp_path, swept)
    measured = status(tuned, [*around(200), *around(20)])
    probes = [
        replace(probe, arm=int(i < len(around(200))))
        for i, probe in enumerate(measured.record.probes)
    ]
    history = history_of(probes, tuned.training)
    estimate = estimate_so_far(tuned.search, N_LIMIT, history, tuned.coordinates)
    two_arms = replace(measured, record=replace(measured.record, probes=probes), estimate=estimate)
    assert factor(two_arms, status(base, around(100))).middle == pytest.approx(2, rel=0.1)


def test_the_table_marks_changes_and_omits_unfinished_points(tmp_path: Path) -> None:
    swept = CHOICES + "      - {optimizer: adam, lr: 9e-2, batch_size: 64, epochs: 60}\n"
    base, slower, faster = points(tmp_path, swept)
    unfinished = replace(status(faster, around(50)), state="running")
    result = study([status(base, around(100)), status(slower, around(200)), unfinished])
    assert result.waiting == ["mlp digits: learning rate x 3"]
    head, rule, none, slow, fast, _, totals = markdown(result).splitlines()
    assert head == "| choice | MLP, digits |"
    assert rule == "| --- | --- |"
    assert none == f"| none: EMC of the base | {emc_text(status(base, around(100)).estimate)} |"
    assert slow.startswith("| learning rate / 3 | **2.0")
    assert slow.endswith("]** |")
    assert fast == "| learning rate x 3 |  |"
    assert totals.startswith("1 of 1 intervals exclude 1. 2 points, 24 training runs, 0 million")
    assert "36 s" in totals


def test_a_table_is_inserted_between_its_markers() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert in_page(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    for invalid in ("no markers\n", f"{END}\n{BEGIN}\n", page + page):
        with pytest.raises(InputError, match=r"must contain the line"):
            in_page(invalid, "new\n")
    assert in_page((REPOSITORY / "docs" / "recipe.md").read_text(), "new\n")


def test_the_command_writes_the_table_of_a_run(tmp_path: Path, untracked: Path, cli: Cli) -> None:
    spec, page = tmp_path / "made.yaml", tmp_path / "page.md"
    spec.write_text(f"name: made\n{SPEC}{CHOICES}")
    cli("sweep", spec, "--profile", untracked)
    page.write_text(f"{BEGIN}\n{END}\n")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench.recipe", *map(str, arguments)],
            cwd=REPOSITORY, capture_output=True, text=True,
        )  # fmt: skip

    done = run(tmp_path / "runs" / "made", "--markdown", page)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert page.read_text() == f"{BEGIN}\n{done.stdout}{END}\n"
    assert "| learning rate / 3 | " in done.stdout
    missing = run(tmp_path)
    assert missing.returncode == 1
    assert "not a run folder" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_full_batch_gd_has_two_rates_and_two_budgets() -> None:
    groups = full_batch.cases()
    assert list(groups) == [
        "0.1, 300 epochs", "0.3, 300 epochs", "0.1, 2,000 updates", "0.3, 2,000 updates",
    ]  # fmt: skip
    for name, group in groups.items():
        assert len({probe for _, probe in group}) == len(full_batch.SIZES) * full_batch.SEEDS
        for point, probe in group:
            training = point.at(probe.arm).training
            assert isinstance(training, Gd)
            assert (training.momentum, point.data.labels) == (0.9, "random")
            assert name.startswith(f"{training.lr}, ")
    group = groups["0.3, 300 epochs"]
    verdicts = ["unstable" if probe.repeat else "fit" for _, probe in group]
    cell = "1 fit, 3 unstable"
    assert full_batch.row("x", group, verdicts) == f"| x | {' | '.join([cell] * 5)} |"
    point, probe = groups["0.1, 300 epochs"][0]
    assert full_batch.verdict((point, probe._replace(n=20))) == "fit"
