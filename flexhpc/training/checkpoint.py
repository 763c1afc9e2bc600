"""Checkpoints of training runs in progress: written atomically, loaded with ``weights_only``.

A checkpoint is the zip archive that torch.save writes. :func:`load` verifies the checksum of every
member of the archive. torch.load does not verify checksums, so training could continue from a state
with a flipped bit.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from flexhpc.atomic import atomic_replacement, read_regular_file

FORMAT = 5


def save(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; replace an existing file atomically.

    Args:
        path: file to write, in an existing folder.
        key: identifies the training run.
        state: tensors, strings, numbers and None, also in nested dicts, lists and tuples.
    """
    with atomic_replacement(path, create_folder=False) as part, part.open("wb") as file:
        torch.save({"format": FORMAT, "key": key, **state}, file)


def load(path: Path, key: str) -> dict[str, Any] | None:
    """Return the state that :func:`save` wrote with the same key and format version.

    The result is None if no such state exists, or if the file is damaged.
    """
    try:
        content = read_regular_file(path)
        _verify_checksums(content)
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a damaged file raises exceptions of many types
        return None
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("key") != key:
        return None
    return state


def _verify_checksums(content: bytes) -> None:
    """Verify the checksum of every member of a checkpoint.

    Attributes have no checksum. From a member whose attributes mark it as a folder, torch would
    load uninitialised memory.

    Raises:
        zipfile.BadZipFile: the content is damaged, or is not an uncompressed zip archive.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise zipfile.BadZipFile("a member is compressed")
        if any(member.external_attr for member in archive.infolist()):
            raise zipfile.BadZipFile("a member has attributes, but torch writes none")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} is corrupt (checksum mismatch)")
