"""MLflow's UI on a socket that only its user can reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flexhpc.errors import InputError
from flexhpc.tracking.ui import private_socket
from tests.barrier import wait_for
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


def started(server: subprocess.Popen[bytes], path: Path) -> bool:
    """Return whether the server answers; it must run."""
    assert server.poll() is None, "the server ended"
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        return answers(path)
    return False


@contextlib.contextmanager
def served(run: Path, path: Path) -> Iterator[psutil.Process]:
    """Run the command as a user does, until it answers."""
    server = subprocess.Popen(
        [str(FLEXHPC), "ui", str(run), "--socket", str(path)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: started(server, path), "the server's answer")
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


@pytest.mark.sweeps
@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_nobody_else_can_ask_and_no_port_is_open(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "run")
    path = Path("/tmp") / f"flexhpc-test-{os.getpid()}" / "ui.sock"
    try:
        left = socket.socket(socket.AF_UNIX)  # as of a server that was killed
        left.bind(str(private_socket(path)))
        left.close()
        with served(tmp_path / "run", path) as server:
            assert path.parent.stat().st_mode & 0o777 == 0o700
            with pytest.raises(PermissionError):
                answers(path, user=65534)
            path.parent.chmod(0o711)  # what keeps others out is this folder
            path.chmod(0o666)
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


def test_folders_above_that_others_may_change_are_refused(tmp_path: Path) -> None:
    """They could put a folder of theirs in place of mine."""
    group = tmp_path / "group"
    mine = group / "me"
    mine.mkdir(parents=True, mode=0o700)
    group.chmod(0o777)
    with pytest.raises(InputError, match="others may replace"):
        private_socket(mine / "ui.sock")
    group.chmod(0o1777)  # as /tmp is
    assert private_socket(mine / "ui.sock") == mine / "ui.sock"
    before = os.umask(0)
    try:
        made = private_socket(mine / "a" / "b" / "ui.sock")
    finally:
        os.umask(before)
    assert {folder.stat().st_mode & 0o777 for folder in (made.parent, made.parent.parent)} == {
        0o700
    }


def test_only_what_a_dead_server_left_is_taken(tmp_path: Path) -> None:
    path = private_socket(tmp_path / "d" / "ui.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(InputError, match="listens there already"):
            private_socket(path)
    assert private_socket(path) == path


def test_a_link_is_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("shared")
    with pytest.raises(InputError, match="shared: others may enter"):
        private_socket(tmp_path / "link" / "ui.sock")
