"""Scores of samples from fit masks: equal to slow ones, and they find planted label noise."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flexhpc.analysis.sample_views import view_of
from flexhpc.analysis.samples import SampleScores, agreements, frame_of, scores_of
from flexhpc.api.runs import load
from flexhpc.data import load_samples, places
from flexhpc.data.sources import open_source
from flexhpc.errors import PointError
from flexhpc.search.history import UNINFORMATIVE
from flexhpc.store import Masks
from tests.analysis.made import points_of
from tests.command import succeeded
from tests.conftest import Cli

SPEC = """\
name: noisy
record: {unseen: 400, forgetting: true}
fixed:
  data: {source: digits, labels: corrupted, corruption: 0.05}
  model: {family: mlp, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, steps: 1500}
  search: {policy: bayes, start: 64, tolerance: 0.1}
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
    slow = np.zeros((11, fast.n_total))
    for one in load(noisy):
        masks = one.masks
        drawn, fitted = masks.drawn(), masks.fitted()
        asked, right = masks.unseen(), masks.unseen_fitted()
        for i, verdict in enumerate(one.probes["verdict"]):
            if verdict in UNINFORMATIVE:
                continue
            wrong = drawn[i] & ~fitted[i]
            share = wrong.sum() / drawn[i].sum()
            times = dict(zip(np.flatnonzero(drawn[i]), masks.forgotten[i].tolist(), strict=True))
            learnt = [count for count in times.values() if count >= 0]
            for sample in np.flatnonzero(drawn[i] | asked[i]):
                slow[:, sample] += (
                    drawn[i, sample], wrong[sample], share * drawn[i, sample],
                    share * (1 - share) * drawn[i, sample],
                    wrong[sample] / max(wrong.sum(), 1), asked[i, sample], right[i, sample],
                    sample in times, times.get(sample) == -1, max(times.get(sample, 0), 0),
                    np.mean(learnt) if times.get(sample, -1) >= 0 else 0,
                )  # fmt: skip
    for name, expected in zip(
        ("drawn", "missed", "expected", "variance", "blocks", "unseen", "unseen_right",
         "watched", "never_right", "forgotten", "forgotten_expected"), slow, strict=True,
    ):  # fmt: skip
        counts = fast.half_variance.sum(axis=0) if name == "variance" else getattr(fast, name)
        np.testing.assert_allclose(counts, expected, atol=1e-9, err_msg=name)
    told = [one.probes[~one.probes["verdict"].isin(UNINFORMATIVE)] for one in load(noisy)]
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
    assert auroc(found.forgetting, planted) > 0.9


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
    assert table.startswith("digits, labels corrupted 0.05, seed 0: ")
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
    assert "no point has this key" in cli("masks", noisy, "--by", "model.nosuch", check=2).stderr
    assert "cannot be written" in cli("masks", noisy, "-o", tmp_path, check=2).stderr


