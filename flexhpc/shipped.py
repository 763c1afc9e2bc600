"""Specs and profiles shipped with flexhpc: in the package or, in a checkout, next to it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flexhpc.errors import InputError

Kind = Literal["specs", "profiles"]
_PACKAGE = Path(__file__).parent
_CHECKOUT: dict[Kind, str] = {"specs": "sweeps", "profiles": "hpc/profiles"}
"""Folders in a checkout, relative to the package's parent; setup.py copies them into a wheel."""


def folder(kind: Kind) -> Path:
    """Return the folder of the shipped specs or profiles."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / _CHECKOUT[kind]


def names(kind: Kind) -> list[str]:
    """Return the sorted names of shipped files without suffix, such as ``mini/optimizers``."""
    top = folder(kind)
    return sorted(str(path.relative_to(top).with_suffix("")) for path in top.rglob("*.yaml"))


def resolve(kind: Kind, path: Path) -> Path:
    """Return the file for a path, or for the name of a shipped spec or profile.

    An existing file takes precedence over a shipped name. A missing path with a suffix is returned
    unchanged.

    Raises:
        InputError: ``path`` has no suffix, and is neither a file nor a shipped name.
    """
    if path.exists():
        return path
    if str(path) in names(kind):
        return folder(kind) / f"{path}.yaml"
    if not path.suffix:
        known = "`flexhpc specs` lists them" if kind == "specs" else ", ".join(names(kind))
        raise InputError(f"{path}: neither a file nor one of the shipped {kind} ({known})")
    return path
