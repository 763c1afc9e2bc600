"""Sequences: every token is predicted from the previous tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from flexhpc.analysis.information import max_token_information
from flexhpc.config import load_points
from flexhpc.data import load_samples
from flexhpc.errors import InputError
from flexhpc.measuring.probe import run_training
from flexhpc.models import build, count_parameters
from flexhpc.search import Probe
from flexhpc.store import RunFolder, read_point_file
from flexhpc.training import Group
from flexhpc.training.losses import IGNORED, cross_entropy, has_finite_logits, missed_samples
from tests.conftest import Cli
from tests.training.helpers import CPU, collect_models

SPEC = """\
name: tokens
fixed:
  data: {source: random_tokens, vocabulary: 8, length: 6, prompt: 3, size: 60}
  model: {family: gpt, width: 16, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 16, epochs: 200}
  search: {policy: bisection, start: 8, tolerance: 0.5}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    path.write_text(SPEC)
    return path


def test_loss_and_errors_are_those_of_all_tokens() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 8, 6), torch.randint(8, (5, 6))
    pairs = zip(logits, labels, strict=True)
    expected = torch.stack([functional.cross_entropy(x.T, y) for x, y in pairs])
    assert cross_entropy(logits, labels, reduction="mean") == pytest.approx(expected.mean())
    assert cross_entropy(logits, labels, reduction="sum") == pytest.approx(expected.sum())
    logits = functional.one_hot(labels, 8).float().transpose(1, 2)
    logits[1, :, 2] = 0
    logits[1, (labels[1, 2] + 1) % 8, 2] = 1
    assert missed_samples(logits, labels, prompt=2).tolist() == [False, True, False, False, False]
    assert not missed_samples(logits, labels, prompt=3).any()
    logits[4, 0, 0] = math.nan
    assert has_finite_logits(logits).tolist() == [True] * 4 + [False]


def test_only_values_contribute_to_the_loss_of_facts() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 8, 6), torch.randint(8, (5, 6))
    expected = cross_entropy(logits[:, :, 4:], labels[:, 4:], reduction="mean")
    labels[:, :4] = IGNORED
    assert cross_entropy(logits, labels, reduction="mean") == pytest.approx(expected)
    assert cross_entropy(logits, labels, reduction="sum") == pytest.approx(5 * expected)
    labels[0, 4] = IGNORED  # the loss of a sequence is the mean over its tokens
    parts = [cross_entropy(logits[i : i + 1], labels[i : i + 1], reduction="sum") for i in range(5)]
    assert cross_entropy(logits, labels, reduction="sum") == pytest.approx(sum(parts))
    assert cross_entropy(logits, labels, reduction="mean") == pytest.approx(sum(parts) / 5)


def test_facts_have_distinct_keys_and_are_scored_by_their_values(spec: Path) -> None:
    text = "{source: key_value, vocabulary: 8, key_length: 2, value_length: 3, size: 32}"
    (point,) = load_points(spec, [f"data={text}"])[1]
    samples = load_samples(point.data, point.seed)
    tokens = samples.inputs.rows
    assert tokens.shape == (32, 5)
    assert len({tuple(row) for row in tokens[:, :2]}) == 32
    assert {*tokens.flatten()} == set(range(8))
    networks: list[torch.nn.Module] = []
    outcome, subset, _ = run_training(
        point, samples, Probe(12, 0), Group(CPU), collect_models(networks)
    )
    assert outcome.verdict == "fit"
    facts = torch.from_numpy(tokens[subset])
    with torch.no_grad():
        logits = networks[0](facts)
    assert (logits.argmax(dim=1)[:, 2:] == facts[:, 2:]).all()
    loss = functional.cross_entropy(logits[:, :, 2:], facts[:, 2:].long())
    assert outcome.loss == pytest.approx(float(loss), rel=1e-4)


