from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from flexhpc.atomic import write_json
from flexhpc.store import claim as claims
from flexhpc.store import read_claim, take

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "x.claim.json", tmp_path / ".lock"


def hold(paths: tuple[Path, Path], start: Barrier, taken: Connection) -> None:
    """Try to take a claim; keep it until the process is killed."""
    start.wait()
    claim = take(*paths, launch="a")
    taken.send(claim is not None)
    signal.pause()


@contextlib.contextmanager
def holders(paths: tuple[Path, Path], count: int = 1) -> Iterator[list[bool]]:
    """Run processes that try to take a claim at once; yield which of them did, then kill them."""
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


def test_a_second_claim_is_refused_until_it_is_released(paths: tuple[Path, Path]) -> None:
    first = take(*paths, launch="a")
    assert first.beat({"n": 5})
    assert read_claim(paths[0]).progress == {"n": 5}
    assert take(*paths, launch="b") is None
    first.release("stopped")
    assert read_claim(paths[0]).state == "stopped"
    second = take(*paths, launch="b")
    assert second.record.deaths == 0


def test_a_dead_holder_is_replaced_and_its_deaths_are_counted(
    paths: tuple[Path, Path],
) -> None:
    for expected in range(3):
        with holders(paths) as taken:
            assert taken == [True]
            assert read_claim(paths[0]).deaths == expected
            assert take(*paths, launch="a") is None
    died = read_claim(paths[0])
    assert take(*paths, launch="b").record.deaths == 0
    write_json(paths[0], vars(died))
    assert take(*paths, launch="a", saved=died.taken - 1).record.deaths == 3
    write_json(paths[0], vars(died))
    again = take(*paths, launch="a", saved=died.taken + 1)
    assert (again.record.deaths, again.record.attempts) == (1, 4), "progress was saved"


def test_who_lost_a_claim_can_no_longer_write(paths: tuple[Path, Path]) -> None:
    first = take(*paths, launch="a")
    stolen = {**vars(first.record), "birth": 1.0}
    write_json(paths[0], stolen)
    second = take(*paths, launch="b")
    assert not first.held()
    assert not first.beat({})
    first.release("done")
    assert read_claim(paths[0]).token == second.record.token
    assert read_claim(paths[0]).state == "running"


@pytest.fixture
def elsewhere(paths: tuple[Path, Path]) -> Iterator[dict[str, object]]:
    """A claim whose holder is on another host; no clock is remembered."""
    first = take(*paths, launch="a")
    claims._CLOCKS.clear()
    yield {**vars(first.record), "host": "elsewhere:1", "pid": 1}
    claims._CLOCKS.clear()


def written_ago(path: Path, seconds: float) -> None:
    os.utime(path, (0, time.time() - seconds))


def test_a_silent_host_is_dead(paths: tuple[Path, Path], elsewhere: dict[str, object]) -> None:
    write_json(paths[0], elsewhere)
    assert take(*paths, launch="b") is None
    written_ago(paths[0], claims.SILENCE - 10)
    assert take(*paths, launch="b") is None
    written_ago(paths[0], claims.SILENCE + 1)
    assert take(*paths, launch="b") is not None


@pytest.mark.parametrize("ahead", [-86_400, 86_400])
def test_no_host_s_clock_decides_who_lives(
    paths: tuple[Path, Path], elsewhere: dict[str, object], ahead: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Neither its holder's, nor ours: a day ahead or behind, alive is alive and dead is dead."""
    write_json(paths[0], {**elsewhere, "beat": time.time() + ahead})
    assert take(*paths, launch="b") is None
    written_ago(paths[0], claims.SILENCE + 1)
    assert read_claim(paths[0]).live(paths[0]) is False
    write_json(paths[0], elsewhere)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    claims._CLOCKS.clear()
    assert take(*paths, launch="b") is None
    monkeypatch.undo()
    written_ago(paths[0], -86_400)  # the file system's own clock was set back
    assert take(*paths, launch="b") is not None


def test_a_claim_of_a_newer_flexhpc_is_one(paths: tuple[Path, Path]) -> None:
    first = take(*paths, launch="a")
    write_json(paths[0], {**vars(first.record), "colour": "red"})
    assert take(*paths, launch="b") is None
    assert first.held()


def test_one_of_many_takers_wins(paths: tuple[Path, Path]) -> None:
    with holders(paths, 6) as taken:
        assert sorted(taken) == [False] * 5 + [True]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"state": "running"}', '{"state": 3}', "[" * 10_000]
)
def test_a_damaged_claim_counts_as_none(paths: tuple[Path, Path], content: str) -> None:
    paths[0].write_text(content)
    assert read_claim(paths[0]) is None
    assert take(*paths, launch="a") is not None


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_wrong_clock_neither_forgives_nor_adds_deaths(
    hours: int, paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved after a claim was taken is later by the file system's own clock."""
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600 * hours)
    for later, expected in ((False, 2), (True, 1)):
        saved = _saved(paths) if not later else 0.0
        for _ in range(2):
            claim = take(*paths, launch="a")
            write_json(paths[0], {**vars(claim.record), "pid": 2**22 + 1})  # that died
        saved = _saved(paths) if later else saved
        again = take(*paths, launch="a", saved=saved)
        assert again.record.deaths == expected
        again.release("done")


def _saved(paths: tuple[Path, Path]) -> float:
    """Save something; returns when that was."""
    time.sleep(0.02)
    kept = paths[0].with_name("kept")
    kept.write_text("x")
    time.sleep(0.02)
    return kept.stat().st_mtime