def test_the_memory_of_scores_does_not_grow_with_the_trainings() -> None:
    n, rng = 100_000, np.random.default_rng(0)
    rows = rng.integers(0, 256, (4, n // 8), dtype=np.uint8)
    masks = Masks(
        n_total=n, n=np.full(4, n // 2), subset=rows, fit=rows & 0xF7,
        outside=np.zeros_like(rows), outside_fit=np.zeros_like(rows),
    )  # fmt: skip
    scores = SampleScores(name={"data": "x", "labels": ""}, n_total=n)
    sizes = []
    for _ in range(4):
        scores.add(masks, [True] * 4)
        sizes.append(len(pickle.dumps(scores)))
    assert sizes[1] == pytest.approx(sizes[-1], rel=0.01)
    assert sizes[-1] < 200 * n


def made_up(hard: np.ndarray, rng: np.random.Generator, name: str, trainings: int) -> SampleScores:
    """Scores after training runs of half of the samples; hard ones are missed more often."""
    size = len(hard)
    scores = SampleScores(name={"data": "x", "labels": "", "k": name}, n_total=size)
    for _ in range(trainings):
        drawn = rng.random(size) < 0.5
        missed = drawn & (rng.random(size) < 1 / (1 + np.exp(2 - hard)))
        rows = [np.packbits(mask)[None] for mask in (drawn, drawn & ~missed)]
        none = np.zeros_like(rows[0])
        masks = Masks(
            n_total=size, n=np.array([drawn.sum()]), subset=rows[0], fit=rows[1], outside=none,
            outside_fit=none,
        )  # fmt: skip
        scores.add(masks, [True])
    return scores


@pytest.mark.parametrize("shared", [1.0, 0.5, 0.0])
def test_agreement_is_that_without_the_noise_of_few_trainings(shared: float) -> None:
    rng = np.random.default_rng(int(10 * shared))
    first, other = rng.normal(size=(2, 3000))
    second = shared * first + np.sqrt(1 - shared**2) * other
    groups = [made_up(hard, rng, name, 30) for hard, name in ((first, "a"), (second, "b"))]
    (found,) = agreements(groups)
    assert (found.first, found.second) == ("k a", "k b")
    assert min(found.reliability) < 0.85
    assert found.corrected == pytest.approx(shared, abs=0.08)
    assert abs(found.correlation) <= abs(found.corrected) + 0.02
    few = [made_up(np.zeros(300), rng, name, 6) for name in "ab"]
    assert agreements(few)[0].corrected is None


@pytest.mark.sweeps
def test_the_report_shows_hard_and_easy_samples(noisy: Path, cli: Cli, tmp_path: Path) -> None:
    cli("report", noisy, "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    section = page[page.index("<h2>Samples</h2>") :]
    (expected,) = scores(noisy)
    shown = [int(number) for number in re.findall(r'alt="sample (\d+), class \d"', section)]
    assert shown == [*expected.hardest(10), *expected.easiest(10)]
    point = load(noisy)[0].status.point
    samples = load_samples(point.data, point.seed)
    planted = samples.labels != samples.dataset.labels
    told = re.findall(r"(\d+)<br>class \d<br>trained as (\d)<br>", section)
    assert {int(sample): int(label) for sample, label in told} == {
        sample: samples.labels[sample] for sample in shown if planted[sample]
    }
    assert len(told) > 5
    assert not expected.missed[shown[10:]].any()
    assert "missed 0 of" in section
    counts = re.findall(
        r"<tr><td class=\"text\">(\d)</td><td>([\d,]+)</td>\n<td>([\d,]+)</td>", section
    )
    assert sum(int(one[1].replace(",", "")) for one in counts) == expected.drawn.sum()
    assert sum(int(one[2].replace(",", "")) for one in counts) == expected.missed.sum()
    assert "requires --by" in cli("masks", noisy, "--agreement", check=2).stderr
    table = cli("masks", noisy, "--agreement", "--by", "model.activation").stdout
    assert "activation relu" in table
    assert "activation tanh" in table


def test_pictures_download_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEXHPC_DATA", raising=False)
    (point,) = points_of(
        tmp_path, "fixed:\n  data: {source: cifar10}\n  model: {family: mlp, width: 4, depth: 1}\n"
    )
    tried: list[str] = []

    def download(source: str, root: Path) -> str:
        tried.append(source)
        return "no"

    monkeypatch.setattr(places, "_download", download)
    missing = SampleScores(name={"data": "cifar10", "labels": ""}, n_total=50_000, point=point)
    missing.half_missed[0, 3] = 1
    assert view_of(missing) is None
    assert tried == []
    with pytest.raises(PointError, match="was not found"):
        open_source(point.data, 0)
    assert tried == ["cifar10"]


@pytest.mark.parametrize(
    ("keys", "labels", "own"),
    [
        ("", "cat dog", True),
        (", labels: random", "cat dog", True),
        (", labels: random, classes: 5", "cat dog", False),
        (", class_map: [1, 0]", "cat dog", False),
        (", labels: random, classes: 8", "3 7", False),
    ],
)
def test_pictures_call_classes_by_name(tmp_path: Path, keys: str, labels: str, own: bool) -> None:
    """Not where the labels are of other classes than the data set's."""
    images = np.random.default_rng(0).integers(0, 255, (60, 1, 6, 6), dtype=np.uint8)
    names = labels.split()
    np.savez(tmp_path / "pets.npz", x=images, y=np.array(names)[np.arange(60) % 2])
    (point,) = points_of(
        tmp_path,
        f"fixed:\n  data: {{source: arrays, path: {tmp_path}/pets.npz{keys}}}\n"
        "  model: {family: mlp, width: 4, depth: 1}\n",
    )
    scores = SampleScores(name={"data": "arrays", "labels": ""}, n_total=60, point=point)
    scores.half_missed[:] = 1
    scores.half_variance[:] = 1
    scores.drawn[:] = 4
    shown = view_of(scores)
    pictures = shown.hardest
    assert all(one.label == names[one.sample % 2] for one in pictures)
    given = load_samples(point.data, point.seed).labels
    for one in pictures:
        label = given[one.sample]
        if own:
            assert one.trained == (None if label == one.sample % 2 else names[label])
        else:
            assert one.trained == str(label), "said also where the numbers are the same"
    assert [label for label, *_ in shown.classes] == names
