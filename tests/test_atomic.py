"""Atomic file replacement, and the order of its fsync calls."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flexhpc.atomic import atomic_replacement, read_json, write_atomic, write_json


@pytest.fixture
def fsync_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Record the calls of fsync: name of the file or folder, and content at that time.

    The content of a folder is that of its last file.
    """
    calls: list[tuple[str, bytes]] = []
    fsync = os.fsync

    def recorded_fsync(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        file = path if path.is_file() else max(path.iterdir())
        calls.append((path.name, file.read_bytes()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    return calls


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_afterwards(
    fsync_calls: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "first")
    write_json(path, {"second": 2})
    second = path.read_bytes()
    assert [content for _, content in fsync_calls] == [b"first", b"first", second, second]
    names = [name for name, _ in fsync_calls]
    assert path.name not in names, "the file was synced after the rename"
    assert names[1::2] == ["new", "new"], "the folder was not synced"
    assert read_json(path) == {"second": 2}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_previous_file_remains_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_to_full_disk() -> None:
        with atomic_replacement(path) as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        write_to_full_disk()
    with atomic_replacement(path, is_permitted=lambda: False) as part:
        part.write_text("not permitted")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
