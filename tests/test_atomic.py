"""The one place that replaces files: the old one or the new one, on the disk before its name is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flexhpc.atomic import read_json, replacing, write_atomic, write_json


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What was brought to the disk: each time the file's name and its content then.

    Of a folder: which names are in it, and what the file under the last of them holds.
    """
    calls: list[tuple[str, bytes]] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        holds = path if path.is_file() else max(path.iterdir())
        calls.append((path.name, holds.read_bytes()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return calls


def test_the_whole_file_is_on_the_disk_before_it_takes_the_place(
    synced: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "first")
    write_json(path, {"second": 2})
    second = path.read_bytes()
    assert [content for _, content in synced] == [b"first", b"first", second, second]
    names = [name for name, _ in synced]
    assert path.name not in names, "under a name of its own until then"
    assert names[1::2] == ["new", "new"], "and then its name, in its folder"
    assert read_json(path) == {"second": 2}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_need_not_outlive_a_power_failure_is_not_waited_for(
    synced: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    write_atomic(tmp_path / "file", "x", durable=False)
    assert synced == []
    assert (tmp_path / "file").read_text() == "x"


def test_whatever_goes_wrong_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fill_the_disk() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    with replacing(path, permitted=lambda: False) as part:
        part.write_text("another's")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
