"""Images that stay bytes until they are used: the bits of floats, in a quarter of the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flexhpc.config import Point, checked
from flexhpc.data import load_samples
from flexhpc.measuring import probe
from flexhpc.measuring.probe import run_training
from flexhpc.search import Probe
from flexhpc.training import Callbacks, Group, Outcome
from flexhpc.training.resident import Resident
from tests.training.helpers import same

MLP, CNN = "{family: mlp, width: 16, depth: 2}", "{family: cnn, width: 4, depth: 2}"
ADAM = "optimizer: adam, lr: 1e-2, batch_size: 32, epochs: 12"
KINDS = {
    "gradients by formulas": (MLP, "", ADAM),
    "convolutions": (CNN, "", ADAM),
    "autograd, BatchNorm": ("{family: cnn, width: 4, depth: 2, norm: batch}", "", ADAM),
    "all at once": (MLP, "", "optimizer: gd, lr: 0.1, epochs: 12"),
    "fp64": (MLP, "", f"{ADAM}, precision: fp64"),
    "bf16, SAM": (MLP, "", f"{ADAM}, precision: bf16, sam: {{rho: 0.05}}"),
    "shards, evaluated": (CNN, "", f"{ADAM}, shards: 3, curves: evaluation"),
    "gates": (
        MLP, "", f"{ADAM}, gates: {{gradient: {{mode: report}}, curvature: {{mode: report}}}}",
    ),
    "by pixel": (CNN, "standardise: pixel", ADAM),
    "of the set": (MLP, "standardise: set", ADAM),
    "not standardised, resized": (CNN, "standardise: none, side: 10, colour: rgb", ADAM),
}  # fmt: skip


def point_of(folder: Path, model: str, data: str, training: str) -> Point:
    spec = folder / "s.yaml"
    spec.write_text(
        f"name: s\nfixed:\n  data: {{source: digits, labels: random, {data}}}\n  model: {model}\n"
        f"  training: {{{training}}}\n"
    )
    (point,) = checked(spec)[1]
    return point


def trained(point: Point, n: int) -> Outcome:
    samples = load_samples(point.data, point.seed)
    return run_training(point, samples, Probe(n, 0), Group(torch.device("cpu")), Callbacks())[0]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the inputs of each training run stayed bytes."""
    seen: list[bool] = []
    batch = Resident.batch

    def watched(self: Resident, ids: torch.Tensor) -> torch.Tensor:
        seen.append(self.bytes)
        return batch(self, ids)

    monkeypatch.setattr(Resident, "batch", watched)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_train_to_the_bits_of_floats(
    kind: str, tmp_path: Path, kept: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = point_of(tmp_path, *KINDS[kind])
    floats = trained(point, 150)
    assert not any(kept)
    kept.clear()
    monkeypatch.setattr(probe, "_MOST_FLOATS", 150 * 64 * 4 - 1)
    same(floats, trained(point, 150))
    assert all(kept)


def test_inputs_that_are_made_stay_floats(
    tmp_path: Path, kept: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_MOST_FLOATS", 0)
    for inputs in ("gaussian", "permuted", "permuted_each"):
        trained(point_of(tmp_path, MLP, f"inputs: {inputs}", ADAM), 40)
    assert not any(kept)
