"""The benchmark of speed runs and measures what it says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from bench.speed.__main__ import N, row, timed, untrained
from bench.speed.contestants import CONTESTANTS
from bench.speed.overhead import minimal, summary
from tests.conftest import REPOSITORY


def test_a_rate_is_samples_per_second_of_its_clock() -> None:
    """Of the training alone: the clock is read just before and just after it."""
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return 2.0 if events.count("clock") == 1 else 2.5

    rate = timed(lambda *_: events.append("training"), "MLP 8", 10, clock=clock)
    assert rate == N * 10 / 0.5
    assert events == ["clock", "training", "clock"]


def test_a_loop_slower_than_the_bound_is_an_error_and_ratios_are_of_a_round() -> None:
    assert summary([0.6, 0.5, 0.9], 0.55)[1] == 0
    line, status = summary([0.6, 0.5, 0.54], 0.55)
    assert status == 1
    assert "0.54 (0.50 to 0.60)" in line
    rates = {"flexhpc": [100.0, 300.0, 200.0], "other": [50.0, 100.0, 400.0]}
    assert row("net", rates) == "| net | 0.2k | 2.00 (0.50 to 3.00) |", "of the same round"


@pytest.mark.parametrize("who", ["flexhpc", "DataLoader loop", "resident loop", "minimal"])
def test_every_contestant_learns(who: str) -> None:
    network, inputs, labels = untrained("MLP 64")
    {**CONTESTANTS, "minimal": minimal}[who](network, inputs, labels, 60)
    with torch.no_grad():
        right = (network(inputs).argmax(dim=1) == labels).float().mean()
    assert 0.9 < right < 1, "two samples contradict each other"


@pytest.mark.slow
def test_whole_answers_and_starts_are_told() -> None:
    starts = told("bench.speed.start", "--rounds", "1", "--networks", "MLP 8")
    assert starts.count("| MLP 8 |") >= 4
    answers = told("bench.speed.answers", "--rounds", "1", "--models", "MLP 64-12-10")
    ours, theirs = answers.splitlines()[-1].split(" | ")[3:]
    low, high = re.fullmatch(r"\d+ \[(\d+), (\d+)\]", ours).groups()
    assert int(low) < 200 < 2 * int(high)
    assert 30 < float(theirs.strip(" |")) < 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_its_check_says_so() -> None:
    command = [sys.executable, "-m", "bench.gpu_check"]
    done = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "no GPU is visible to torch" in done.stdout


def told(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.check_output(command, cwd=REPOSITORY, text=True)
