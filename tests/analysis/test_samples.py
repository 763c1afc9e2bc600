"""Scores of samples from fit masks: equal to slow ones, and they find planted label noise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flexhpc.analysis.samples import SampleScores, frame_of, scores_of
from flexhpc.api.runs import load
from flexhpc.data import load_samples
from tests.command import succeeded
from tests.conftest import Cli

SPEC = """\
name: noisy
record: {unseen: 400}
fixed:
  data: {source: digits, labels: corrupted, corruption: 0.05}
  model: {family: mlp, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, steps: 1500}
  search: {policy: bayes, start: 64}
grid:
  model.width: [6, 10]
  model.activation: [relu, tanh]
"""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "noisy.yaml").write_text(SPEC)
    (folder / "p.yaml").write_text("workers: 2\ntracking_uri: none\n")
    succeeded(folder, "sweep", "noisy.yaml", "--profile", "p.yaml")
    return folder / "runs" / "noisy"


def scores(run: Path, *by: str) -> list[SampleScores]:
    loaded = load(run)
    return scores_of(((loaded.folder, one.status) for one in loaded), by)


@pytest.mark.sweeps
def test_scores_are_those_of_a_slow_count(noisy: Path) -> None:
    """Sample by sample and training by training, from masks as the API gives them."""
    (fast,) = scores(noisy)
    slow = np.zeros((7, fast.n_total))
    for one in load(noisy):
        masks = one.masks
        drawn, fitted = masks.drawn(), masks.fitted()
        asked, right = masks.unseen(), masks.unseen_fitted()
        for i, verdict in enumerate(one.probes["verdict"]):
            if verdict in ("unstable", "diverged"):
                continue
            wrong = drawn[i] & ~fitted[i]
            share = wrong.sum() / drawn[i].sum()
            for sample in np.flatnonzero(drawn[i] | asked[i]):
                slow[:, sample] += (
                    drawn[i, sample], wrong[sample], share * drawn[i, sample],
                    share * (1 - share) * drawn[i, sample],
                    wrong[sample] / max(wrong.sum(), 1), asked[i, sample], right[i, sample],
                )  # fmt: skip
    for name, expected in zip(
        ("drawn", "missed", "expected", "variance", "blocks", "asked", "right"), slow, strict=True
    ):
        np.testing.assert_allclose(getattr(fast, name), expected, atol=1e-9, err_msg=name)
    told = [
        one.probes[~one.probes["verdict"].isin(["unstable", "diverged"])] for one in load(noisy)
    ]
    assert fast.blocks.sum() == pytest.approx(sum((one["n_errors"] > 0).sum() for one in told))
    assert fast.trainings == sum(map(len, told))
    with np.errstate(invalid="ignore"):
        memorization = 1 - slow[1] / slow[0] - slow[6] / slow[5]
    np.testing.assert_allclose(fast.memorization, memorization)
    for low, (drawn_there, fitted_there) in fast.by_n.items():
        assert low & (low - 1) == 0
        assert (fitted_there <= drawn_there).all()
    assert (sum(drawn_there for drawn_there, _ in fast.by_n.values()) == fast.drawn).all()


@pytest.mark.sweeps
def test_planted_label_noise_is_found(noisy: Path) -> None:
    """Samples whose label was changed are the hard ones, the memorized and the inconsistent."""
    (found,) = scores(noisy)
    point = load(noisy)[0].status.point
    samples = load_samples(point.data, point.seed)
    planted = samples.labels != samples.dataset.labels
    assert 0.03 < planted.mean() < 0.06
    assert auroc(found.hardness, planted) > 0.85
    assert auroc(found.memorization, planted) > 0.95
    assert auroc(-found.consistency, planted) > 0.95


def auroc(score: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a planted sample has the higher score than another."""
    known = np.isfinite(score)
    order = pd.Series(score[known]).rank().to_numpy()
    hits = truth[known]
    return float(
        (order[hits].sum() - hits.sum() * (hits.sum() + 1) / 2) / (hits.sum() * (~hits).sum())
    )


@pytest.mark.sweeps
def test_the_command_in_every_format(noisy: Path, cli: Cli, tmp_path: Path) -> None:
    table = cli("masks", noisy, "--top", "5").stdout
    assert table.startswith("digits, corrupted 0.05 labels: ")
    assert len(table.splitlines()) == 8
    (expected,) = scores(noisy)
    assert table.splitlines()[2].split()[0] == str(expected.hardest(1)[0])
    cli("masks", noisy, "--format", "parquet", "-o", tmp_path / "m.parquet")
    frame = pd.read_parquet(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(frame, frame_of([expected]))
    assert frame["sample"].is_unique
    cli("masks", noisy, "--format", "csv", "-o", tmp_path / "m.csv", "--by", "model.activation")
    parted = pd.read_csv(tmp_path / "m.csv")
    assert set(parted["model.activation"]) == {"relu", "tanh"}
    assert parted["drawn"].sum() == frame["drawn"].sum()
    rows = json.loads(cli("masks", noisy, "--format", "json").stdout)
    assert len(rows) == len(frame)
    assert "has no such key" in cli("masks", noisy, "--by", "model.nosuch", check=2).stderr
    assert "cannot be written" in cli("masks", noisy, "-o", tmp_path, check=2).stderr


def test_a_million_samples_take_little_memory() -> None:
    """Of a thousand points of forty trainings each: what is held does not grow with them."""
    code = """
import resource, sys
import numpy as np
from flexhpc.analysis.samples import SampleScores
from flexhpc.store import Masks
n = 1_000_000
rng = np.random.default_rng(0)
rows = rng.integers(0, 256, (4, n // 8), dtype=np.uint8)
none = np.zeros_like(rows)
masks = Masks(n_total=n, n=np.full(4, n // 2), subset=rows, fit=rows & 0xF7, outside=none,
              outside_fit=none)
scores = SampleScores(name={"data": "x", "labels": ""}, n_total=n)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(8):
    scores.add(masks, ["not_fit"] * 4)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024, len(scores.frame()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    megabytes, rows = done.stdout.split()
    assert float(megabytes) < 150
    assert int(rows) > 900_000
