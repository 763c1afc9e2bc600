"""Every arrow between rooms that must not be is drawn once, and `make lint` finds it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import combinations, pairwise, product
from pathlib import Path

import pytest

from tests.conftest import FULL, REPOSITORY

LINT = Path(sys.executable).parent / "lint-imports"
CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def forbidden() -> Iterator[tuple[str, str]]:
    """Each pair (importer, imported) that a contract forbids; all layers only in test-full."""
    (layers,) = (c["layers"] for c in CONTRACTS if c["type"] == "layers")
    rooms = [[f"flexhpc.{room.strip()}" for room in layer.split("|")] for layer in layers]
    for above, below in combinations(rooms, 2) if FULL else pairwise(rooms):
        yield from product(below, above)
    for beside in rooms[:-1]:
        yield from ((a, b) for a, b in product(beside, beside) if a != b)
    for contract in CONTRACTS:
        if contract["type"] == "forbidden":
            yield from product(contract["source_modules"], contract["forbidden_modules"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "flexhpc", folder / "flexhpc", ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-logo", "--no-cache"], cwd=copy, text=True, check=False,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"},
    )  # fmt: skip


def test_as_it_is_no_contract_is_broken(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


ARROWS: dict[str, set[str]] = {}
for _importer, _imported in forbidden():
    ARROWS.setdefault(_importer, set()).add(_imported)


@pytest.mark.parametrize("importer", ARROWS)
def test_an_arrow_that_must_not_be_fails(importer: str, copy: Path) -> None:
    """All that this module or room must not import at once: each is told of."""
    where = copy / importer.replace(".", "/")
    file = where / "_new.py" if where.is_dir() else where.with_suffix(".py")
    before = file.read_text() if file.exists() else None
    try:
        arrows = "".join(f"    import {imported}\n" for imported in ARROWS[importer])
        file.write_text(f"{before or ''}\n\ndef _new():\n{arrows}")
        done = lint(copy)
    finally:
        file.unlink() if before is None else file.write_text(before)
    assert done.returncode == 1, done.stdout
    drawn = re.findall(rf"{re.escape(importer)}\S* -> (\S+)", done.stdout)
    for imported in ARROWS[importer]:
        assert any(f"{one}.".startswith(f"{imported}.") for one in drawn), (imported, done.stdout)


def test_a_room_that_has_no_place_fails(copy: Path) -> None:
    (copy / "flexhpc" / "attic.py").write_text("")
    try:
        assert lint(copy).returncode == 1
    finally:
        (copy / "flexhpc" / "attic.py").unlink()
