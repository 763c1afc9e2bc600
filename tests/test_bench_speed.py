"""The speed benchmarks."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from bench.speed.__main__ import N, measure_rate, row, untrained
from bench.speed.loops import LOOPS
from tests.conftest import REPOSITORY


def test_a_rate_is_in_samples_per_second() -> None:
    """The clock is read immediately before and after the training run."""
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return 2.0 if events.count("clock") == 1 else 2.5

    rate = measure_rate(lambda *_: events.append("training"), "MLP 8", 10, clock=clock)
    assert rate == N * 10 / 0.5
    assert events == ["clock", "training", "clock"]


def test_ratios_compare_rates_of_the_same_round() -> None:
    rates = {"flexhpc": [100.0, 300.0, 200.0], "other": [50.0, 100.0, 400.0]}
    assert row("net", rates) == "| net | 0.2k | 2.00 (0.50 to 3.00) |"


@pytest.mark.parametrize("name", ["flexhpc", "DataLoader loop", "resident loop"])
def test_every_loop_learns(name: str) -> None:
    network, inputs, labels = untrained("MLP 64")
    LOOPS[name](network, inputs, labels, 60)
    with torch.no_grad():
        accuracy = (network(inputs).argmax(dim=1) == labels).float().mean()
    assert 0.9 < accuracy < 1, "two samples have equal inputs and different labels"


@pytest.mark.slow
def test_benchmarks_of_startup_and_of_the_time_to_an_emc() -> None:
    startup = output_of("bench.speed.startup", "--rounds", "1", "--networks", "MLP 8")
    assert startup.count("| MLP 8 |") >= 4
    table = output_of("bench.speed.time_to_emc", "--rounds", "1", "--models", "MLP 64-12-10")
    by_flexhpc, by_hand = table.splitlines()[-1].split(" | ")[3:]
    low, high = re.fullmatch(r"\d+ \[(\d+), (\d+)\]", by_flexhpc).groups()
    assert int(low) < 200 < 2 * int(high)
    assert 30 < float(by_hand.strip(" |")) < 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is available")
def test_gpu_check_fails_without_a_gpu() -> None:
    command = [sys.executable, "-m", "bench.gpu_check"]
    done = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "no GPU is visible to torch" in done.stdout


def output_of(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.check_output(command, cwd=REPOSITORY, text=True)
