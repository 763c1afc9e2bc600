from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from flexhpc.atomic import write_json
from flexhpc.store import acquire_claim, read_claim
from flexhpc.store import claim as claims

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """Paths of a claim and of the lock of its run."""
    return tmp_path / "x.claim.json", tmp_path / ".lock"


def hold(paths: tuple[Path, Path], start: Barrier, acquired: Connection) -> None:
    """Try to acquire a claim, send the result, and wait for SIGKILL."""
    start.wait()
    claim = acquire_claim(*paths, launch="a")
    acquired.send(claim is not None)
    signal.pause()


@contextlib.contextmanager
def holders(paths: tuple[Path, Path], count: int = 1) -> Iterator[list[bool]]:
    """Run processes that try to acquire a claim at once; yield which succeeded, and kill them."""
    start, results, processes = FORK.Barrier(count), [], []
    for _ in range(count):
        result, sender = FORK.Pipe(duplex=False)
        results.append(result)
        processes.append(FORK.Process(target=hold, args=(paths, start, sender)))
        processes[-1].start()
        sender.close()
    try:
        yield [result.recv() for result in results]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_a_claim_is_exclusive_until_its_release(paths: tuple[Path, Path]) -> None:
    first = acquire_claim(*paths, launch="a")
    assert first.send_heartbeat({"n": 5})
    assert read_claim(paths[0]).progress == {"n": 5}
    assert acquire_claim(*paths, launch="b") is None
    first.release("stopped")
    assert read_claim(paths[0]).state == "stopped"
    second = acquire_claim(*paths, launch="b")
    assert second.record.deaths == 0


def test_one_of_several_concurrent_processes_acquires_a_claim(paths: tuple[Path, Path]) -> None:
    with holders(paths, 6) as acquired:
        assert sorted(acquired) == [False] * 5 + [True]


def test_a_claim_of_a_dead_process_is_taken_over_and_deaths_are_counted(
    paths: tuple[Path, Path],
) -> None:
    for deaths in range(3):
        with holders(paths) as acquired:
            assert acquired == [True]
            assert read_claim(paths[0]).deaths == deaths
            assert acquire_claim(*paths, launch="a") is None
    dead = read_claim(paths[0])
    assert acquire_claim(*paths, launch="b").record.deaths == 0
    write_json(paths[0], vars(dead))
    assert acquire_claim(*paths, launch="a", last_save_time=dead.taken - 1).record.deaths == 3
    write_json(paths[0], vars(dead))
    resumed = acquire_claim(*paths, launch="a", last_save_time=dead.taken + 1)
    assert (resumed.record.deaths, resumed.record.attempts) == (1, 4), "progress was saved"


def test_a_lost_claim_can_no_longer_be_written(paths: tuple[Path, Path]) -> None:
    first = acquire_claim(*paths, launch="a")
    write_json(paths[0], {**vars(first.record), "birth": 1.0})  # of a dead process
    second = acquire_claim(*paths, launch="b")
    assert not first.is_held()
    assert not first.send_heartbeat({})
    first.release("done")
    assert read_claim(paths[0]).token == second.record.token
    assert read_claim(paths[0]).state == "running"


def test_start_times_do_not_depend_on_the_system_clock(tmp_path: Path) -> None:
    """Otherwise, all holders would seem dead after the clock was set."""
    program = tmp_path / "a ) b 1"  # the name appears in the file from which the time is read
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o700)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        birth = claims.process_start_time(process.pid)
        after = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert before - 0.01 <= birth <= after, "a start time is a multiple of 0.01 s"
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not claims.process_is_alive(process.pid, birth), "the process is a zombie"


@pytest.fixture
def remote(paths: tuple[Path, Path]) -> Iterator[dict[str, object]]:
    """A claim of a process on a different host, without cached clocks."""
    first = acquire_claim(*paths, launch="a")
    claims._CLOCKS.clear()
    yield {**vars(first.record), "host": "elsewhere:1", "pid": 1}
    claims._CLOCKS.clear()


def set_age(path: Path, seconds: float) -> None:
    os.utime(path, (0, time.time() - seconds))


def test_a_remote_process_is_dead_without_heartbeats(
    paths: tuple[Path, Path], remote: dict[str, object]
) -> None:
    write_json(paths[0], remote)
    assert acquire_claim(*paths, launch="b") is None
    set_age(paths[0], claims.HEARTBEAT_TIMEOUT - 10)
    assert acquire_claim(*paths, launch="b") is None
    set_age(paths[0], claims.HEARTBEAT_TIMEOUT + 1)
    assert acquire_claim(*paths, launch="b") is not None


@pytest.mark.parametrize("offset", [-86_400, 86_400])
def test_a_wrong_clock_of_a_host_does_not_affect_liveness(
    paths: tuple[Path, Path], remote: dict[str, object], offset: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Neither the clock of the holder nor the local clock is compared with the heartbeat."""
    write_json(paths[0], {**remote, "beat": time.time() + offset})
    assert acquire_claim(*paths, launch="b") is None
    set_age(paths[0], claims.HEARTBEAT_TIMEOUT + 1)
    assert read_claim(paths[0]).holder_is_alive(paths[0]) is False
    write_json(paths[0], remote)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + offset)
    claims._CLOCKS.clear()
    assert acquire_claim(*paths, launch="b") is None
    monkeypatch.undo()
    set_age(paths[0], -86_400)  # the clock of the file system was set back
    assert acquire_claim(*paths, launch="b") is not None


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_wrong_local_clock_does_not_affect_the_count_of_deaths(
    hours: int, paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether progress was saved after a claim depends on the file system's clock only."""
    correct = time.time
    monkeypatch.setattr(time, "time", lambda: correct() + 3600 * hours)
    for saved_after_claims, deaths in ((False, 2), (True, 1)):
        saved = 0.0 if saved_after_claims else save(paths)
        for _ in range(2):
            claim = acquire_claim(*paths, launch="a")
            write_json(paths[0], {**vars(claim.record), "pid": 2**22 + 1})  # of a dead process
        saved = save(paths) if saved_after_claims else saved
        resumed = acquire_claim(*paths, launch="a", last_save_time=saved)
        assert resumed.record.deaths == deaths
        resumed.release("done")


def save(paths: tuple[Path, Path]) -> float:
    """Write a file; return its modification time, which differs from those of other files."""
    time.sleep(0.02)
    file = paths[0].with_name("saved")
    file.write_text("x")
    time.sleep(0.02)
    return file.stat().st_mtime


def test_a_claim_of_a_newer_version_is_valid(paths: tuple[Path, Path]) -> None:
    first = acquire_claim(*paths, launch="a")
    write_json(paths[0], {**vars(first.record), "colour": "red"})
    assert acquire_claim(*paths, launch="b") is None
    assert first.is_held()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"state": "running"}', '{"state": 3}', "[" * 10_000]
)
def test_a_damaged_claim_is_ignored(paths: tuple[Path, Path], content: str) -> None:
    paths[0].write_text(content)
    assert read_claim(paths[0]) is None
    assert acquire_claim(*paths, launch="a") is not None
