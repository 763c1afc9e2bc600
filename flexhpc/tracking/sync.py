"""Log results to MLflow; everything logged can be recreated from the point files.

An experiment corresponds to a sweep, a parent run to a point and a child run to a probe. Every
child run is logged with one ``log_batch`` call. A tag of the parent run counts its child runs.
Child runs that a killed process created but did not count are deleted and logged again. A lock in
the run folder ensures that only one process writes at a time, so that two sweeps never log a probe
twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from flexhpc.analysis.figures.point import fit_chart
from flexhpc.analysis.results import numeric_columns, results_row
from flexhpc.atomic import file_lock, write_json
from flexhpc.config import load_points
from flexhpc.search import estimate_so_far
from flexhpc.search.stages import training_runs
from flexhpc.store import RunFolder, read_loss_curves
from flexhpc.store.record import PointRecord, ProbeSummary, to_history
from flexhpc.store.run_record import read_run_record
from flexhpc.store.status import PointStatus, StatusReader, is_done, open_run
from flexhpc.tracking.client import existing_database_uri, make_database, mlflow_client
from flexhpc.tracking.description import decision_description, point_description
from flexhpc.tracking.state import local_uri, sync_state, sync_state_path
from flexhpc.tracking.view import ENDED_BY, KIND, VIEW_TAG, flatten, runs_table_view, was_moved

POINT = "flexhpc.point_id"
PROBE = "flexhpc.probe"
LOGGED = "flexhpc.probes_logged"
EVALUATED = "flexhpc.evaluated"
REPORT = "flexhpc.report"
_CURVE_POINTS = 64
_PROBES_PER_BATCH = 100  # up to 9 metrics per probe; MLflow allows 1,000 metrics per batch
_MAX_PARAMS = 100
_MAX_VALUE_LENGTH = 500
_MAX_NOTE_LENGTH = 5000


@dataclass
class _ParentRun:
    """State of the MLflow run of a point.

    Attributes:
        run_id: run id in MLflow.
        probes_logged: number of logged probes, as stored in a tag of the run.
        is_finished: whether the run has the status FINISHED.
        evaluation: settings of the logged evaluation; see :func:`_evaluation_settings`.
    """

    run_id: str
    probes_logged: int
    is_finished: bool = False
    evaluation: str = ""

    @classmethod
    def from_mlflow_run(cls, run: Any) -> _ParentRun:
        """Read the state of an existing MLflow run."""
        return cls(
            run_id=run.info.run_id,
            probes_logged=int(run.data.tags.get(LOGGED, 0)),
            is_finished=run.info.status == "FINISHED",
            evaluation=run.data.tags.get(EVALUATED, ""),
        )


class Syncer:
    """Logs the results of a run folder to MLflow; caches the parent runs between syncs.

    Args:
        folder: run folder whose results are logged.
        uri: tracking URI.
        spec: path of the frozen spec whose points are synced; None for the spec of the run folder.
    """

    def __init__(self, folder: RunFolder, uri: str, spec: Path | None = None) -> None:
        sweep, points = load_points(spec) if spec else open_run(folder.path)[1:]
        self.folder, self.uri, self.name = folder, uri, sweep.name
        self.reader = StatusReader(folder, points)
        self.decided = [compare for compare in sweep.compare if compare.decide]
        self.parents: dict[str, _ParentRun] = {}  # by point id
        self.client: Any = None
        self.report_mtime = 0.0
        self.source_tags = self._source_tags()
        self.experiment_id = ""

    def connect(self) -> None:
        """Connect to the server or create the database; load the experiment and its parent runs.

        Raises:
            Exception: any exception of MLflow, for example if the server is unreachable.
        """
        with self._tracking_lock():
            local = self.uri == local_uri(self.folder)
            if local:
                if was_moved(self.folder, self.name):
                    shutil.rmtree(self.folder.artifacts, ignore_errors=True)
                    self.folder.database.unlink()  # both are recreated at the new location
                make_database(self.folder.database)
            client_uri = existing_database_uri(self.folder.database) if local else self.uri
            client = mlflow_client(client_uri, rebuildable=local)
            experiment = client.get_experiment_by_name(self.name)
            if experiment is None:
                location = self.folder.artifacts.as_uri() if local else None
                self.experiment_id = client.create_experiment(self.name, artifact_location=location)
            else:
                self.experiment_id = experiment.experiment_id
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(self.experiment_id)
            self._set_experiment_tags(client)
            for parent in _search_runs(client, self.experiment_id, f"tags.`{KIND}` = 'point'"):
                self.parents[parent.data.tags[POINT]] = _ParentRun.from_mlflow_run(parent)
            self.client = client

    def _set_experiment_tags(
        self, client: Any, report_run_id: str = "", statuses: Sequence[PointStatus] = ()
    ) -> None:
        """Set the description of the experiment and the view of its runs table.

        Args:
            report_run_id: id of the MLflow run that has the report as an artifact; empty if no
                report is logged.
            statuses: statuses of all points. If empty, the description does not contain the
                verdicts of comparisons.
        """
        note = (
            f"Each run is a point of the sweep `{self.name}`, with its EMC; each nested run is a "
            "probe of this point. `flexhpc sync` recreates all runs from the run folder "
            f"`{self.folder.name}`; `flexhpc report` creates a report with figures"
        )
        if report_run_id:
            page = (
                f"#/experiments/{self.experiment_id}/runs/{report_run_id}"
                "/artifacts/report/index.html?workflowType=machine_learning"
            )
            note += f" ([report at the last sync]({page}))"
        note += "."
        for compare in self.decided if statuses else ():
            note += f"\n\n{decision_description(statuses, compare)}"
        for key, value in (
            (VIEW_TAG, runs_table_view(self.reader.points)),
            ("mlflow.note.content", note[:_MAX_NOTE_LENGTH]),
            ("mlflow.experimentKind", "custom_model_development"),
        ):
            client.set_experiment_tag(self.experiment_id, key, value)

    def _source_tags(self) -> dict[str, str]:
        """Return MLflow's source tags (user, command, Git commit) from run.json."""
        record = read_run_record(self.folder.metadata)
        tags = {
            "mlflow.user": record.launches[-1].user if record.launches else "",
            "mlflow.source.name": f"flexhpc sweep {self.name}",
            "mlflow.source.type": "JOB",
            "mlflow.source.git.commit": record.git,
        }
        return {key: value for key, value in tags.items() if value}

    def sync(self) -> int:
        """Log all new results to MLflow; return the number of probes that were logged."""
        if self.client is None:
            self.connect()
        with self._tracking_lock():
            statuses = self.reader.read()
            count = sum(self._sync_point(status) for status in statuses if status.record)
            self._log_report()
        write_json(
            sync_state_path(self.folder), sync_state(self.uri, statuses), create_folder=False
        )
        return count

    def _log_report(self) -> None:
        """Log the report as an artifact of the parent run of the first point that has one.

        The report belongs to the experiment, but an experiment cannot have artifacts.
        """
        page = self.folder.report / "index.html"
        first = next((p.id for p in self.reader.points if p.id in self.parents), None)
        mtime = page.stat().st_mtime if page.is_file() else 0.0
        if first is None or mtime == self.report_mtime:
            return
        self.report_mtime = mtime
        run_id = self.parents[first].run_id
        content = hashlib.sha256(page.read_bytes()).hexdigest()
        if self.client.get_run(run_id).data.tags.get(REPORT) != content:
            self.client.log_artifact(run_id, str(page), "report")
            self.client.set_tag(run_id, REPORT, content)
        # Read after the report, so that the verdicts are not older than the report.
        self._set_experiment_tags(self.client, run_id, self.reader.read())

    def _tracking_lock(self) -> FileLock:
        return file_lock(self.folder.path / ".tracking.lock")

    def _sync_point(self, status: PointStatus) -> int:
        """Log the new results of a point; return the number of probes that were logged."""
        assert status.record is not None
        probes = status.record.probes
        parent = self.parents.get(status.point.id)
        done = is_done(status.point, status.record)
        expected = (len(probes), done, _evaluation_settings(status.record))
        if parent is None:
            parent = self._find_or_create_parent(status)
        elif (parent.probes_logged, parent.is_finished, parent.evaluation) == expected:
            return 0
        else:
            parent.probes_logged = int(
                self.client.get_run(parent.run_id).data.tags.get(LOGGED, parent.probes_logged)
            )
        unlogged = len(probes) - parent.probes_logged
        if unlogged > 0:
            self._delete_uncounted_children(parent, status.point.id)
            losses = read_loss_curves(self.folder.point_file(status.point.id))
        for start in range(parent.probes_logged, len(probes), _PROBES_PER_BATCH):
            indices = range(len(probes))[start : start + _PROBES_PER_BATCH]
            for index in indices:
                self._log_probe(parent, status, index, losses[index])
            self._log_progress(parent, status, indices)
        if done:
            self._log_estimate(parent, status)
        elif parent.is_finished:  # a higher precision was requested since
            self.client.update_run(parent.run_id, status="RUNNING")
            parent.is_finished = False
        return max(unlogged, 0)

    def _find_or_create_parent(self, status: PointStatus) -> _ParentRun:
        """Return the parent run of a point; create it unless another process has created it."""
        point, record = status.point, status.record
        assert record is not None
        # Another process may have created the parent run after this one connected.
        query = f"tags.`{KIND}` = 'point' and tags.`{POINT}` = '{point.id}'"
        for existing_run in _search_runs(self.client, self.experiment_id, query):
            parent = self.parents[point.id] = _ParentRun.from_mlflow_run(existing_run)
            return parent
        start = min((_start_ms(record, i) for i in range(len(record.probes))), default=None)
        run = self.client.create_run(
            self.experiment_id,
            start_time=start,
            run_name=point.label or point.id,
            tags={KIND: "point", POINT: point.id, LOGGED: "0", **self.source_tags},
        )
        values = dict(flatten("", json.loads(point.canonical)))
        values |= {"n_total": record.header.n_total}
        if record.header.params:
            values["params"] = record.header.params
        from mlflow.entities import Param

        params = [Param(k, str(v)[:_MAX_VALUE_LENGTH]) for k, v in values.items()][:_MAX_PARAMS]
        self.client.log_batch(run.info.run_id, params=params)
        parent = self.parents[point.id] = _ParentRun(run.info.run_id, 0)
        return parent

    def _delete_uncounted_children(self, parent: _ParentRun, point_id: str) -> None:
        """Delete the child runs that ``parent.probes_logged`` does not count.

        A process that was killed during a sync leaves such child runs. Child runs are created in
        the order of the probes, so no probe after the first probe without a child run has one.
        """
        index = parent.probes_logged
        query = f"tags.`mlflow.parentRunId` = '{parent.run_id}' and tags.`{PROBE}` = "
        while children := list(
            _search_runs(self.client, self.experiment_id, f"{query}'{point_id}/{index:04d}'")
        ):
            for child in children:
                self.client.delete_run(child.info.run_id)
            index += 1

    def _log_probe(
        self, parent: _ParentRun, status: PointStatus, index: int, losses: NDArray[np.float32]
    ) -> None:
        assert status.record is not None
        probe = status.record.probes[index]
        end = int(probe.finished * 1000)
        training = status.point.training
        budget = training.at_stage(probe.stage).budget if training.doubling_settings else None
        run = self.client.create_run(
            self.experiment_id,
            start_time=_start_ms(status.record, index),
            run_name=_probe_run_name(index, probe, budget),
            tags={
                KIND: "probe",
                PROBE: f"{status.point.id}/{index:04d}",
                POINT: status.point.id,
                "mlflow.parentRunId": parent.run_id,
                "verdict": probe.verdict,
            },
        )
        from mlflow.entities import Metric, Param

        values = {
            "n": probe.n,
            "accuracy": probe.train_accuracy,
            "errors": probe.n_errors,
            "epochs": probe.epochs,
            "cost": probe.cost,
            "seconds": probe.seconds,
            "final_loss": probe.loss,
            **probe.metrics,
        }
        metrics = [Metric(key, float(value), end, 0) for key, value in values.items()]
        metrics += [Metric("loss", value, end, epoch) for epoch, value in _thinned_curve(losses)]
        params = [
            Param("n", str(probe.n)),
            Param("repeat", str(probe.repeat)),
            Param("verdict", probe.verdict),
            *([] if budget is None else [Param(budget[0], str(budget[1]))]),
            *(Param(f"seed.{name}", str(seed)) for name, seed in probe.seeds.items()),
            *(Param(f"machine.{name}", text) for name, text in probe.machine.items()),
        ]
        self.client.log_batch(run.info.run_id, metrics=metrics, params=params)
        fitted = probe.verdict == "fit" and not probe.rejected
        # MLflow shows FINISHED as a green tick, which must mean that all samples were fitted.
        run_status = "FINISHED" if fitted else "FAILED"
        self.client.set_terminated(run.info.run_id, status=run_status, end_time=end)

    def _log_progress(
        self, parent: _ParentRun, status: PointStatus, indices: Sequence[int]
    ) -> None:
        """For each new probe, log metrics of the parent run: the bracket and the estimate so far.

        Args:
            indices: indices of the new probes, which are consecutive.
        """
        from mlflow.entities import Metric, RunTag

        record, point = status.record, status.point
        assert record is not None
        full_history = to_history(record.probes[: indices[-1] + 1], point.training)
        metrics: list[Metric] = []
        for index in indices:
            history = full_history[: index + 1]
            so_far = estimate_so_far(
                point.search, record.header.n_limit, history, point.arm_coordinates
            )
            values: dict[str, float | None] = {"n": history[-1].n}
            values["cost"] = sum(result.cost for result in training_runs(history))
            if so_far is not None:
                values |= {"emc": so_far.emc, "emc_lo": so_far.emc_lo, "emc_hi": so_far.emc_hi}
                values |= {"lo": so_far.emc_lo, "hi": so_far.emc_hi}
                values |= {"largest_fit": so_far.largest_fit}
                values |= {"smallest_fail": so_far.smallest_fail}
            end = int(record.probes[index].finished * 1000)
            metrics += [Metric(k, float(v), end, index) for k, v in values.items() if v is not None]
        tags = [RunTag(LOGGED, str(indices[-1] + 1))]
        self.client.log_batch(parent.run_id, metrics=metrics, tags=tags)
        parent.probes_logged = indices[-1] + 1

    def _log_estimate(self, parent: _ParentRun, status: PointStatus) -> None:
        """Log the final estimate, the fit-curve figure and the point file; end the parent run."""
        from mlflow.entities import Metric, RunTag

        record, estimate = status.record, status.estimate
        assert record is not None
        assert estimate is not None
        end = int(max((p.finished for p in record.probes), default=0) * 1000)
        last = len(record.probes)
        # MLflow shows the larger of two values with the same timestamp, not the later one.
        now = int(time.time() * 1000) if parent.is_finished else end
        values = numeric_columns(results_row(status))
        if estimate.emc_hi is None:  # replaces upper ends logged during the search
            values |= dict.fromkeys(("emc_hi", "hi"), math.nan)
        metrics = [Metric(k, v, now, last) for k, v in values.items()]
        tags = [
            RunTag("mlflow.note.content", point_description(status)),
            RunTag("estimand", estimate.estimand),
            RunTag("censored", estimate.censored),
            RunTag(ENDED_BY, estimate.ended_by or ""),
            RunTag(EVALUATED, _evaluation_settings(record)),
        ]
        self.client.log_batch(parent.run_id, metrics=metrics, tags=tags)
        with tempfile.TemporaryDirectory() as folder:
            figure = Path(folder) / "fit_curve.svg"
            fit_chart(status).save(figure)
            self.client.log_artifact(parent.run_id, str(figure))
        self.client.log_artifact(parent.run_id, str(self.folder.point_file(status.point.id)))
        self.client.set_terminated(parent.run_id, status="FINISHED", end_time=end)
        parent.is_finished = True
        parent.evaluation = _evaluation_settings(record)


