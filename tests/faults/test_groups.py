"""What processes that train together show of themselves to a shared node."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from flexhpc.training import Group
from flexhpc.worker.place import read_secret, write_secret
from tests.conftest import REPOSITORY
from tests.training.test_group import start


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Callable[[int], list[subprocess.Popen[str]]]]:
    """Processes that train one probe for ever; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(count: int) -> list[subprocess.Popen[str]]:
        started.extend(start(2, tmp_path, "tests.training.endless", range(count)))
        return started

    yield begin
    for rank in started:
        rank.kill()
        rank.communicate()


Begin = Callable[[int], list[subprocess.Popen[str]]]


def port_of(folder: Path) -> int:
    """Where they meet: anybody finds it by trying."""
    return 10_000 + zlib.crc32(str(folder).encode()) % 20_000


def until_they_train(folder: Path, ranks: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 120
    while not (folder / "training").exists():
        assert time.monotonic() < end
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.05)


def test_they_listen_on_loopback_only(tmp_path: Path, ranks: Begin) -> None:
    both = ranks(2)
    until_they_train(tmp_path, both)
    found = [
        connection.laddr.ip
        for rank in both
        for connection in psutil.Process(rank.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert found
    assert set(found) <= {"127.0.0.1", "::1"}


def test_noise_at_their_door_changes_nothing(tmp_path: Path, ranks: Begin) -> None:
    (first,) = ranks(1)
    for length in (0, 1, 9, 100_000):
        knock(port_of(tmp_path), os.urandom(length), first)
    both = [first, *start(2, tmp_path, "tests.training.endless", [1])]
    try:
        until_they_train(tmp_path, both)
        for listens in doors(both):
            knock(listens, b"noise" * 1000, first)
        (tmp_path / "training").unlink()
        until_they_train(tmp_path, both)
    finally:
        both[1].kill()
        both[1].communicate()


def doors(ranks: list[subprocess.Popen[str]]) -> set[int]:
    """The ports at which they listen: where they met, and those by which they train."""
    found = [c for rank in ranks for c in psutil.Process(rank.pid).net_connections("tcp")]
    return {c.laddr.port for c in found if c.status == psutil.CONN_LISTEN}


def knock(port: int, what: bytes, whose: subprocess.Popen[str]) -> None:
    """Send something to a port as soon as its owner listens there, and hang up."""
    while True:
        assert whose.poll() is None
        try:
            with (
                socket.create_connection(("127.0.0.1", port)) as door,
                contextlib.suppress(ConnectionResetError, BrokenPipeError),  # it had enough
            ):
                door.sendall(what)
            return
        except ConnectionRefusedError:
            time.sleep(0.05)


def test_a_stranger_learns_no_secret_and_takes_nobody_s_place(tmp_path: Path, ranks: Begin) -> None:
    (first,) = ranks(1)
    knock(port_of(tmp_path), b"", first)
    command = [sys.executable, "-m", "tests.faults.stranger", str(port_of(tmp_path)), str(tmp_path)]
    stranger = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    _, said = first.communicate(timeout=60)
    assert first.returncode == 17
    assert "process 1 does not know the secret of this job" in said
    assert "process 0 does not know the secret" in stranger.stderr, "its own guess is none"
    assert not (tmp_path / "training").exists()
    read = (tmp_path / "read").read_text()
    assert read
    assert str(tmp_path) not in read


def test_a_job_s_secret_is_its_user_s_alone(tmp_path: Path) -> None:
    for job in ("one", "two"):
        (tmp_path / job).mkdir()
        write_secret(tmp_path / job)
        assert stat.S_IMODE((tmp_path / job / ".secret").stat().st_mode) == 0o600
    secrets = {read_secret(tmp_path / job) for job in ("one", "two")}
    assert len(secrets) == 2
    assert all(len(secret) == 32 for secret in secrets)
    assert read_secret(tmp_path) == str(tmp_path), "of an older flexhpc"


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/flexhpc-evil",)


def test_what_is_told_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that sends an object is not obeyed: what it would call is not called."""
    group = Group(torch.device("cpu"), rank=1, size=2)
    content = bytearray(pickle.dumps(Evil(), protocol=2))
    told = iter([torch.tensor([len(content)]), torch.frombuffer(content, dtype=torch.uint8)])

    def broadcast(_: Group, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(next(told))

    monkeypatch.setattr(Group, "broadcast", broadcast)
    with pytest.raises(pickle.UnpicklingError):
        group.broadcast_object(None)
    assert not Path("/tmp/flexhpc-evil").exists()
