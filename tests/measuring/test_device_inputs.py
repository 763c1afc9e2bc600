"""Images kept as uint8 on the device train bitwise like float32 images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flexhpc.config import Point
from flexhpc.data import load_samples
from flexhpc.measuring import probe
from flexhpc.measuring.probe import run_training
from flexhpc.search import Probe
from flexhpc.training import Callbacks, Outcome
from flexhpc.training.device_inputs import DeviceInputs
from tests.measuring.helpers import CPU, load_point
from tests.training.helpers import assert_outcomes_equal

MLP, CNN = "{family: mlp, width: 16, depth: 2}", "{family: cnn, width: 4, depth: 2}"
ADAM = "optimizer: adam, lr: 1e-2, batch_size: 32, epochs: 12"
CASES = {
    "manual backprop": (MLP, "", ADAM),
    "convolutions": (CNN, "", ADAM),
    "autograd, batch norm": ("{family: cnn, width: 4, depth: 2, norm: batch}", "", ADAM),
    "full batch": (MLP, "", "optimizer: gd, lr: 0.1, epochs: 12"),
    "fp64": (MLP, "", f"{ADAM}, precision: fp64"),
    "bf16, SAM": (MLP, "", f"{ADAM}, precision: bf16, sam: {{rho: 0.05}}"),
    "shards, evaluation curves": (CNN, "", f"{ADAM}, shards: 3, curves: evaluation"),
    "gates": (
        MLP, "", f"{ADAM}, gates: {{gradient: {{mode: report}}, curvature: {{mode: report}}}}",
    ),
    "standardise: pixel": (CNN, "standardise: pixel", ADAM),
    "standardise: set": (MLP, "standardise: set", ADAM),
    "standardise: none, resized": (CNN, "standardise: none, side: 10, colour: rgb", ADAM),
    "gaussian": (MLP, "inputs: gaussian", ADAM),
    "permuted": (MLP, "inputs: permuted", ADAM),
    "permuted_each": (MLP, "inputs: permuted_each", ADAM),
}  # fmt: skip
"""Model, keys of ``data`` and training. Generated and permuted inputs remain float32."""


def trained(point: Point, n: int) -> Outcome:
    samples = load_samples(point.data, point.seed)
    return run_training(point, samples, Probe(n, 0), CPU, Callbacks())[0]


@pytest.mark.parametrize("case", CASES)
def test_uint8_inputs_train_bitwise_like_float32(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, training = CASES[case]
    point = load_point(
        tmp_path,
        f"name: s\nfixed:\n  data: {{source: digits, labels: random, {data}}}\n  model: {model}\n"
        f"  training: {{{training}}}\n",
    )
    batch = DeviceInputs.batch
    is_bytes: list[bool] = []

    def recorded(self: DeviceInputs, ids: torch.Tensor) -> torch.Tensor:
        is_bytes.append(self.is_uint8)
        return batch(self, ids)

    monkeypatch.setattr(DeviceInputs, "batch", recorded)
    floats = trained(point, 150)
    assert not any(is_bytes)
    is_bytes.clear()
    monkeypatch.setattr(probe, "_MAX_FLOAT_BYTES", 150 * 64 * 4 - 1)
    assert_outcomes_equal(floats, trained(point, 150))
    assert set(is_bytes) == {"inputs:" not in data}
