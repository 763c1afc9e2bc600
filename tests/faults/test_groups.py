"""Security of processes that train together, on a node with other users."""

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
from tests.data.writers import UNPICKLED, Malicious
from tests.training.test_group import start

Rank = subprocess.Popen[str]
StartRanks = Callable[..., list[Rank]]


@pytest.fixture
def start_ranks(tmp_path: Path) -> Iterator[StartRanks]:
    """Start ranks of a group of two that trains endlessly; return all ranks so far."""
    ranks: list[Rank] = []

    def start_more(*numbers: int) -> list[Rank]:
        ranks.extend(start(2, tmp_path, "tests.training.endless_training", numbers))
        return ranks

    yield start_more
    for rank in ranks:
        if rank.returncode is None:
            rank.kill()
            rank.communicate()


def wait_for_training(folder: Path, ranks: list[Rank]) -> None:
    def is_training() -> bool:
        assert all(rank.poll() is None for rank in ranks)
        return (folder / "training").exists()

    wait_for(is_training, "a training run")


def listening_sockets(*ranks: Rank) -> set[tuple[str, int]]:
    """Wait until the ranks listen; return their addresses, which every user can see."""
    sockets: set[tuple[str, int]] = set()
    while not sockets:
        assert all(rank.poll() is None for rank in ranks)
        all_sockets = [c for r in ranks for c in psutil.Process(r.pid).net_connections("tcp")]
        sockets = {(*c.laddr,) for c in all_sockets if c.status == psutil.CONN_LISTEN}
    return sockets


def send(address: tuple[str, int], content: bytes) -> None:
    """Connect to an address, send bytes and close the connection."""
    with (
        socket.create_connection(address) as connection,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),  # closed by the rank
    ):
        connection.sendall(content)


def test_random_bytes_sent_to_open_ports_have_no_effect(
    tmp_path: Path, start_ranks: StartRanks
) -> None:
    (address,) = listening_sockets(*start_ranks(0))
    for length in (0, 1, 9, 100_000):
        send(address, os.urandom(length))
    ranks = start_ranks(1)
    wait_for_training(tmp_path, ranks)
    assert {ip for ip, _ in listening_sockets(*ranks)} <= {"127.0.0.1", "::1"}
    for address in listening_sockets(*ranks):
        send(address, b"noise" * 1000)
    (tmp_path / "training").unlink()
    wait_for_training(tmp_path, ranks)


def test_another_user_cannot_read_the_secret_or_replace_a_rank(
    tmp_path: Path, start_ranks: StartRanks
) -> None:
    (first,) = start_ranks(0)
    ((_, port),) = listening_sockets(first)
    command = [sys.executable, "-m", "tests.faults.other_user", str(port), str(tmp_path)]
    other_user = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    _, output = first.communicate()
    assert first.returncode == 17
    assert "process 1 did not authenticate (wrong token)" in output
    assert "process 0 did not authenticate" in other_user.stderr, "the token was guessed"
    assert not (tmp_path / "training").exists()
    content = (tmp_path / "read").read_text()
    assert content
    assert str(tmp_path) not in content  # the folder is the token of these ranks


def test_only_the_owner_can_read_the_secret_of_a_job(tmp_path: Path) -> None:
    for job in ("one", "two"):
        (tmp_path / job).mkdir()
        write_secret(tmp_path / job)
        assert stat.S_IMODE((tmp_path / job / ".secret").stat().st_mode) == 0o600
    secrets = {read_secret(tmp_path / job) for job in ("one", "two")}
    assert len(secrets) == 2
    assert all(len(secret) == 32 for secret in secrets)


def test_pickles_from_a_peer_are_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(torch.device("cpu"), rank=1, size=2)
    content = bytearray(pickle.dumps(Malicious(), protocol=2))
    messages = iter([torch.tensor([len(content)]), torch.frombuffer(content, dtype=torch.uint8)])

    def broadcast(_: Group, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(next(messages))

    monkeypatch.setattr(Group, "broadcast", broadcast)
    with pytest.raises(pickle.UnpicklingError):
        group.broadcast_object(None)
    assert not UNPICKLED.exists()
