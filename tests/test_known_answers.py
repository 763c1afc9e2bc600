"""EMCs that are known exactly: the capacity of a linear network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flexhpc.config import load_points
from flexhpc.measuring.point import measure
from flexhpc.store import RunFolder
from flexhpc.training import Callbacks, Group
from tests.conftest import FULL

SPEC = """\
name: perceptron
fixed:
  data: {{source: gaussian, dims: {dims}, classes: 2, size: {size}, labels: {labels}}}
  model: {{family: linear, bias: false}}
  training:
    {{optimizer: adam, batch_size: 4000, lr: 3e-2, epochs: {epochs}, gates: {{plateau: off}}}}
  search: {{policy: bisection, start: 16, tolerance: 0.05, seeds_per_n: 5}}
"""


def emc(tmp_path: Path, dims: int, labels: str, epochs: int, size: int):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(dims=dims, labels=labels, epochs=epochs, size=size))
    (point,) = load_points(path)[1]
    return measure(point, RunFolder(tmp_path / "run"), Group(torch.device("cpu")), Callbacks())


@pytest.mark.parametrize("dims", [20, 50] if FULL else [20])
def test_a_perceptron_fits_at_most_twice_its_dimension(tmp_path: Path, dims: int) -> None:
    """Cover (1965): n50 = 2 d for random labels; gradient descent fits at most that many."""
    estimate = emc(tmp_path, dims, "random", 2000 if FULL else 1000, 2000)
    assert estimate.censored == "none"
    assert 1.5 * dims < estimate.emc < 2.3 * dims
    assert estimate.emc_lo <= 2 * dims


@pytest.mark.full_budget
def test_a_perceptron_fits_all_labels_of_a_linear_teacher(tmp_path: Path) -> None:
    estimate = emc(tmp_path, 20, "original", 6000, 2000 if FULL else 600)
    assert estimate.largest_fit >= 500
