"""State files that a sweep and its workers exchange: damaged, or of another version."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from flexhpc.errors import PointError
from flexhpc.launch.fork_server import ForkedWorker
from flexhpc.launch.prepare import prepare_run, write_run_folder
from flexhpc.launch.profile import LocalProfile
from flexhpc.launch.sweep import write_launch
from flexhpc.worker.entry import run_worker
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import EXIT_PEER_LOST, StopRequest
from flexhpc.worker.task import TaskFile
from tests.barrier import Barrier
from tests.faults.test_input import CONTENTS
from tests.sweeps import WITH_BARRIER, finish_with_status, kill_sweep, start_sweep

ENVIRONMENT = Environment(
    rank=0, world_size=1, local_rank=0, host="", token="", job="", index=0, log="", deadline=None
)  # fmt: skip


REJECTED = (
    "task.json: is missing, is corrupt, or was written by another version of flexhpc; run the same "
    "`flexhpc sweep` command again"
)


@pytest.mark.parametrize("content", [*CONTENTS, None])
def test_a_damaged_task_file_is_one_error_of_the_worker(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "task.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match="1"):
        run_worker(path, ENVIRONMENT, StopRequest())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(REJECTED)


def test_a_task_file_with_unknown_keys_is_rejected(small_spec: Path, tmp_path: Path) -> None:
    """An older version wrote it; the renamed key would have its default value."""
    prepared = prepare_run(small_spec, (), tmp_path / "runs")
    task = write_launch(prepared, LocalProfile(), "x", None, detach=False)
    path = prepared.run.jobs / "x" / "task.json"
    assert TaskFile.read(path) == task
    path.write_text(path.read_text().replace('"selection"', '"wanted"'))
    with pytest.raises(PointError, match=re.escape(REJECTED)):
        TaskFile.read(path)


@pytest.mark.parametrize(
    "content", [*CONTENTS, '{"colour": "red", "launches": [{"id": "a", "time": 0}]}']
)
def test_a_launch_is_recorded_in_a_damaged_run_json(
    content: str, small_spec: Path, tmp_path: Path
) -> None:
    prepared = prepare_run(small_spec, (), tmp_path / "runs")
    prepared.run.path.mkdir(parents=True)
    prepared.run.metadata.write_text(content)
    write_run_folder(prepared, "now", None)
    launches = json.loads(prepared.run.metadata.read_text())["launches"]
    assert [launch["id"] for launch in launches] == [*(["a"] if "colour" in content else []), "now"]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((0, 0), True), ((EXIT_PEER_LOST, EXIT_PEER_LOST), True), ((EXIT_PEER_LOST, -9), False)],
)
def test_ranks_that_all_lost_their_peers_did_not_crash(
    statuses: tuple[int, int], expected: bool
) -> None:
    """For example because a process of another user took the place of one."""
    worker = ForkedWorker(None, 2)  # type: ignore[arg-type]  # the server is not used
    worker.exit_statuses = dict(enumerate(statuses))
    assert worker.succeeded() == expected


def test_a_task_file_damaged_during_a_sweep_affects_only_new_workers(tmp_path: Path) -> None:
    """Running workers are not affected, new workers fail; the same command writes it again."""
    spec, run = tmp_path / "small.yaml", tmp_path / "runs" / "small"
    spec.write_text(WITH_BARRIER)
    barrier = Barrier(tmp_path)
    barrier.hold(3)
    sweep = start_sweep(spec, keys="workers: 1\n")
    (pid,) = barrier.wait(sweep=sweep)
    (task,) = run.glob("jobs/*/task.json")
    task.write_text("{")
    os.kill(pid, signal.SIGKILL)
    output = finish_with_status(sweep, 1)
    assert REJECTED in output
    assert "Traceback" not in output
    resumed = start_sweep(spec, keys="workers: 1\n")
    barrier.wait(sweep=resumed)
    kill_sweep(resumed)
