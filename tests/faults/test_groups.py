"""What processes that train together show of themselves to a shared node."""

from __future__ import annotations

import os
import pickle
import stat
import time
from pathlib import Path

import psutil
import pytest
import torch

from flexhpc.training import Group
from flexhpc.worker.place import read_secret, write_secret
from tests.training.test_group import start


def test_they_listen_on_loopback_only(tmp_path: Path) -> None:
    ranks = start(2, tmp_path, "tests.training.endless")
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "training").exists():
            assert time.monotonic() < end
            assert all(rank.poll() is None for rank in ranks)
            time.sleep(0.05)
        found = [
            connection.laddr.ip
            for rank in ranks
            for connection in psutil.Process(rank.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert found
        assert set(found) <= {"127.0.0.1", "::1"}
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


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
