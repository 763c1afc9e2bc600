"""The MLflow UI on a Unix socket that only its user can reach."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.barrier import wait_for
from tests.conftest import FLEXHPC

NOBODY = 65534
"""Id of a user without special permissions."""


def is_healthy(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"200 OK" in client.recv(100)


def is_healthy_for_nobody(path: Path) -> bool:
    """Request the server's health in a process of a different user.

    Raises:
        PermissionError: the user may not connect.
    """
    child = os.fork()
    if child == 0:
        os.setuid(NOBODY)
        with contextlib.suppress(BaseException):
            try:
                os._exit(0 if is_healthy(path) else 1)
            except PermissionError:
                os._exit(2)
        os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 2:
        raise PermissionError
    return status == 0


@contextlib.contextmanager
def served(run: Path, temporary: Path) -> Iterator[tuple[psutil.Process, Path]]:
    """Run ``flexhpc ui --socket``; yield its process and its socket once the server responds."""
    server = subprocess.Popen(
        [str(FLEXHPC), "ui", str(run), "--socket"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip

    def responds() -> bool:
        assert server.poll() is None, "the server ended"
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return is_healthy(path)
        return False

    try:
        output = "".join(server.stdout.readline().decode() for _ in range(3))
        match = re.search(r"^ssh -N -L 5000:(\S+) ", output, re.MULTILINE)
        assert match is not None, output
        path = Path(match.group(1))
        wait_for(responds, "a response of the server")
        yield psutil.Process(server.pid), path
    finally:
        server.terminate()
        server.communicate()


@pytest.mark.sweeps
@pytest.mark.skipif(os.getuid() != 0, reason="changing the user id needs root")
def test_other_users_cannot_connect_and_no_port_is_open(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as temporary,  # short enough for a socket's path
        served(tmp_path / "run", Path(temporary)) as (server, path),
    ):
        Path(temporary).chmod(0o755)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with pytest.raises(PermissionError):
            is_healthy_for_nobody(path)
        path.parent.chmod(0o711)  # access is restricted by this folder alone
        path.chmod(0o666)
        assert is_healthy_for_nobody(path)
        processes = [server, *server.children(recursive=True)]
        connections = [c for process in processes for c in process.net_connections("inet")]
        assert [c for c in connections if c.status == psutil.CONN_LISTEN] == []
