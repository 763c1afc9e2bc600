"""Time a few updates of each training procedure of a sweep, to estimate the time of the sweep."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from functools import partial

import torch

from flexhpc.config import Point, Training
from flexhpc.config.checks import preprocessed_info
from flexhpc.config.sections.gates import GradientGate, StabilityGate
from flexhpc.config.sections.model import Network
from flexhpc.data import Samples, load_samples
from flexhpc.errors import Interrupted
from flexhpc.measuring.probe import check_labels_match_model, choose_device
from flexhpc.models import build
from flexhpc.training import Callbacks, ProbeData, train
from flexhpc.training.budget import epoch_batch_sizes
from flexhpc.training.outcome import ModelFactory

_MIN_SECONDS = 0.5
_BATCHES, _FULL_BATCH = 4, 1024


def time_updates(points: Iterable[Point], threads: int) -> dict[str, float]:
    """Return the training time per sample pass (seconds) on this machine, by point id.

    Each network is trained for one update that is not timed, and then for at least one update and
    0.5 s, on random inputs with random labels. If the shape of the data is not known, its first
    samples are used. Points with a custom trainer are omitted.

    Raises:
        PointError: the data cannot be read, or the network cannot be built.
    """
    device = choose_device(threads)
    times: dict[object, float] = {}
    by_point: dict[str, float] = {}
    for point in points:
        model, training = point.at_arm(0).model, point.at_arm(0).training
        if not isinstance(training, Training) or not isinstance(model, Network):
            continue
        info = preprocessed_info(point.data)
        data_key = info or point.data.model_dump_json()
        key = (data_key, model.model_dump_json(), training.model_dump_json())
        if key not in times:
            batch = getattr(training, "batch_size", None) or _FULL_BATCH
            if info is not None:
                shape, classes, n = info.shape, info.classes, min(info.size, _BATCHES * batch)
                data = _random_data(n, shape, classes, device, tokens=bool(point.data.has_tokens))
            else:
                samples = load_samples(point.data, point.seed)
                check_labels_match_model(point, samples)
                shape, classes = samples.shape, samples.classes
                data = _first_samples(samples, _BATCHES * batch, device)
            make_model = partial(build, model, shape, classes)
            times[key] = _time_training(training.at_stage(0), make_model, data)
        by_point[point.id] = times[key]
    return by_point


def _random_data(
    n: int, shape: tuple[int, ...], classes: int, device: torch.device, *, tokens: bool
) -> ProbeData:
    """Return n random samples with random labels."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n, *shape) if tokens else (n,), generator=random)
    inputs = labels if tokens else torch.randn(n, *shape, generator=random)
    return ProbeData(
        inputs=inputs.float().to(device), labels=labels.to(device), init_seed=0, order_seed=0
    )


def _first_samples(samples: Samples, n: int, device: torch.device) -> ProbeData:
    ids, labels = samples.pool[:n], samples.source.token_labels
    labels = (samples.labels if labels is None else labels)[ids]
    return ProbeData(
        inputs=torch.from_numpy(samples.select_inputs(ids)).to(device),
        labels=torch.from_numpy(labels).to(device), init_seed=0, order_seed=0,
    )  # fmt: skip


def _time_training(training: Training, make_model: ModelFactory, data: ProbeData) -> float:
    """Return the seconds per sample pass, without the first update.

    Gates that evaluate the network before the first update are off, because this evaluation takes
    longer than a few updates of a large network.
    """
    off = {"gradient": GradientGate(mode="off"), "stability": StabilityGate(mode="off")}
    training = training.model_copy(update={"gates": training.gates.model_copy(update=off)})
    times = [time.monotonic()]

    def should_stop() -> bool:
        times.append(time.monotonic())
        return times[-1] - times[1] >= _MIN_SECONDS

    with contextlib.suppress(Interrupted):
        train(training, make_model, data, Callbacks(should_stop=should_stop))
    if len(times) > 2:
        del times[0]  # the first interval includes building the network
    n = len(data.labels)
    passes = n / len(epoch_batch_sizes(training, n)) * training.gradients_per_sample
    return (times[-1] - times[0]) / (len(times) - 1) / passes
