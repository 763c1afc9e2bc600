"""Resources of this machine (GPUs, CPU cores), detected without importing torch."""

from __future__ import annotations

import os


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, without importing torch.

    Each GPU is named as in CUDA_VISIBLE_DEVICES: by its index, its UUID or the UUID of a MIG
    instance.
    """
    devices = sorted(
        (name[6:] for name in (os.listdir("/dev") if os.path.isdir("/dev") else [])
         if name.startswith("nvidia") and name[6:].isdecimal()),
        key=int,
    )  # fmt: skip
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not devices:
        return devices
    return [part.strip() for part in listed.split(",") if part.strip()]


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
