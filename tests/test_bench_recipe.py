"""The study of docs/recipe.md: its specs and its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.recipe import full_batch
from bench.recipe.__main__ import BEGIN, END, replace_table
from bench.recipe.choices import choice, network
from bench.recipe.tables import excludes_one, markdown, ratio, ratio_text, study
from flexhpc.analysis.text import emc_text
from flexhpc.api.runs import Comparison, Measurement
from flexhpc.config import Point, load_points
from flexhpc.config.sections.training import Gd
from flexhpc.errors import InputError
from flexhpc.store import RunFolder
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


Verdicts = Sequence[tuple[int, bool]]
"""n of each training run, and whether it fitted."""


def points(folder: Path, swept: str) -> list[Point]:
    return builders.points_of(folder, SPEC + swept)


def measurement(point: Point, verdicts: Verdicts, **changes: object) -> Measurement:
    """Return a finished point; training runs that did not fit missed a tenth of the samples."""
    outcomes = [(n, 0 if fit else max(1, n // 10)) for n, fit in verdicts]
    status = builders.measured_point(point, outcomes, n_limit=N_LIMIT, seconds=1.5)
    return Measurement(run=RunFolder(Path("unused")), status=replace(status, **changes))


def around(n: int) -> Verdicts:
    """Return training runs with an EMC near n."""
    low, high = round(n * 0.9), round(n * 1.1)
    return [(low, True)] * 5 + [(n, True), (n, False)] + [(high, False)] * 5


def test_every_point_of_the_specs_differs_from_its_base_in_one_choice() -> None:
    choices_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    bases: dict[tuple[str, str], Point] = {}
    for name in ("recipe.yaml", "recipe_mup.yaml"):
        for point in load_points(REPOSITORY / "sweeps" / name)[1]:
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
    with pytest.raises(ValueError, match=r"differs in model\.init, model\.gain"):
        choice(he_halved, plain)
    with pytest.raises(ValueError, match="in nothing"):
        choice(plain, plain)


def test_a_censored_emc_gives_a_bound(tmp_path: Path) -> None:
    base, other = points(tmp_path, CHOICES)
    all_fit = [(500, True), (N_LIMIT, True), (N_LIMIT, True)]
    none_fit = [(4, False), (2, False), (2, False)]

    def ratio_of(verdicts: Verdicts, base_verdicts: Verdicts) -> Comparison:
        return ratio(measurement(other, verdicts), measurement(base, base_verdicts))

    middle = around(100)
    known = measurement(base, middle).estimate
    assert re.fullmatch(r"2\.\d\d \[1\.\d\d, 2\.\d\d\]", ratio_text(ratio_of(around(200), middle)))
    above = ratio_of(all_fit, middle)
    assert above.low == N_LIMIT / known.emc_hi
    assert ratio_text(above) == f">= {above.low:.2f}"
    below = ratio_of(none_fit, middle)
    assert below.high == 2 / known.emc_lo
    assert ratio_text(below) == f"<= {below.high:.2g}"
    assert excludes_one(above)
    assert excludes_one(below)
    assert ratio_text(ratio_of(middle, all_fit)).startswith("<= 0.1")
    assert ratio_text(ratio_of(middle, none_fit)).startswith(">= 4")
    assert ratio_of(all_fit, none_fit).low == N_LIMIT / 2
    for censored in (all_fit, none_fit):
        unknown = ratio_of(censored, censored)
        assert ratio_text(unknown) == "unknown"
        assert not excludes_one(unknown)


def test_the_table_marks_changes_and_omits_unfinished_points(tmp_path: Path) -> None:
    swept = CHOICES + "      - {optimizer: adam, lr: 9e-2, batch_size: 64, epochs: 60}\n"
    base, slower, faster = points(tmp_path, swept)
    measured = measurement(base, around(100))
    unfinished = measurement(faster, around(50), state="running")
    result = study([measured, measurement(slower, around(200)), unfinished])
    assert result.unfinished == ["mlp digits: learning rate x 3"]
    head, rule, none, slow, fast, _, totals = markdown(result).splitlines()
    assert head == "| choice | MLP, digits |"
    assert rule == "|---|---|"
    assert none == f"| none: EMC of the base recipe | {emc_text(measured.estimate)} |"
    assert slow.startswith("| learning rate / 3 | **2.0")
    assert slow.endswith("]** |")
    assert fast == "| learning rate x 3 |  |"
    assert totals.startswith(
        "1 of 1 intervals exclude 1. The 2 points took 24 training runs, 0 million sample passes"
    )
    assert "36 s" in totals


def test_a_table_is_inserted_between_its_markers() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_table(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    for invalid in ("no markers\n", f"{END}\n{BEGIN}\n", page + page):
        with pytest.raises(InputError, match=r"must contain the line"):
            replace_table(invalid, "new\n")
    assert replace_table((REPOSITORY / "docs" / "recipe.md").read_text(), "new\n")


def test_the_command_writes_the_table_of_a_run(tmp_path: Path, profile: Path, cli: Cli) -> None:
    spec, page = tmp_path / "made.yaml", tmp_path / "page.md"
    spec.write_text(f"name: made\n{SPEC}{CHOICES}")
    cli("sweep", spec, "--profile", profile)
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
            training = point.at_arm(probe.arm).training
            assert isinstance(training, Gd)
            assert (training.momentum, point.data.labels) == (0.9, "random")
            assert name.startswith(f"{training.lr}, ")
    group = groups["0.3, 300 epochs"]
    verdicts = ["unstable" if probe.repeat else "fit" for _, probe in group]
    cell = "1 fit, 3 unstable"
    assert full_batch.row("x", group, verdicts) == f"| x | {' | '.join([cell] * 5)} |"
    point, probe = groups["0.1, 300 epochs"][0]
    assert full_batch.train((point, probe._replace(n=20))) == "fit"
