"""Find the specs and profiles shipped with flexhpc.

They are in the installed package or, in a checkout, in folders next to the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flexhpc.errors import InputError

Kind = Literal["specs", "profiles"]
_PACKAGE = Path(__file__).parent
_CHECKOUT: dict[Kind, str] = {"specs": "sweeps", "profiles": "hpc/profiles"}
"""Folders of specs and profiles in a checkout, relative to its root. setup.py copies them into a
wheel."""


def shipped_folder(kind: Kind) -> Path:
    """Return the folder of the shipped specs or profiles."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / _CHECKOUT[kind]


def shipped_names(kind: Kind) -> list[str]:
    """Return the sorted names of the shipped specs or profiles, such as ``mini/optimizers``."""
    top = shipped_folder(kind)
    return sorted(str(path.relative_to(top).with_suffix("")) for path in top.rglob("*.yaml"))


def resolve_path(kind: Kind, path: Path) -> Path:
    """Return the path of a spec or profile; ``path`` is a path or the name of a shipped file.

    An existing file takes precedence over a shipped name. A path with a suffix is returned
    unchanged, even if the file does not exist.

    Raises:
        InputError: ``path`` has no suffix, and is neither a file nor a shipped name.
    """
    if path.exists():
        return path
    if str(path) in shipped_names(kind):
        return shipped_folder(kind) / f"{path}.yaml"
    if not path.suffix:
        known = "`flexhpc specs` lists them" if kind == "specs" else ", ".join(shipped_names(kind))
        raise InputError(f"{path}: neither a file nor one of the shipped {kind} ({known})")
    return path
