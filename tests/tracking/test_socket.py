"""MLflow's UI on a socket that only its user can reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import FLEXHPC, Cli


def answers(path: Path, user: int | None = None) -> bool:
    """Return whether the server answers, asked by a process of another user if one is given.

    Raises:
        PermissionError: that user may not ask.
    """
    if user is None:
        return _healthy(path)
    child = os.fork()
    if child == 0:
        os.setuid(user)
        with contextlib.suppress(BaseException):
            try:
                os._exit(0 if _healthy(path) else 1)
            except PermissionError:
                os._exit(2)
        os._exit(3)
    said = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said == 2:
        raise PermissionError
    return said == 0


def _healthy(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(path))
        door.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"200 OK" in door.recv(100)


@contextlib.contextmanager
def served(run: Path, path: Path) -> Iterator[psutil.Process]:
    """Run the command as a user does, until it answers."""
    server = subprocess.Popen(
        [str(FLEXHPC), "ui", str(run), "--socket", str(path)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 240
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                assert answers(path)
                break
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.2)
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_nobody_else_can_ask_and_no_port_is_open(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "run")
    path = Path("/tmp") / f"flexhpc-test-{os.getpid()}" / "ui.sock"
    try:
        with served(tmp_path / "run", path) as server:
            assert path.parent.stat().st_mode & 0o777 == 0o700
            with pytest.raises(PermissionError):
                answers(path, user=65534)
            path.parent.chmod(0o711)  # what keeps others out is this folder
            assert answers(path, user=65534)
            everyone = [server, *server.children(recursive=True)]
            doors = [door for one in everyone for door in one.net_connections("inet")]
            assert [door for door in doors if door.status == psutil.CONN_LISTEN] == []
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)


def test_a_place_that_is_no_good_is_one_line(measured: Path, tmp_path: Path, cli: Cli) -> None:
    def refused(path: Path) -> str:
        said = cli("ui", measured, "--socket", path, check=2).stderr
        assert len(said.splitlines()) == 1
        return said

    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    assert "others may enter this folder" in refused(shared / "ui.sock")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (mine / "notes").write_text("keep me")
    assert "no socket" in refused(mine / "notes")
    assert (mine / "notes").read_text() == "keep me"
    assert "at most 107 bytes" in refused(mine / ("x" * 120))
    assert "is no folder" in refused(mine / "notes" / "ui.sock")


def test_a_socket_that_a_dead_server_left_is_taken(tmp_path: Path) -> None:
    from flexhpc.tracking.ui import private_socket

    folder = tmp_path / "d"
    path = private_socket(folder / "ui.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert private_socket(path) == path
