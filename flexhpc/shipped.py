"""Specs and profiles that come with flexhpc: in the package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flexhpc.errors import InputError

Kind = Literal["specs", "profiles"]
_PACKAGE = Path(__file__).parent
_CHECKOUT: dict[Kind, str] = {"specs": "sweeps", "profiles": "hpc/profiles"}
"""Where they are beside the package; setup.py copies them into a wheel."""


def folder(kind: Kind) -> Path:
    """Return where they are."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / _CHECKOUT[kind]


def names(kind: Kind) -> list[str]:
    """Return their names: ``quickstart``, ``mini/optimizers``."""
    top = folder(kind)
    return sorted(str(path.relative_to(top).with_suffix("")) for path in top.rglob("*.yaml"))


def resolve(kind: Kind, given: Path) -> Path:
    """Return the file that is given, or the one that comes with flexhpc and has this name.

    Raises:
        InputError: it looks like a name, and there is neither.
    """
    if given.exists():
        return given
    if str(given) in names(kind):
        return folder(kind) / f"{given}.yaml"
    if not given.suffix:
        known = "`flexhpc specs` lists them" if kind == "specs" else ", ".join(names(kind))
        raise InputError(f"{given}: no such file, nor one of the {kind} of flexhpc ({known})")
    return given
