"""One point from start to finish: the only place where search, training and store meet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from flexhpc.config import Point
from flexhpc.config.sections.model import Network
from flexhpc.config.sections.training import Training
from flexhpc.data import Samples, load_samples
from flexhpc.errors import BatchOfOne, Interrupted, NoData, PointError
from flexhpc.measuring.evaluate import evaluate, size
from flexhpc.measuring.pool import ProbePool
from flexhpc.measuring.probe import run_probe
from flexhpc.models import count_bits, count_parameters
from flexhpc.search import Ask, Estimate, Probe, ProbeResult, advance, estimate_so_far, history_of
from flexhpc.store import (
    Header,
    ProbeRecord,
    RunFolder,
    append,
    create,
    evaluated,
    finish,
    read,
)
from flexhpc.training import Callbacks, Group


def measure(
    point: Point, run: RunFolder, group: Group, callbacks: Callbacks, pool: ProbePool | None = None
) -> Estimate:
    """Measure a point, going on from whatever its file holds already.

    In a group of processes only rank 0 calls this; the others :func:`assist`.

    Args:
        point: what to measure; run: where its file is; callbacks: see :class:`Callbacks`.
        group: the processes that train a probe together.
        pool: processes that train a probe each, where the search asks for several at once.

    Raises:
        NoData: its data cannot be opened.
        PointError: the model or the point's file does not allow it.
        Interrupted: asked to stop; every finished probe is stored, those in hand are saved.
        PeerLost: another process of the group or the pool is gone.
    """
    samples = _opened(point)
    if point.evaluate is not None:
        size(point.evaluate, samples)  # a search of hours must not end in this error
    path = run.point(point.id)
    for part in run.unfinished(point.id):
        part.unlink(missing_ok=True)
    header = _header(point, samples)
    record = read(path)
    if record is None:
        _still_ours(callbacks)  # to open data may take minutes
        create(path, header)
    else:
        _check_same(path, record.header, header)
    if record is not None and record.estimate is not None:
        estimate = Estimate.of(record.estimate)
    else:
        history = history_of(record.probes, point.training) if record else []
        estimate = _search(point, samples, history, run, group, callbacks, pool)
    if point.evaluate is not None and (record is None or not record.evaluated(point.evaluation)):
        group.broadcast_object(_order(point.id, None, estimate.arm))
        saved = run.checkpoint(point.id, "evaluate")
        evaluation = evaluate(point.at(estimate.arm), samples, saved, group, callbacks)
        _still_ours(callbacks)
        evaluated(path, evaluation, permitted=callbacks.owns_claim)
    for checkpoint in run.checkpoints(point.id):
        checkpoint.unlink(missing_ok=True)
    return estimate


def _opened(point: Point) -> Samples:
    try:
        return load_samples(point.data, point.seed)
    except PointError as error:
        raise NoData(str(error)) from error


def _search(
    point: Point, samples: Samples, history: list[ProbeResult], run: RunFolder, group: Group,
    callbacks: Callbacks, pool: ProbePool | None,
) -> Estimate:  # fmt: skip
    """Run the probes that the search asks for, until it has its estimate."""
    path = run.point(point.id)

    def checkpoint(probe: Probe) -> Path:
        arm = f"-{probe.arm}" if len(point.arms) > 1 else ""
        return run.checkpoint(point.id, f"{probe.n}-{probe.repeat}{arm}")

    def done(probe: ProbeRecord) -> None:
        _still_ours(callbacks)
        append(path, probe, permitted=callbacks.owns_claim)
        checkpoint(Probe(probe.n, probe.repeat, probe.arm)).unlink(missing_ok=True)
        history.extend(history_of([probe], point.training))

    def one_by_one(step: Ask) -> None:
        impossible: BatchOfOne | None = None
        for probe in step.probes:
            group.broadcast_object(_order(point.id, probe))
            try:
                done(run_probe(point, samples, probe, checkpoint(probe), group, callbacks))
            except BatchOfOne as error:
                impossible = error
        if impossible is not None:
            raise impossible

    while True:
        step = advance(point.search, samples.n_limit, history, point.coordinates)
        if isinstance(step, Estimate):
            return _finished(step, path, callbacks)
        try:
            if pool is None or len(step.probes) == 1:
                one_by_one(step)
            else:
                pool.run(point, step.probes, checkpoint, callbacks, done)
        except BatchOfOne:
            # Nothing fitted down to 2 samples, and 1 cannot be tried: that is an answer.
            below = estimate_so_far(
                point.search, samples.n_limit, history, point.coordinates, "data"
            )
            if below is None or below.largest_fit or all(probe.n > 1 for probe in step.probes):
                raise
            return _finished(below, path, callbacks)


def _finished(estimate: Estimate, path: Path, callbacks: Callbacks) -> Estimate:
    _still_ours(callbacks)
    finish(path, asdict(estimate), permitted=callbacks.owns_claim)
    return estimate


_Order = tuple[str, tuple[int, int, int] | None, int]
"""What rank 0 tells the others to train with it: the id of a point, one of its probes or None for
the evaluation, and the arm with which that is trained."""


def _order(point_id: str, probe: Probe | None, arm: int = 0) -> _Order:
    return point_id, None if probe is None else (probe.n, probe.repeat, probe.arm), arm


def assist(points: Mapping[str, Point], group: Group, stopping: Callable[[], bool]) -> None:
    """Train along with the rank 0 that measures, until it calls :func:`dismiss`.

    Raises:
        PeerLost: another process of the group is gone.
        Exception: whatever went wrong in this process alone; it must end, and with it the others.
    """
    loaded: dict[str, Samples] = {}
    callbacks = Callbacks(should_stop=stopping)
    order: _Order | None
    while (order := group.broadcast_object(None)) is not None:
        point_id, probe, arm = order
        point = points[point_id]
        if point_id not in loaded:
            loaded = {point_id: load_samples(point.data, point.seed)}
        samples = loaded[point_id]
        with contextlib.suppress(Interrupted, PointError):  # rank 0 meets the same, and says so
            if probe is None:
                evaluate(point.at(arm), samples, None, group, callbacks)
            else:
                run_probe(point, samples, Probe(*probe), None, group, callbacks)


def dismiss(group: Group) -> None:
    """End the others' :func:`assist`."""
    group.broadcast_object(None)