def _probe_run_name(index: int, probe: ProbeSummary, budget: tuple[str, int] | None) -> str:
    """Return the name of the MLflow run of a probe, such as ``07 n=185 not_fit``.

    The name contains the index of the probe, n and the verdict. It may also contain:

    - ``repeat``, such as ``#1``, if it is not 0
    - the budget, such as ``steps=2000``, if the search doubles the budget
    - ``rejected``, if a gate rejected the probe
    """
    details = f" #{probe.repeat}" if probe.repeat else ""
    details += "" if budget is None else f" {budget[0]}={budget[1]}"
    rejected = ", rejected" if probe.rejected else ""
    return f"{index:02d} n={probe.n}{details} {probe.verdict}{rejected}"


def _evaluation_settings(record: PointRecord) -> str:
    """Return the settings and the stage of the stored evaluation as JSON; empty without one."""
    if record.evaluation is None:
        return ""
    return json.dumps([record.evaluation["asked"], record.evaluation.get("stage", 0)])


def _start_ms(record: PointRecord, index: int) -> int:
    """Return the start time of a probe (milliseconds since the epoch).

    If a probe continued an earlier training run with a larger budget, its ``seconds`` include the
    time of the earlier stages, which is subtracted here.
    """
    probe = record.probes[index]
    run = probe.n, probe.repeat, probe.arm
    earlier = [p for p in record.probes[:index] if (p.n, p.repeat, p.arm) == run]
    start = probe.finished - probe.seconds
    if earlier and start < earlier[-1].finished:
        start = probe.finished - max(0.0, probe.seconds - earlier[-1].seconds)
    return int(start * 1000)


def _thinned_curve(curve: NDArray[np.float32]) -> Iterator[tuple[int, float]]:
    """Yield (epoch, loss) for about ``_CURVE_POINTS`` epochs, including the first and the last."""
    step = math.ceil(len(curve) / _CURVE_POINTS) or 1
    shown = set(range(0, len(curve), step)) | ({len(curve) - 1} if len(curve) else set())
    for i in sorted(shown):
        yield i + 1, float(curve[i])


def _search_runs(client: Any, experiment_id: str, query: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
