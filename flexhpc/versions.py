"""What runs here: Python, packages, flexhpc's own source, the image around it."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "flexhpc", "torch", "torchvision", "timm", "pytorch-optimizer", "numpy", "scipy", "h5py",
    "submitit", "mlflow",
)  # fmt: skip
"""Those that a result may depend on, or its record."""
IMAGE = "FLEXHPC_IMAGE"
"""Environment variable that names the image, as NAME@sha256:HASH; ``unknown`` in an image that
nobody has told which one it is; not set outside of one."""

SOURCE = "FLEXHPC_SOURCE"
"""Environment variable with the :func:`source` that a task in an image must find there."""


def python_version() -> str:
    """Return this Python's version, as "3.11"."""
    return ".".join(platform.python_version_tuple()[:2])


@lru_cache(maxsize=1)
def packages() -> dict[str, str | None]:
    """Return the version of every package that matters, None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def image() -> str | None:
    """Return the image that this process runs in, None outside of any."""
    return os.environ.get(IMAGE)


@lru_cache(maxsize=1)
def source() -> str:
    """Return a hash of flexhpc's own code: the same version may be of another day.

    Specs and profiles, which a wheel holds and a checkout has elsewhere, are none of it.
    """
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(here.rglob("*")):
        beside = path.relative_to(here).parts[0] in ("specs", "profiles")
        if path.suffix in (".py", ".html", ".sh") and not beside:
            digest.update(f"{path.relative_to(here)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
