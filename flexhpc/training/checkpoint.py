"""The state of a probe in progress, on disk: atomic to write, safe to load (weights only)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from flexhpc.atomic import replacing

FORMAT = 4


def save(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader sees the old one or the new one, never a part.

    Args:
        path: where it goes.
        key: identifies the probe that it belongs to.
        state: tensors and plain values.
    """
    with replacing(path) as part, part.open("wb") as file:
        torch.save({"format": FORMAT, "key": key, **state}, file)


def load(path: Path, key: str) -> dict[str, Any] | None:
    """Return the state saved under ``key``; None if there is none, or it is not of this probe.

    A damaged file costs the probe in progress, not the point: it counts as none.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:
        return None
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("key") != key:
        return None
    return state
