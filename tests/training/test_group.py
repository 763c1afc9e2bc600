"""Real groups of processes over gloo: the same math whatever their number."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Sgd
from flexhpc.errors import PointError
from flexhpc.training import Group, Outcome
from tests.barrier import wait_for
from tests.conftest import FULL, REPOSITORY
from tests.training.helpers import run, same
from tests.training.ranks import CASES, STOPPED, Case, outcome


def start(
    size: int,
    folder: Path,
    module: str = "tests.training.ranks",
    ranks: Iterable[int] = (),
) -> list[subprocess.Popen[str]]:
    """Start the processes of a group, or some of them."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), str(size), str(folder), str(folder)],
            cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        )
        for rank in ranks or range(size)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone() -> dict[str, Outcome]:
    group = Group(torch.device("cpu"))
    return {name: outcome(case, group) for name, case in CASES.items()}


@pytest.mark.parametrize("size", [2, 3, 4] if FULL else [3])
def test_the_math_is_that_of_one_process(
    size: int, alone: dict[str, Outcome], tmp_path: Path
) -> None:
    """Verdict, mask and history agree; the loss to what rounding in other sums leaves."""
    for process in start(size, tmp_path):
        _, said = process.communicate()
        assert process.returncode == 0, said
    found, refused = pickle.loads((tmp_path / f"{size}.pkl").read_bytes())
    for name, case in CASES.items():
        agree(case, alone[name], found[name])
    for name in STOPPED:
        same(found[name], found[f"{name}, stopped"])
    assert "a batch of one sample cannot be trained on" in refused


def agree(case: Case, one: Outcome, many: Outcome) -> None:
    if case.bits:
        same(one, many)
        return
    for key in ("verdict", "epochs", "steps", "cost", "n_errors"):
        assert getattr(one, key) == getattr(many, key), key
    np.testing.assert_array_equal(one.fitted, many.fitted)
    np.testing.assert_array_equal(one.error_curve, many.error_curve)
    assert one.forgotten is not None
    np.testing.assert_array_equal(one.forgotten, many.forgotten)
    close = 1e-6 if case.training.precision == "fp64" else 1e-3
    np.testing.assert_allclose(one.loss_curve, many.loss_curve, rtol=close)
    for key, reading in one.readings.items():
        assert reading == pytest.approx(many.readings[key], rel=10 * close)


def test_the_cases_can_tell_processes_apart(alone: dict[str, Outcome]) -> None:
    """Some cases fit and some do not, so that an agreement of verdicts means something."""
    verdicts = {name: found.verdict for name, found in alone.items()}
    assert verdicts["adam"] == "fit"
    assert verdicts["failing"] != "fit"
    assert 0 < alone["failing"].n_errors < CASES["failing"].n


def test_shards_are_refused_with_batch_norm() -> None:
    normed = Mlp(family="mlp", width=4, depth=1, norm="batch")
    with pytest.raises(PointError, match="remove shards"):
        run(Sgd(optimizer="sgd", shards=2), 20, model=normed)


def test_a_dead_peer_is_noticed(tmp_path: Path) -> None:
    """A rank killed in the middle of a training: the other ends with PeerLost, it does not hang."""
    first, second = start(2, tmp_path, "tests.training.endless")
    wait_for(lambda: (tmp_path / "training").exists() or first.poll() is not None, "a training")
    second.kill()
    second.communicate()
    try:
        _, said = first.communicate()
    finally:
        first.kill()
    assert first.returncode == 17, said
