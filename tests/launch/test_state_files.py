"""Files by which a sweep and its workers tell each other things: damaged, or of another version."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from flexhpc.launch.fork_server import OrderedWorker
from flexhpc.launch.prepare import open_folder, prepare
from flexhpc.launch.profile import LocalProfile
from flexhpc.launch.sweep import make_task
from flexhpc.worker.entry import run_worker
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import EXIT_PEER_LOST, Stop
from flexhpc.worker.task import TaskFile
from tests.barrier import Barrier
from tests.conftest import SMALL
from tests.faults.test_input import CONTENTS
from tests.sweeps import GATED, end, finish, start

ENVIRONMENT = Environment(
    rank=0, world_size=1, local_rank=0, host="", token="", job="", index=0, log="", deadline=None
)  # fmt: skip


@pytest.mark.parametrize("content", [*CONTENTS, None])
def test_a_damaged_task_is_a_line_for_its_worker(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "task.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match="1"):
        run_worker(path, ENVIRONMENT, Stop())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "task.json: is corrupt or missing; run the same `flexhpc sweep` command again"
    )


def test_a_task_of_another_version_is_read(tmp_path: Path) -> None:
    spec, path = tmp_path / "small.yaml", tmp_path / "task.json"
    spec.write_text(SMALL)
    task = make_task(prepare(spec, (), tmp_path / "runs"), LocalProfile(), "x", detach=False)
    task.write(path)
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "colour": "red"}))
    assert TaskFile.read(path) == task


@pytest.mark.parametrize("content", [*CONTENTS, '{"colour": "red", "launches": [{"id": "a"}]}'])
def test_a_launch_is_noted_whatever_run_json_holds(content: str, tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL)
    prepared = prepare(spec, (), tmp_path / "runs")
    prepared.run.path.mkdir(parents=True)
    prepared.run.record.write_text(content)
    open_folder(prepared, "now", None)
    launches = json.loads(prepared.run.record.read_text())["launches"]
    assert [one["id"] for one in launches] == (["a", "now"] if "colour" in content else ["now"])


@pytest.mark.parametrize(
    ("statuses", "well"),
    [((0, 0), True), ((EXIT_PEER_LOST, EXIT_PEER_LOST), True), ((EXIT_PEER_LOST, -9), False)],
)
def test_processes_that_lost_each_other_end_well(statuses: tuple[int, int], well: bool) -> None:
    """As those of a worker whose place a stranger took: that is no crash."""
    worker = OrderedWorker(None, 2)  # type: ignore[arg-type]  # it is not asked
    worker.ended = dict(enumerate(statuses))
    assert worker.ended_well() == well


def test_a_task_file_that_is_damaged_in_mid_run_is_named_at_the_end(tmp_path: Path) -> None:
    """Workers that run are not affected, new ones fail; the same command writes it again."""
    spec, run = tmp_path / "small.yaml", tmp_path / "runs" / "small"
    spec.write_text(GATED)
    barrier = Barrier(tmp_path)
    barrier.hold(20)
    sweep = start(spec, keys="workers: 1\n")
    (pid,) = barrier.wait(sweep=sweep)
    (task,) = run.glob("jobs/*/task.json")
    task.write_text("{")
    os.kill(pid, signal.SIGKILL)
    output = finish(sweep)
    assert sweep.returncode == 1
    assert "task.json: is corrupt or missing; run the same `flexhpc sweep` command again" in output
    assert "Traceback" not in output
    again = start(spec, keys="workers: 1\n")
    barrier.wait(sweep=again)
    end(again)