def test_predictions_do_not_depend_on_later_tokens(spec: Path) -> None:
    (point,) = load_points(spec)[1]
    torch.manual_seed(1)
    network = build(point.model, (6,), 8).eval()
    tokens = torch.randint(8, (3, 6)).float()
    original = network(tokens)
    assert original.shape == (3, 8, 6)
    for position in range(6):
        changed = tokens.clone()
        changed[:, position:] = (changed[:, position:] + 1) % 8
        logits = network(changed)
        torch.testing.assert_close(logits[:, :, : position + 1], original[:, :, : position + 1])
        if position < 5:
            assert not torch.allclose(logits[:, :, position + 1], original[:, :, position + 1])


def test_the_number_of_parameters_equals_its_formula(spec: Path) -> None:
    (point,) = load_points(spec)[1]
    block = (3 * 16 * 16 + 3 * 16) + (16 * 16 + 16) + 2 * 64 * 16 + 64 + 16 + 4 * 16
    assert (
        count_parameters(point.model, (6,), 8).trained == 9 * 16 + 6 * 16 + block + 32 + 16 * 8 + 8
    )


@pytest.mark.parametrize("changes", [[], ["training.shards=3"]], ids=["plain", "shards"])
def test_fitted_sequences_are_correct(spec: Path, changes: list[str]) -> None:
    (point,) = load_points(spec, changes)[1]
    samples = load_samples(point.data, point.seed)
    assert samples.inputs.rows.shape == (60, 6)
    networks: list[torch.nn.Module] = []
    outcome, subset, _ = run_training(
        point, samples, Probe(12, 0), Group(CPU), collect_models(networks)
    )
    assert outcome.verdict == "fit"
    tokens = torch.from_numpy(samples.inputs.rows[subset])
    (network,) = networks
    with torch.no_grad():
        logits = network(tokens)
    assert (logits.argmax(dim=1)[:, 3:] == tokens[:, 3:]).all()
    assert outcome.loss == pytest.approx(
        float(functional.cross_entropy(logits, tokens.long())), rel=1e-5
    )
    assert outcome.loss > 3 / 6 * math.log(12) / 6, "the prompt is unpredictable"


@pytest.mark.sweeps
def test_bits_per_parameter_come_from_the_loss(spec: Path, cli: Cli, profile: Path) -> None:
    cli("sweep", spec, "--profile", profile)
    (row,) = json.loads(cli("results", "runs/tokens", "--format", "json").stdout)
    (point,) = load_points(spec)[1]
    record = read_point_file(RunFolder(spec.parent / "runs" / "tokens").point_file(point.id))
    assert row["emc"] >= 4
    bits = [p.n * 6 * (3 - p.loss / math.log(2)) for p in record.probes]
    assert 0 < row["bits_per_param"] * row["params"] <= max(bits) + 1e-6
    assert row["bits_per_param"] * row["params"] >= 0.8 * max(bits)
    exact = [type(record.probes[0])(**{**vars(record.probes[0]), "n": 10, "loss": 0.0})]
    assert max_token_information(exact, 6, 8).mean == pytest.approx(10 * 6 * 3)
    assert max_token_information([], 6, 8) is None


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "labels": ("data.labels=random", "labels: has no effect with source: random_tokens"),
        "prompt": ("data.prompt=6", r"prompt: must be below length \(6\), not 6"),
        "mlp": ("model={family: mlp, width: 4}", "contains sequences of tokens; use gpt"),
        "digits": ("data={source: digits}", "gpt predicts tokens, but digits has one label per"),
        "facts": (
            "data={source: key_value, vocabulary: 4, key_length: 2, size: 9}",
            "size: 9 distinct keys need more tokens",
        ),
        "heads": ("model.heads=3", r"16 is not a multiple of heads \(3\)"),
        "unseen": ("record.unseen=5", "unseen: has no effect with random tokens"),
        "scaling": ("model={family: gpt, width: 8, scaling: compound, scale: 1}", "resizes images"),
    }.values(),
)
def test_invalid_combinations_of_keys_are_rejected(change: str, message: str, spec: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_points(spec, [change])


def test_seeds_draw_different_tokens(spec: Path) -> None:
    first, second = [
        load_samples(point.data, point.seed).inputs.rows
        for point in load_points(spec, ["seed=[0, 1]"])[1]
    ]
    assert set(np.unique(first)) == set(range(8))
    assert not np.array_equal(first, second)
