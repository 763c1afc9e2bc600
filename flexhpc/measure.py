"""One point from start to finish: the only place where search, training and store meet."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from flexhpc.data import Samples, draw_subset, load_samples
from flexhpc.errors import Interrupted, PointError
from flexhpc.models import build, count_parameters
from flexhpc.search import Estimate, advance, history_of
from flexhpc.seeds import ProbeSeeds
from flexhpc.spec import Point
from flexhpc.store import Header, ProbeRecord, RunFolder, append, create, finish, read
from flexhpc.training import Group, Hooks, ProbeData, train
from flexhpc.versions import image, packages, source


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What the outside may say to a measurement, and hear from it.

    Attributes:
        stopping: True asks it to save its state and stop.
        holds: whether this process may still write the point.
        progress: called with the state of the probe in hand.
        checkpoint_every: seconds between checkpoints.
    """

    stopping: Callable[[], bool] = lambda: False
    holds: Callable[[], bool] = lambda: True
    progress: Callable[[dict[str, Any]], None] = lambda _: None
    checkpoint_every: float = 60.0


def measure(point: Point, run: RunFolder, group: Group, watch: Watch) -> Estimate:
    """Measure a point, going on from whatever its file holds already.

    In a group of processes only rank 0 calls this; the others :func:`assist`.

    Raises:
        PointError: the data, the model or the point's file does not allow it.
        Interrupted: asked to stop; every finished probe is stored, the one in hand is saved.
        PeerLost: another process of the group is gone.
    """
    samples = load_samples(point.data, point.seed)
    path = run.point(point.id)
    header = _header(point, samples)
    record = read(path)
    if record is None:
        create(path, header)
    elif record.header.data_fingerprint != header.data_fingerprint:
        raise PointError(
            f"{path}: was measured on other data (fingerprint {record.header.data_fingerprint}, "
            f"now {header.data_fingerprint}); give the sweep another name, or data.name"
        )
    elif record.header.params != header.params:
        raise PointError(
            f"{path}: was measured with {record.header.params} parameters, now the network has "
            f"{header.params}; another version of timm? Give the sweep another name"
        )
    history = history_of(record.probes) if record else []
    while True:
        step = advance(point.search, samples.n_limit, history)
        if isinstance(step, Estimate):
            _still_ours(watch)
            finish(path, asdict(step), permitted=watch.holds)
            run.checkpoint(point.id).unlink(missing_ok=True)
            return step
        for n, repeat in step.probes:
            group.told(_Order(point.id, n, repeat))
            probe = run_probe(point, samples, n, repeat, run, group, watch)
            _still_ours(watch)
            append(path, probe, permitted=watch.holds)
            history += history_of([probe])


@dataclass(frozen=True)
class _Order:
    """What rank 0 tells the others to train with it."""

    point_id: str
    n: int
    repeat: int


def assist(points: Mapping[str, Point], group: Group, stopping: Callable[[], bool]) -> None:
    """Train along with the rank 0 that measures, until it calls :func:`dismiss`.

    Raises:
        PeerLost: another process of the group is gone.
        Exception: whatever went wrong in this process alone; it must end, and with it the others.
    """
    loaded: dict[str, Samples] = {}
    while (order := group.told(None)) is not None:
        point = points[order.point_id]
        if order.point_id not in loaded:
            loaded = {order.point_id: load_samples(point.data, point.seed)}
        with contextlib.suppress(Interrupted, PointError):  # rank 0 meets the same, and says so
            watch = Watch(stopping=stopping)
            run_probe(point, loaded[order.point_id], order.n, order.repeat, None, group, watch)


def dismiss(group: Group) -> None:
    """End the others' :func:`assist`."""
    group.told(None)


def run_probe(
    point: Point,
    samples: Samples,
    n: int,
    repeat: int,
    run: RunFolder | None,
    group: Group,
    watch: Watch,
) -> ProbeRecord:
    """Run one probe of a point: the training number ``repeat`` from scratch at ``n`` samples.

    Args:
        point: what to train and how.
        samples: the point's data.
        n: size of the subset.
        repeat: which of the trainings at this n.
        run: where its checkpoint lives; None for no checkpoint.
        group: the processes that train it; each calls this.
        watch: the outside.
    """
    seeds = ProbeSeeds.of(point.seed, n, repeat, nested=point.data.subset == "nested")
    subset = draw_subset(samples.pool, n, seeds.subset)
    data = ProbeData(
        inputs=torch.from_numpy(samples.standardised(subset)).to(group.device),
        labels=torch.from_numpy(samples.labels[subset]).to(group.device),
        init_seed=seeds.init,
        order_seed=seeds.order,
    )
    started = time.monotonic()

    def epoch_done(epoch: int, epochs: int, errors: int, loss: float) -> None:
        watch.progress(
            {
                "n": n,
                "repeat": repeat,
                "epoch": epoch,
                "epochs": epochs,
                "n_errors": errors,
                "loss": loss,
                "elapsed": time.monotonic() - started,
            }
        )

    hooks = Hooks(
        stopping=watch.stopping,
        epoch_done=epoch_done,
        holds=watch.holds,
        checkpoint=run.checkpoint(point.id) if run else None,
        checkpoint_every=watch.checkpoint_every,
        key=f"{point.id} n={n} repeat={repeat}",
    )
    make_model = partial(build, point.model, samples.dataset.shape, samples.dataset.classes)
    (outcome,) = train(point.training, make_model, [data], hooks, group)
    return ProbeRecord(
        n=n,
        repeat=repeat,
        seeds=asdict(seeds),
        verdict=outcome.verdict,
        n_errors=outcome.n_errors,
        train_accuracy=1 - outcome.n_errors / n,
        loss=outcome.loss,
        epochs=outcome.epochs,
        steps=outcome.steps,
        cost=outcome.cost,
        seconds=outcome.seconds,
        finished=time.time(),
        readings=outcome.readings,
        machine=machine(group),
        subset=subset,
        fitted=outcome.fitted,
        loss_curve=outcome.loss_curve,
        error_curve=outcome.error_curve,
    )


def choose_device(threads: int, local_rank: int = 0) -> torch.device:
    """Return the GPU that is visible, else the CPU; call it before anything runs on either.

    Args:
        threads: for work on the CPU.
        local_rank: number of this process on its node: each takes a visible GPU in turn.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, on every card
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def machine(group: Group) -> dict[str, str]:
    """Return where a probe ran, with what, and in which image: no part of its identity."""
    device = group.device
    cuda = device.type == "cuda"
    return {
        "host": platform.node(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "processes": str(group.size),
        "python": platform.python_version(),
        **{name: version for name, version in packages().items() if version is not None},
        "torch": str(torch.__version__),
        "source": source(),
        **({"image": inside} if (inside := image()) is not None else {}),
    }


def parameters(point: Point, samples: Samples) -> int:
    """Return the exact number of trainable parameters of a point's network."""
    return count_parameters(point.model, samples.dataset.shape, samples.dataset.classes)


def _header(point: Point, samples: Samples) -> Header:
    return Header(
        point=point.canonical,
        point_id=point.id,
        params=parameters(point, samples),
        data_fingerprint=samples.fingerprint,
        n_total=len(samples.dataset),
        n_limit=samples.n_limit,
        conflicts=samples.conflicts,
        unfittable=samples.unfittable,
    )


def _still_ours(watch: Watch) -> None:
    if not watch.holds():
        raise Interrupted("another process took this point over; nothing was written")
