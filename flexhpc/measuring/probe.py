"""Train a point's model on a subset: choose subset, seeds and device; record the probe."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexhpc.config import Point
from flexhpc.config.sections.custom import CustomModel, CustomTrainer
from flexhpc.config.sections.data import Tokens
from flexhpc.config.sections.model import Network
from flexhpc.config.sections.training import Training
from flexhpc.custom.time_limit import time_limit_as_point_error
from flexhpc.custom.trainer import Budget, TrainerCall
from flexhpc.data import Samples, TestSet, draw_subset
from flexhpc.data.dataset import Ints
from flexhpc.errors import PointError
from flexhpc.measuring.trainer import UNSUPPORTED, run_trainer
from flexhpc.models import build
from flexhpc.search import Probe
from flexhpc.seeds import ProbeSeeds, derive_seed
from flexhpc.store import ProbeRecord
from flexhpc.training import Callbacks, Group, Outcome, ProbeData, train
from flexhpc.training.device_inputs import chunk_size
from flexhpc.versions import image_name, package_versions, source_hash

_MAX_FLOAT_BYTES = 2**30
"""Maximum size of a probe's float32 inputs, in bytes; larger image inputs are kept as uint8."""
_BATCH_SIZE = 512
"""Maximum number of samples of a batch for which logits are computed."""


def run_training(
    point: Point, samples: Samples, probe: Probe, group: Group, callbacks: Callbacks, *,
    key_suffix: str = "", subset_seed: int | None = None,
) -> tuple[Outcome, Ints, ProbeSeeds]:  # fmt: skip
    """Train a point's model once on a subset of its samples.

    Args:
        point: point that defines the model and the training settings.
        samples: the point's data.
        probe: ``n`` (size of the subset), ``repeat`` (index among the training runs with this n)
            and ``stage`` (number of times that the budget is doubled); its arm is ignored.
        group: process group that trains the model; every process must call this function.
        callbacks: see :class:`Callbacks`.
        key_suffix: suffix of the checkpoint key; it distinguishes training runs that have the same
            n and repeat.
        subset_seed: seed of the subset; by default the subset seed of the probe.

    Returns:
        The outcome of the training run; the global ids of the samples in the subset, int64 (n,);
        and the seeds.
    """
    n, repeat = probe.n, probe.repeat
    seeds = ProbeSeeds.derive(point.seed, n, repeat, nested=point.data.subset == "nested")
    if subset_seed is not None:
        seeds = replace(seeds, subset=subset_seed)
    subset = draw_subset(samples.pool, n, seeds.subset)
    token_labels = samples.source.token_labels
    labels = (samples.labels if token_labels is None else token_labels)[subset]
    prompt = point.data.prompt_length if isinstance(point.data, Tokens) else 0
    started = time.monotonic()

    def report_progress(state: dict[str, Any]) -> None:
        elapsed = time.monotonic() - started
        callbacks.on_progress({"n": n, "repeat": repeat, **state, "elapsed": elapsed})

    training_callbacks = replace(
        callbacks,
        on_progress=report_progress,
        key=f"{point.id} n={n} repeat={repeat}{key_suffix}",
    )
    make_model = None
    if isinstance(point.model, Network):
        check_labels_match_model(point, samples)
        make_model = partial(build, point.model, samples.shape, samples.classes)
    with time_limit_as_point_error():
        training = point.training.at_stage(probe.stage)
        if isinstance(training, CustomTrainer):
            call = TrainerCall(
                trainer=training.custom_trainer,
                seconds=training.seconds,
                inputs=samples.select_inputs(subset),
                labels=labels,
                classes=samples.classes,
                seeds=seeds,
                budget=Budget(
                    epochs=training.epochs,
                    steps=training.steps,
                    gradient_evaluations=training.gradient_evaluations,
                ),
                make_model=make_model,
            )
            return run_trainer(call, training_callbacks, group), subset, seeds
        assert isinstance(training, Training)
        assert make_model is not None
        inputs, moments = _load_inputs(samples, subset, group.device)
        data = ProbeData(
            inputs=inputs,
            moments=moments,
            labels=torch.from_numpy(labels).to(group.device),
            init_seed=seeds.init,
            order_seed=seeds.order,
            prompt=prompt,
        )
        return train(training, make_model, data, training_callbacks, group), subset, seeds


def check_labels_match_model(point: Point, samples: Samples) -> None:
    """Raise PointError if a network predicts tokens and samples have one label each, or vice versa.

    This check is needed for data sources whose labels are not known before their files are read.
    """
    model, has_token_labels = point.model, samples.source.token_labels is not None
    if has_token_labels and not model.predicts_tokens and not isinstance(model, CustomModel):
        raise PointError(
            f"model.family: {model.family} predicts one class per sample, but the samples have one "
            "label per token; use gpt, or hf:PATH with model.task: causal_lm"
        )
    if model.predicts_tokens and not has_token_labels:
        raise PointError(
            f"model.family: {model.family} predicts tokens, but each sample has one label; give "
            "labels of shape (n, length), or use another network"
        )
    if has_token_labels and point.record.unseen is not None:
        raise PointError("record.unseen: not supported with one label per token; remove it")


