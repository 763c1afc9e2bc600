"""Measure a point; the only module that connects the search, the training and the store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from flexhpc.config import Point
from flexhpc.config.sections.model import Network
from flexhpc.config.sections.training import Training
from flexhpc.data import Samples, load_samples
from flexhpc.errors import BatchOfOne, Interrupted, NoData, PointError
from flexhpc.measuring.evaluation import evaluate, evaluation_size
from flexhpc.measuring.pool import ProbePool
from flexhpc.measuring.probe import final_state_path, run_probe
from flexhpc.models import ParameterCounts, count_parameters
from flexhpc.search import Estimate, Probe, ProbeResult, estimate_so_far, next_probes
from flexhpc.search.stages import runs_without_state
from flexhpc.store import (
    Header,
    ProbeRecord,
    RunFolder,
    append_probe,
    create_point_file,
    read_point_file,
    to_history,
    write_estimate,
    write_evaluation,
)
from flexhpc.store.status import has_precise_estimate
from flexhpc.training import Callbacks, Group

_MAX_STATE_BYTES = 4 * 2**30
"""Maximum total size of the final training states that are kept for a point, in bytes."""


def measure(
    point: Point, run: RunFolder, group: Group, callbacks: Callbacks, pool: ProbePool | None = None
) -> Estimate:
    """Measure a point; if its point file contains probes, continue the search after them.

    In a process group, only rank 0 calls this function; the other ranks call
    :func:`train_with_rank_0`.

    Args:
        point: the point to measure.
        run: run folder, which contains the point file.
        group: process group; all its ranks train each probe together.
        callbacks: see :class:`Callbacks`.
        pool: processes that train the probes concurrently if the search proposes several probes at
            once; None to train the probes one after the other.

    Returns:
        The final estimate.

    Raises:
        NoData: the data cannot be opened.
        PointError: the point cannot be measured, for example because its data has changed.
        Interrupted: a stop was requested (finished probes are stored, and the current probes have
            saved checkpoints), or another process took over the claim.
        PeerLost: another process of the group or the pool has died.
    """
    try:
        samples = load_samples(point.data, point.seed)
    except PointError as error:
        raise NoData(str(error)) from error
    if point.evaluate is not None:
        evaluation_size(point.evaluate, samples)  # raises now instead of after hours of search
    path = run.point_file(point.id)
    for part in run.temporary_files(point.id):
        part.unlink(missing_ok=True)
    header = _header(point, samples)
    record = read_point_file(path)
    if record is None:
        _check_claim(callbacks)  # opening the data may have taken minutes
        create_point_file(path, header)
    else:
        _check_header(path, record.header, header)
    if record is not None and record.estimate is not None and has_precise_estimate(point, record):
        estimate = record.estimate
    else:
        history = to_history(record.probes, point.training) if record else []
        estimate = _search(point, samples, history, run, group, callbacks, pool)
        _check_claim(callbacks)
        write_estimate(path, estimate, is_permitted=callbacks.owns_claim)
    record = read_point_file(path)
    assert record is not None
    if not record.has_evaluation(point.evaluation):
        group.broadcast_object((point.id, None, estimate.arm, estimate.stage))
        saved = run.checkpoint(point.id, f"evaluate-{estimate.arm}")
        evaluation = evaluate(
            point.at_arm(estimate.arm), samples, estimate.stage, saved, group, callbacks
        )
        _check_claim(callbacks)
        evaluation |= {"arm": estimate.arm, "stage": estimate.stage}
        write_evaluation(path, evaluation, is_permitted=callbacks.owns_claim)
    for checkpoint in run.checkpoints(point.id):
        checkpoint.unlink(missing_ok=True)
    return estimate


def _search(
    point: Point, samples: Samples, history: list[ProbeResult], run: RunFolder, group: Group,
    callbacks: Callbacks, pool: ProbePool | None,
) -> Estimate:  # fmt: skip
    """Run the probes that the search proposes, until it returns an estimate."""
    path = run.point_file(point.id)
    doubling_settings = point.training.doubling_settings

    def checkpoint_path(probe: Probe | ProbeRecord | ProbeResult) -> Path:
        arm = f"-{probe.arm}" if len(point.arms) > 1 else ""
        return run.checkpoint(point.id, f"{probe.n}-{probe.repeat}{arm}")

    def store_probe(probe: ProbeRecord) -> None:
        _check_claim(callbacks)
        append_probe(path, probe, is_permitted=callbacks.owns_claim)
        checkpoint_path(probe).unlink(missing_ok=True)
        history.extend(to_history([probe], point.training))
        if doubling_settings is not None:
            so_far = estimate_so_far(point.search, samples.n_limit, history, point.arm_coordinates)
            emc = probe.n if so_far is None else so_far.emc
            keep = doubling_settings.keep_states
            with contextlib.suppress(OSError):  # no state was saved
                size = final_state_path(checkpoint_path(probe)).stat().st_size
                keep = min(keep, _MAX_STATE_BYTES // max(size, 1))
            for result in runs_without_state(history, emc, keep):
                final_state_path(checkpoint_path(result)).unlink(missing_ok=True)

    def train_serially(probes: list[Probe]) -> None:
        batch_of_one: BatchOfOne | None = None
        for probe in probes:
            group.broadcast_object((point.id, tuple(probe), 0, 0))
            try:
                checkpoint = checkpoint_path(probe)
                store_probe(run_probe(point, samples, probe, checkpoint, group, callbacks))
            except BatchOfOne as error:
                batch_of_one = error
        if batch_of_one is not None:
            raise batch_of_one

    while True:
        proposal = next_probes(
            point.search, samples.n_limit, history, point.arm_coordinates, doubling_settings
        )
        if isinstance(proposal, Estimate):
            return proposal
        try:
            if pool is None or len(proposal) == 1:
                train_serially(proposal)
            else:
                pool.run(point, proposal, checkpoint_path, callbacks, store_probe)
        except BatchOfOne:
            # BatchNorm cannot be trained on a batch of one sample. If no probe has fitted, the
            # search has reached its lower end, and its current estimate is final.
            final = estimate_so_far(
                point.search, samples.n_limit, history, point.arm_coordinates, "data"
            )
            if final is None or final.largest_fit or all(probe.n > 1 for probe in proposal):
                raise
            if (
                doubling_settings is not None
                and proposal[0].stage < doubling_settings.max_doublings
            ):
                raise PointError(
                    "no training run fitted even two samples within the budget, and a network with "
                    "BatchNorm cannot be trained on one sample; use a larger first budget"
                ) from None
            return final


_NextTraining = tuple[str, tuple[int, ...] | None, int, int]
"""Message by which rank 0 announces the next training run: (point id, probe as a tuple, arm,
stage). The probe is None for an evaluation; arm and stage are used only for an evaluation."""


def train_with_rank_0(
    points: Mapping[str, Point], group: Group, should_stop: Callable[[], bool]
) -> None:
    """Take part in the training runs of rank 0 until rank 0 calls :func:`stop_other_ranks`.

    Args:
        points: mapping from point id to point.
        group: process group, in which rank 0 calls :func:`measure`.
        should_stop: function that returns whether this process must stop.

    Raises:
        PeerLost: another process of the group has died.
        Exception: an error that occurred in this process only. This process must then exit, so that
            the other processes stop.
    """
    loaded: dict[str, Samples] = {}
    callbacks = Callbacks(should_stop=should_stop)
    message: _NextTraining | None
    while (message := group.broadcast_object(None)) is not None:
        point_id, probe, arm, stage = message
        point = points[point_id]
        if point_id not in loaded:
            loaded = {point_id: load_samples(point.data, point.seed)}
        samples = loaded[point_id]
        with contextlib.suppress(Interrupted, PointError):  # rank 0 reports the same error
            if probe is None:
                evaluate(point.at_arm(arm), samples, stage, None, group, callbacks)
            else:
                run_probe(point, samples, Probe(*probe), None, group, callbacks)


def stop_other_ranks(group: Group) -> None:
    """Make :func:`train_with_rank_0` return on the other ranks; called by rank 0."""
    group.broadcast_object(None)


def parameter_counts(point: Point, samples: Samples) -> ParameterCounts:
    """Return the numbers of parameters of a point's network, which are 0 if it has no network."""
    if not isinstance(point.model, Network):
        return ParameterCounts(0, 0, 0)
    precision = point.training.precision if isinstance(point.training, Training) else "fp32"
    return count_parameters(
        point.model, samples.shape, samples.classes, precision=precision, device="cpu"
    )