def parameters(point: Point, samples: Samples) -> int:
    """Return the exact number of trainable parameters of a point's network; 0 without one."""
    if not isinstance(point.model, Network):
        return 0
    return count_parameters(point.model, samples.shape, samples.classes, device="cpu")


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
        n_pool=len(samples.pool),
        conflict_groups=json.dumps(samples.conflict_groups),
        classes=samples.classes,
        bits=_bits(point, samples),
    )


def _bits(point: Point, samples: Samples) -> int:
    if not isinstance(point.model, Network):
        return 0
    precision = point.training.precision if isinstance(point.training, Training) else "fp32"
    return count_bits(point.model, samples.shape, samples.classes, precision)


def _check_same(path: Path, stored: Header, now: Header) -> None:
    """Raise PointError if a file was measured on other data or another network."""
    if stored.data_fingerprint != now.data_fingerprint:
        raise PointError(
            f"{path}: was measured on other data (fingerprint {stored.data_fingerprint}, "
            f"now {now.data_fingerprint}); give the sweep another name, or data.name"
        )
    if stored.params != now.params:
        raise PointError(
            f"{path}: was measured with {stored.params} parameters, now the network has "
            f"{now.params}; another version of timm? Give the sweep another name"
        )


def _still_ours(callbacks: Callbacks) -> None:
    if not callbacks.owns_claim():
        raise Interrupted("another process took this point over; nothing was written")
