"""The state of a probe in progress, on disk: atomic to write, safe to load (weights only).

It is a zip archive, as torch.save writes it, with a checksum of every member. torch.load does not
compare them, and one flipped bit would be trained on: so :func:`load` does.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from flexhpc.atomic import read_plain, replacing

FORMAT = 5


def save(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader sees the old one or the new one, never a part.

    Args:
        path: where it goes; its folder is there.
        key: identifies the probe that it belongs to.
        state: tensors and plain values.
    """
    with replacing(path, makes_folder=False) as part, part.open("wb") as file:
        torch.save({"format": FORMAT, "key": key, **state}, file)


def load(path: Path, key: str) -> dict[str, Any] | None:
    """Return the state saved under ``key``; None if there is none, or it is not of this probe.

    A damaged file costs the probe in progress, not the point: it counts as none.
    """
    try:
        content = read_plain(path)
        _check(content)
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # of many kinds, where the file is damaged
        return None
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("key") != key:
        return None
    return state


def _check(content: bytes) -> None:
    """Compare every member with its checksum.

    Raises:
        zipfile.BadZipFile: it is none, or damaged.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise zipfile.BadZipFile("its members are not stored as they are")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
