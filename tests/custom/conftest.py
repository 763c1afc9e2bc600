"""A custom model and data set, and a spec with their import paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from torch import nn

from tests.conftest import Cli

NETS = """\
import os

from torch import nn
from layers import block


class Net(nn.Module):
    def __init__(self, shape, classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *block(shape[1] * shape[2], width),
                                    nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)


def plain(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))


def forks():
    os.fork()
    return plain()
"""
LAYERS = """\
from torch import nn


def block(inputs, width):
    return nn.Linear(inputs, width), nn.Tanh()
"""
DATA = """\
import numpy as np


def load(size=120):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (size, 8, 8), dtype=np.uint8), rng.choice(["a", "b", "c"], size)
"""
SPEC = """\
name: custom
fixed:
  data: {source: "samples:load", labels: random}
  model: {family: "nets:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 32, steps: 200}
  search: {policy: bisection, start: 16, tolerance: 0.3}
grid:
  model.kwargs.width: [2, 4, 8]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("nets", NETS), ("layers", LAYERS), ("samples", DATA)):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "custom.yaml").write_text(SPEC)
    return tmp_path


def make_network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 5))


def modification_times(run: Path) -> dict[Path, int]:
    """Return the modification time of each point file of a run."""
    return {path: path.stat().st_mtime_ns for path in run.rglob("*.h5")}


def assert_failures(cli: Cli, messages: Iterable[str], done: int) -> None:
    """Assert that the first points of the run ``custom`` failed with one-line messages.

    Args:
        messages: patterns of the messages of these points.
        done: number of the other points, which must be done.
    """
    messages = list(messages)
    states = json.loads(cli("status", "runs/custom", "--json", check=1).stdout)
    assert [state["state"] for state in states] == ["failed"] * len(messages) + ["done"] * done
    for state, message in zip(states, messages, strict=False):
        assert re.search(message, state["message"]), (message, state["message"])
        assert "\n" not in state["message"]
