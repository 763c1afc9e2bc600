"""Versions of the running software: Python, packages, flexhpc's source code, container image."""

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
"""Packages whose versions may affect results or their storage."""
IMAGE = "FLEXHPC_IMAGE"
"""Environment variable that contains the name of the container image, as NAME@sha256:HASH or
``unknown``. It is not set outside a container."""

SOURCE = "FLEXHPC_SOURCE"
"""Environment variable that contains the :func:`source_hash` of flexhpc on the submitting machine.
In a container whose source hash differs, workers do not run tasks."""


def python_version() -> str:
    """Return the major and minor version of the running Python, for example "3.11"."""
    return ".".join(platform.python_version_tuple()[:2])


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str | None]:
    """Return a dict from each of ``PACKAGES`` to its version (None if it is not installed)."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def image_name() -> str | None:
    """Return the name of the container image of this process; None outside a container."""
    return os.environ.get(IMAGE)


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Return a hash of flexhpc's source code, which may change without a new version number.

    Specs and profiles are excluded, because they are inside the package in a wheel, but outside of
    it in a checkout.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*")):
        shipped = path.relative_to(package).parts[0] in ("specs", "profiles")
        if path.suffix in (".py", ".html", ".js", ".css", ".sh") and not shipped:
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
