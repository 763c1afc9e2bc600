"""MLflow's UI on a socket that only its user can reach."""

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
    output = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if output == 2:
        raise PermissionError
    return output == 0


def _healthy(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(path))
        door.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"200 OK" in door.recv(100)


def started(server: subprocess.Popen[bytes], path: Path) -> bool:
    """Return whether the server answers; it must run."""
    assert server.poll() is None, "the server ended"
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        return answers(path)
    return False


@contextlib.contextmanager
def served(run: Path, temporary: Path) -> Iterator[tuple[psutil.Process, Path]]:
    """Run the command as a user does until it answers; yield its process and its socket."""
    server = subprocess.Popen(
        [str(FLEXHPC), "ui", str(run), "--socket"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        printed = "".join(server.stdout.readline().decode() for _ in range(3))
        match = re.search(r"^ssh -N -L 5000:(\S+) ", printed, re.MULTILINE)
        assert match is not None, printed
        path = Path(match.group(1))
        wait_for(lambda: started(server, path), "the server's answer")
        yield psutil.Process(server.pid), path
    finally:
        server.terminate()
        server.communicate()


@pytest.mark.sweeps
@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_other_users_cannot_connect_and_no_port_is_open(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "run")
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as temporary,  # short enough for a socket's path
        served(tmp_path / "run", Path(temporary)) as (server, path),
    ):
        Path(temporary).chmod(0o755)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with pytest.raises(PermissionError):
            answers(path, user=65534)
        path.parent.chmod(0o711)  # access is restricted by this folder alone
        path.chmod(0o666)
        assert answers(path, user=65534)
        processes = [server, *server.children(recursive=True)]
        connections = [c for process in processes for c in process.net_connections("inet")]
        assert [c for c in connections if c.status == psutil.CONN_LISTEN] == []
