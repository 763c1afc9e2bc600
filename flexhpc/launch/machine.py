"""Resources of this machine (GPUs, CPU cores), detected without importing torch."""

from __future__ import annotations

import os
from pathlib import Path


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, without importing torch.

    Each GPU is named as in CUDA_VISIBLE_DEVICES: by its index, its UUID or the UUID of a MIG
    instance.
    """
    indices = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia*"))
    devices = sorted(filter(str.isdecimal, indices), key=int)
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not devices:
        return devices
    return [part.strip() for part in listed.split(",") if part.strip()]


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