def _load_inputs(
    samples: Samples, subset: Ints, device: torch.device
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Load the inputs of a subset, (n, *shape), to the device.

    Returns:
        The standardised float32 inputs, and None. For uint8 images that would exceed
        ``_MAX_FLOAT_BYTES`` as float32, the unstandardised uint8 inputs, and the tuple (mean,
        standard deviation) for standardising them.
    """
    if 4 * len(subset) * math.prod(samples.shape) > _MAX_FLOAT_BYTES:
        pixels = samples.inputs.select_unstandardised(subset)
        if pixels is not None:
            rows, *moments = pixels
            mean, deviation = (torch.tensor(moment, device=device) for moment in moments)
            return torch.from_numpy(rows).to(device), (mean, deviation)
    return torch.from_numpy(samples.select_inputs(subset)).to(device), None


def run_probe(
    point: Point, samples: Samples, probe: Probe, checkpoint: Path | None, group: Group,
    callbacks: Callbacks,
) -> ProbeRecord:  # fmt: skip
    """Run one probe of a point: one training run with the tuned values of one arm.

    With ``record.unseen``, the trained network is evaluated on a random set of samples, which is
    the same for all probes of a point. The samples of the set that are not in the training subset
    are recorded, and whether they are predicted correctly.

    Args:
        point, samples, group, callbacks: as in :func:`run_training`.
        probe: n, repeat, arm and stage of the probe.
        checkpoint: path of the training checkpoint; None for no checkpoint.
    """
    doubles = point.training.doubling_settings is not None
    unseen = samples.pool[:0]
    if point.record.unseen is not None:
        count = min(point.record.unseen, len(samples.pool))
        unseen = draw_subset(samples.pool, count, derive_seed(point.seed, "unseen"))
    correct = np.zeros(len(unseen), dtype=np.bool_)

    def record_predictions(network: nn.Module) -> dict[str, float]:
        if len(unseen):
            scores = logits_of(network, samples, unseen, group.device)
            correct[:] = scores.argmax(dim=1).numpy() == samples.labels[unseen]
        return on_train_end(network)

    on_train_end = callbacks.on_train_end
    callbacks = replace(
        callbacks, on_train_end=record_predictions, checkpoint=checkpoint,
        final_state=final_state_path(checkpoint) if checkpoint and doubles else None,
        forgetting=point.record.forgetting,
    )  # fmt: skip
    outcome, subset, seeds = run_training(
        point.at_arm(probe.arm), samples, probe, group, callbacks,
        key_suffix=f" arm={probe.arm}" if len(point.arms) > 1 else "",
    )  # fmt: skip
    outside = ~np.isin(unseen, subset)
    is_custom = isinstance(point.training, CustomTrainer)
    return ProbeRecord(
        **probe._asdict(),
        tuned=dict(point.arms[probe.arm].values),
        seeds=asdict(seeds),
        train_accuracy=1 - outcome.n_errors / probe.n,
        finished=time.time(),
        machine=machine_info(group) | ({"trainer": UNSUPPORTED} if is_custom else {}),
        subset=subset,
        unseen=None if point.record.unseen is None else unseen[outside],
        unseen_fitted=None if point.record.unseen is None else correct[outside],
        **vars(outcome),
    )


def logits_of(
    network: nn.Module, samples: Samples | TestSet, ids: Ints, device: torch.device
) -> Tensor:
    """Return a network's logits for the samples with the ids ``ids``, float64 (len(ids), classes).

    The logits are on the CPU. The network is set to eval mode.
    """
    network.eval()
    dtype = next(network.parameters()).dtype
    logits = []
    with torch.no_grad():
        batch_size = chunk_size(samples.inputs.rows.shape[1:], _BATCH_SIZE)
        for batch in np.array_split(ids, -(-len(ids) // batch_size)):
            inputs = torch.from_numpy(samples.select_inputs(batch)).to(device, dtype)
            logits.append(network(inputs).double().cpu())
    return torch.cat(logits)


def final_state_path(checkpoint: Path) -> Path:
    """Return the path of the final state of a training run, next to its checkpoint.

    Training with a larger budget continues from the final state.
    """
    return checkpoint.with_suffix(".final.ckpt")


def choose_device(threads: int, local_rank: int = 0) -> torch.device:
    """Configure torch; return the device to train on: an accelerator if available, else the CPU.

    Call this function before any computation with torch, because it sets CUBLAS_WORKSPACE_CONFIG
    and the number of threads.

    Args:
        threads: number of CPU threads of torch.
        local_rank: index of this process on its node; accelerators are assigned round-robin.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
    torch.backends.cudnn.allow_tf32 = False  # use full fp32 precision on every GPU
    torch.set_num_threads(threads)
    accelerator = available_accelerator()
    if accelerator is None:
        return torch.device("cpu")
    device = torch.device(accelerator.type, local_rank % torch.accelerator.device_count())
    torch.accelerator.set_device_index(device)
    return device


def available_accelerator() -> torch.device | None:
    """Return the accelerator to train on, as a device without index; None to train on the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    # MPS does not support float64, in which losses are summed.
    return None if accelerator is None or accelerator.type == "mps" else accelerator


def device_name(accelerator: torch.device) -> str:
    """Return the product name of an accelerator, for example ``NVIDIA H100``."""
    return str(torch.get_device_module(accelerator).get_device_name(accelerator))


@cache
def cpu_name() -> str:
    """Return the model name of the CPU, or its architecture if the model name is unavailable."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, text = line.partition(":")
            if key.strip() == "model name" and text.strip():
                return text.strip()
    return platform.machine()


def machine_info(group: Group) -> dict[str, str]:
    """Return a dict of host, device, number of processes, software versions and container image.

    The dict is stored with each probe. It does not affect the id of a point.
    """
    device = group.device
    info: dict[str, str | None] = {
        "host": platform.node(),
        "device": cpu_name() if device.type == "cpu" else device_name(device),
        "processes": str(group.size),
        "python": platform.python_version(),
        **package_versions(),
        "torch": str(torch.__version__),
        "source": source_hash(),
        "image": image_name(),
    }
    return {key: value for key, value in info.items() if value is not None}
