"""What processes that train together show of themselves to a shared node."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from flexhpc.training import Group
from flexhpc.worker.environment import read_secret, write_secret
from tests.barrier import wait_for
from tests.conftest import REPOSITORY
from tests.data.writers import CALLED, Evil
from tests.training.test_group import start

Rank = subprocess.Popen[str]
Begin = Callable[..., list[Rank]]


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Begin]:
    """Begins some of two processes that train one probe for ever; ended with the test."""
    started: list[Rank] = []

    def begin(*numbers: int) -> list[Rank]:
        started.extend(start(2, tmp_path, "tests.training.endless", numbers))
        return started

    yield begin
    for rank in started:
        if rank.returncode is None:
            rank.kill()
            rank.communicate()


def until_they_train(folder: Path, ranks: list[Rank]) -> None:
    def trains() -> bool:
        assert all(rank.poll() is None for rank in ranks)
        return (folder / "training").exists()

    wait_for(trains, "a training run")


def doors(*ranks: Rank) -> set[tuple[str, int]]:
    """Where they listen, once they do: they meet there, and train; anybody sees it."""
    found: set[tuple[str, int]] = set()
    while not found:
        assert all(rank.poll() is None for rank in ranks)
        some = [c for rank in ranks for c in psutil.Process(rank.pid).net_connections("tcp")]
        found = {(c.laddr.ip, c.laddr.port) for c in some if c.status == psutil.CONN_LISTEN}
    return found


def knock(door: tuple[str, int], what: bytes) -> None:
    """Send something there, and hang up."""
    with (
        socket.create_connection(door) as opened,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),  # it had enough
    ):
        opened.sendall(what)


def test_noise_at_their_door_on_loopback_changes_nothing(tmp_path: Path, ranks: Begin) -> None:
    (door,) = doors(*ranks(0))
    for length in (0, 1, 9, 100_000):
        knock(door, os.urandom(length))
    both = ranks(1)
    until_they_train(tmp_path, both)
    assert {ip for ip, _ in doors(*both)} <= {"127.0.0.1", "::1"}
    for one in doors(*both):
        knock(one, b"noise" * 1000)
    (tmp_path / "training").unlink()
    until_they_train(tmp_path, both)


def test_a_stranger_learns_no_secret_and_takes_nobody_s_place(tmp_path: Path, ranks: Begin) -> None:
    (first,) = ranks(0)
    ((_, port),) = doors(first)
    command = [sys.executable, "-m", "tests.faults.stranger", str(port), str(tmp_path)]
    stranger = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    _, output = first.communicate()
    assert first.returncode == 17
    assert "process 1 did not authenticate (wrong token)" in output
    assert "process 0 did not authenticate" in stranger.stderr, "its own guess is none"
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
    assert not CALLED.exists()
