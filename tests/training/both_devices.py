"""Training runs on the CPU and on the stand-in device, in the process of test_stand_in_device.py.

Importing this module registers the device; see tests/stand_in_device.py.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

import flexhpc
from flexhpc.cli.doctor import _check_gpu
from flexhpc.config import Point, load_points
from flexhpc.data import load_samples
from flexhpc.errors import Interrupted
from flexhpc.measuring import probe
from flexhpc.measuring.point import measure
from flexhpc.measuring.probe import choose_device, run_training
from flexhpc.search import Probe
from flexhpc.store import RunFolder, read_masks, read_point_file
from flexhpc.training import Callbacks, Group, Outcome, manual_backprop
from tests.stand_in_device import available

Values = dict[str, Any]


def prepare() -> None:
    """Use one thread, and turn warnings into errors, in this process only."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # Parameters on the stand-in device are of a subclass, which manual_backprop would reject.
    manual_backprop._is_plain_weight = lambda weight: isinstance(weight, nn.Parameter)  # type: ignore[assignment]


@contextlib.contextmanager
def device_of_type(device_type: str) -> Iterator[torch.device]:
    """Choose a device as a worker does; check that it is of the expected type."""
    with available() if device_type == "standin" else contextlib.nullcontext():
        device = choose_device(threads=1)
        assert device.type == device_type
        yield device


def point_of(spec: str) -> Point:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text(spec)
        (point,) = load_points(path)[1]
    return point


def train(
    spec: str, n: int, device_type: str, *, checkpoint: Path | None = None,
    stop_at: int | None = None, resumed: bool = False, resident_bytes: int | None = None,
) -> Outcome | None:  # fmt: skip
    """Train the only point of a spec; return None if the training run is interrupted.

    Args:
        spec: the text of the spec; n: number of samples; device_type: "cpu" or "standin".
        checkpoint: the file; stop_at: the update after which the run is interrupted.
        resumed: whether it must be resumed from the checkpoint.
        resident_bytes: size from which inputs stay uint8 on the device; None for the default.
    """
    point = point_of(spec)
    updates = 0

    def should_stop() -> bool:
        nonlocal updates
        updates += 1
        return updates == stop_at

    callbacks = Callbacks(should_stop=should_stop, checkpoint=checkpoint, forgetting=True)
    samples = load_samples(point.data, point.seed)
    max_float_bytes = probe._MAX_FLOAT_BYTES if resident_bytes is None else resident_bytes
    with (
        mock.patch.object(probe, "_MAX_FLOAT_BYTES", max_float_bytes),
        device_of_type(device_type) as device,
        contextlib.suppress(Interrupted),
    ):
        outcome = run_training(point, samples, Probe(n, 0), Group(device), callbacks)[0]
        assert (updates != outcome.steps) == resumed
        return outcome
    return None


def measure_point(spec: str, folder: Path, device_type: str) -> Values:
    """Measure the only point of a spec; return its results."""
    point, run = point_of(spec), RunFolder(folder)
    run.path.mkdir()
    with device_of_type(device_type) as device:
        estimate = measure(point, run, Group(device), Callbacks())
    record, masks = read_point_file(run.point_file(point.id)), read_masks(run.point_file(point.id))
    evaluation = {k: v for k, v in (record.evaluation or {}).items() if k != "seconds"}
    return {
        "estimate": asdict(estimate),
        "devices": {probe.machine["device"] for probe in record.probes},
        "verdicts": [probe.verdict for probe in record.probes],
        "metrics": [dict(probe.metrics) for probe in record.probes],
        "evaluation": evaluation,
        "fitted": masks.fitted(),
        "unseen": masks.correct_outside_subset(),
        "forgotten": masks.forgotten,
    }


def gpu_check(device_type: str) -> str:
    with device_of_type(device_type):
        return _check_gpu()[1]


def trainer(inputs: np.ndarray, labels: np.ndarray, model: nn.Module) -> torch.Tensor:
    """Custom trainer that trains on the accelerator and returns predictions on this device."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model.to(device)
    images, targets = torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=True)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    return model(images).argmax(dim=1)


def network(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, classes))


def measure_custom(custom: str, device_type: str) -> Values:
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 9, (120, 8, 8), dtype=np.uint8), rng.integers(0, 3, 120))
    adam = {"optimizer": "adam", "lr": 1e-2, "epochs": 20, "precision": "fp64"}
    model: Any = network if custom == "model" else {"family": "linear"}
    training: Values = adam if custom == "model" else {"trainer": trainer}
    search = {"policy": "bisection", "start": 8, "tolerance": 0.3}
    with device_of_type(device_type):
        result = flexhpc.measure(model, data, training=training, search=search)
        return {
            "emc": result.emc, "verdicts": result.probes["verdict"].tolist(),
            "fitted": result.masks.fitted(), "params": result.params,
        }  # fmt: skip
