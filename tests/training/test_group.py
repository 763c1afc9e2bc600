"""Several processes that train together over gloo agree with one process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Sgd
from flexhpc.errors import PointError
from flexhpc.training import Group, Outcome
from tests.barrier import wait_for
from tests.conftest import FULL, REPOSITORY
from tests.training.helpers import CPU, assert_outcomes_close, assert_outcomes_equal, run
from tests.training.ranks import CASES, INTERRUPTED, train_case


def start(
    size: int, folder: Path, module: str = "tests.training.ranks", ranks: Iterable[int] = ()
) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), str(size), str(folder), str(folder)],
            cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        )
        for rank in ranks or range(size)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def single() -> dict[str, Outcome]:
    group = Group(CPU)
    return {name: train_case(case, group) for name, case in CASES.items()}


@pytest.mark.parametrize("size", [2, 3, 4] if FULL else [3])
def test_groups_agree_with_one_process(
    size: int, single: dict[str, Outcome], tmp_path: Path
) -> None:
    """Verdicts, masks and curves agree; losses up to the rounding of sums."""
    assert single["adam"].verdict == "fit"
    assert single["failing"].verdict != "fit"
    assert 0 < single["failing"].n_errors < CASES["failing"].n
    for process in start(size, tmp_path):
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    outcomes, error = pickle.loads((tmp_path / f"{size}.pkl").read_bytes())
    for name, case in CASES.items():
        tolerance = 1e-6 if case.training.precision == "fp64" else 1e-3
        if case.bitwise:
            assert_outcomes_equal(single[name], outcomes[name])
        else:
            assert_outcomes_close(single[name], outcomes[name], tolerance, 10 * tolerance)
    for name in INTERRUPTED:
        assert_outcomes_equal(outcomes[name], outcomes[f"{name}, interrupted"])
    assert "cannot train on a batch of one sample" in error


def test_shards_are_rejected_with_batch_norm() -> None:
    normed = Mlp(family="mlp", width=4, depth=1, norm="batch")
    with pytest.raises(PointError, match="remove shards"):
        run(Sgd(optimizer="sgd", shards=2), 20, model=normed)


def test_a_killed_peer_ends_the_training_run(tmp_path: Path) -> None:
    first, second = start(2, tmp_path, "tests.training.endless_training")
    wait_for(lambda: (tmp_path / "training").exists() or first.poll() is not None, "a training run")
    second.kill()
    second.communicate()
    try:
        _, stderr = first.communicate()
    finally:
        first.kill()
    assert first.returncode == 17, stderr
