"""Training runs on the stand-in device agree with those on the CPU.

A separate process, which registers the device, runs them (tests/stand_in_device.py).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexhpc.config.sections.base import Section
from flexhpc.training import Outcome
from tests import sections
from tests.barrier import TIMEOUT
from tests.training.helpers import assert_outcomes_close, assert_outcomes_equal

DEVICE_TYPES = ("cpu", "standin")
MLP = "family: mlp, width: 16, depth: 2, activation: tanh"
CNN = "family: cnn, width: 4, depth: 2"
VIT = "family: vit, width: 12, depth: 1, heads: 3"
TIMM = (
    '"timm:vit_tiny_patch16_224", kwargs: '
    "{img_size: 8, patch_size: 4, embed_dim: 8, depth: 1, num_heads: 2, drop_rate: %s}"
)
DROPOUT = f"family: {TIMM % 0.5}"
ADAM = "optimizer: adam, lr: 1e-2"
SHORT = "batch_size: 32, epochs: 6"
TRAINED = f"{ADAM}, {SHORT}"
DIGITS = "source: digits, labels: random"
TOKENS = "source: random_tokens, vocabulary: 8, length: 6, prompt: 3, size: 60"
TOLERANCE = {"fp64": 1e-6, "fp32": 1e-3, "bf16": 1e-2}
"""Relative tolerance of losses and metrics. The CPU uses different memory formats for convolutions
in fp32, and different kernels for attention."""


@dataclass(frozen=True)
class Case:
    """A training run; the strings are sections of a spec."""

    model: str = MLP
    training: str = TRAINED
    data: str = DIGITS
    precision: str = "fp64"
    n: int = 60
    resident_bytes: int | None = None
    verdict: str | None = None  # expected; None for any

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.precision]

    @property
    def spec(self) -> str:
        training = f"{self.training}, precision: {self.precision}"
        return (
            f"name: s\nfixed:\n  data: {{{self.data}}}\n  model: {{{self.model}}}\n"
            f"  training: {{{training}}}\n"
        )


def keys_of(section: Section) -> str:
    """Return the keys of a section that are set, as text of a spec."""
    return section.model_dump_json(exclude_unset=True)[1:-1]


FAMILIES = {
    name: Case(
        keys_of(sections.small_network(name)), f"{ADAM}, batch_size: 32, epochs: 2",
        TOKENS if sections.small_network(name).predicts_tokens else DIGITS, n=40,
    )
    for name in sections.FAMILIES
} | {
    "mlp, BatchNorm": Case(f"{MLP}, norm: batch"),
    "mlp, mup": Case("family: mlp, width: 16, depth: 2, init: mup, base_width: 8"),
    "cnn, LayerNorm": Case(f"{CNN}, norm: layer"),
    "timm": Case(f"family: {TIMM % 0.0}"),
    "compound scaling": Case(f"{CNN}, scaling: compound, scale: 1"),
}  # fmt: skip
OPTIMIZERS = {
    name: Case(
        CNN if cls.matrices_only else MLP,
        keys_of(sections.optimizer(name, epochs=6, weight_decay=0.01)),
    )
    for name, cls in sections.OPTIMIZERS.items()
} | {
    "sam": Case(training=f"optimizer: sgd, lr: 0.05, {SHORT}, sam: {{rho: 0.05}}"),
    "sam, BatchNorm": Case(f"{CNN}, norm: batch", f"{TRAINED}, sam: {{rho: 0.05}}"),
}
REPARAMETERIZATIONS = {
    **{
        kind: Case(f"{MLP}, subspace: {{dims: 40, projection: {kind}}}")
        for kind in ("dense", "sparse", "kronecker", "fastfood")
    },
    "low rank": Case(f"{CNN}, low_rank: {{rank: 2}}"),
    "quantised": Case(f"{MLP}, quantised: {{bits: 4}}"),
}
PRECISIONS = {
    f"{name}, {precision}": Case(model, precision=precision)
    for name, model in (
        ("mlp", MLP), ("cnn", CNN), ("vit", VIT), ("subspace", f"{CNN}, subspace: {{dims: 40}}"),
    )
    for precision in ("fp32", "bf16")
}  # fmt: skip
HARD = "family: mlp, width: 4, depth: 1"
FLAT = "plateau: {patience: 1, tolerance: 0.2}"


def failing(gates: str, verdict: str | None, budget: str = "epochs: 5") -> Case:
    training = f"{ADAM}, batch_size: 64, {budget}, gates: {{{gates}}}"
    return Case(HARD, training, n=200, verdict=verdict)


GATES = {
    "plateau": failing(FLAT, "not_fit", "epochs: 20"),
    "plateau, reject": failing("plateau: reject", "unconverged"),
    "gradient": failing("gradient: reject", "unconverged"),
    "stability": Case(
        HARD, "optimizer: sgd, lr: 10.0, batch_size: 32, epochs: 10, gates: {stability: reject}",
        n=100, verdict="unstable",
    ),
    "stability, no gradient": failing("gradient: off", "unconverged"),
    "curvature": failing("curvature: {mode: reject, products: 8}", "saddle"),
    "curvature of attention": Case(
        VIT, f"{ADAM}, epochs: 1, gates: {{curvature: {{mode: report, products: 3}}}}"
    ),
    "no gates": failing("plateau: off, gradient: off, stability: off", "not_fit"),
    "until convergence": failing(FLAT, "not_fit", "until: convergence"),
}  # fmt: skip
PROCEDURES = {
    "fit": Case(training=f"{ADAM}, batch_size: 16, epochs: 80", n=30, verdict="fit"),
    "diverged": Case(
        "family: mlp, width: 16, depth: 6", f"optimizer: sgd, lr: 1e6, {SHORT}", precision="fp32",
        verdict="diverged",
    ),
    "curves by evaluation": Case(training=f"{TRAINED}, curves: evaluation", n=200),
    "label smoothing, BatchNorm": Case(f"{CNN}, norm: batch", f"{TRAINED}, label_smoothing: 0.1"),
    "clip_norm": Case(training=f"{TRAINED}, clip_norm: 0.1"),
    "warm-up and cosine": Case(training=f"{TRAINED}, warmup: 4, schedule: cosine"),
    "extension": Case(
        training=f"{ADAM}, batch_size: 32, epochs: 3, unconverged: extend, extend_to: 4"
    ),
    "tail": Case(training=f"{TRAINED}, batches: tail"),
    "shards, SAM": Case(CNN, f"{TRAINED}, shards: 3, sam: {{rho: 0.05}}"),
    "shards, curves by evaluation": Case(training=f"{TRAINED}, shards: 3, curves: evaluation"),
    "inputs as bytes": Case(CNN, resident_bytes=0),
    "inputs by pixel": Case(data=f"{DIGITS}, standardise: pixel", resident_bytes=0),
}  # fmt: skip
CASES = FAMILIES | OPTIMIZERS | REPARAMETERIZATIONS | PRECISIONS | GATES | PROCEDURES

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Call a function of tests/training/both_devices.py in the process with the device."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:

        def call_in_process(name: str, *args: object, **kwargs: object) -> Any:
            return process.submit(_call, name, args, kwargs).result(timeout=TIMEOUT)

        call_in_process("prepare")
        yield call_in_process


def _call(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
    from tests.training import both_devices  # only in the spawned process

    return getattr(both_devices, name)(*args, **kwargs)


@pytest.mark.parametrize("name", CASES)
def test_devices_agree(name: str, call: Call) -> None:
    case = CASES[name]
    cpu, device = (
        call("train", case.spec, case.n, device_type, resident_bytes=case.resident_bytes)
        for device_type in DEVICE_TYPES
    )
    assert_outcomes_close(cpu, device, case.tolerance, case.tolerance)
    assert case.verdict in (None, cpu.verdict)


RESUMED = {
    f"{name}, changed memory format": replace(OPTIMIZERS[name], model=CNN, precision="fp32")
    if cls.elementwise
    else OPTIMIZERS[name]
    for name, cls in sections.OPTIMIZERS.items()
}


def interrupt_and_resume(
    call: Call, case: Case, stopped_on: str, resumed_on: str, checkpoint: Path
) -> Outcome:
    stopped = call("train", case.spec, case.n, stopped_on, checkpoint=checkpoint, stop_at=5)
    assert stopped is None
    return call("train", case.spec, case.n, resumed_on, checkpoint=checkpoint, resumed=True)


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize(("stopped_on", "resumed_on"), [DEVICE_TYPES, DEVICE_TYPES[::-1]])
def test_a_training_run_is_resumed_on_a_different_device(
    name: str, stopped_on: str, resumed_on: str, call: Call, tmp_path: Path
) -> None:
    case = RESUMED[name]
    uninterrupted = call("train", case.spec, case.n, "cpu")
    resumed = interrupt_and_resume(call, case, stopped_on, resumed_on, tmp_path / "probe.ckpt")
    assert_outcomes_close(uninterrupted, resumed, case.tolerance, case.tolerance)


def test_dropout_uses_the_generator_of_the_device(call: Call, tmp_path: Path) -> None:
    case = Case(DROPOUT)
    cpu, uninterrupted = (call("train", case.spec, case.n, device) for device in DEVICE_TYPES)
    assert not np.array_equal(cpu.loss_curve, uninterrupted.loss_curve), "random numbers of the CPU"
    checkpoint = tmp_path / "probe.ckpt"
    resumed = interrupt_and_resume(call, case, "standin", "standin", checkpoint)
    assert_outcomes_equal(uninterrupted, resumed)
    # The CPU cannot restore the random state of the device.
    interrupt_and_resume(call, case, "standin", "cpu", checkpoint)


def test_doctor_reports_the_device(call: Call) -> None:
    assert call("gpu_check", "standin") == "Stand-in device"
    assert call("gpu_check", "cpu").startswith("no GPU")


POINT = """\
name: recorded
fixed:
  data: {source: digits, test_fraction: 0.2, n_max: 200}
  model: {family: mlp, width: 16, depth: 1}
  training:
    {optimizer: adam, lr: 1e-2, batch_size: 32, epochs: 6, precision: fp64,
     gates: {curvature: {mode: report, products: 4}}}
  search: {policy: bisection, start: 32, tolerance: 1.0}
record: {unseen: 100, forgetting: true}
evaluate: {n: 100, epochs: 3}
"""


def test_devices_agree_on_the_records_and_evaluation_of_a_point(call: Call, tmp_path: Path) -> None:
    cpu, device = (
        call("measure_point", POINT, tmp_path / device_type, device_type)
        for device_type in DEVICE_TYPES
    )
    assert device.pop("devices") == {"Stand-in device"} != cpu.pop("devices")
    assert cpu["unseen"].any()
    assert cpu["evaluation"]["n_test"] > 0
    np.testing.assert_equal(device, cpu)


@pytest.mark.parametrize("custom", ["model", "trainer"])
def test_devices_agree_on_custom_models_and_trainers(custom: str, call: Call) -> None:
    cpu, device = (call("measure_custom", custom, device_type) for device_type in DEVICE_TYPES)
    np.testing.assert_equal(device, cpu)