def _header(point: Point, samples: Samples) -> Header:
    counts = parameter_counts(point, samples)
    return Header(
        point=point.canonical,
        point_id=point.id,
        params=counts.trained,
        params_total=counts.total,
        data_fingerprint=samples.fingerprint,
        n_total=len(samples.labels),
        n_limit=samples.n_limit,
        conflicts=samples.conflicts,
        unfittable=samples.unfittable,
        n_pool=len(samples.pool),
        conflict_groups=json.dumps(samples.conflict_groups),
        classes=samples.classes,
        bits=counts.bits,
    )


def _check_header(path: Path, stored: Header, current: Header) -> None:
    """Raise PointError if the data or the parameter count has changed since the first probe."""
    if stored.data_fingerprint != current.data_fingerprint:
        raise PointError(
            f"{path}: was measured on data with fingerprint {stored.data_fingerprint}, but the "
            f"data now has fingerprint {current.data_fingerprint}; change the name of the sweep, "
            "or data.name"
        )
    if stored.params != current.params:
        raise PointError(
            f"{path}: was measured with {stored.params} parameters, but the network now has "
            f"{current.params} (another version of timm?); change the name of the sweep"
        )


def _check_claim(callbacks: Callbacks) -> None:
    if not callbacks.owns_claim():
        raise Interrupted("another process took over the claim of this point; nothing was written")
