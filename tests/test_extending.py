"""The modules and lines of docs/extending.md, added to a copy of flexhpc."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()
MODULE = re.compile(r"^(flexhpc/\S+\.py):\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r'^Add to `MODULES` in `(flexhpc/\S+\.py)`: `("\S+",)`$', re.MULTILINE)
SPEC = """\
name: extended
fixed:
  data: {source: npz, path: vectors.npz, labels: random}
  model: {family: fourier, features: 40}
  training: {optimizer: rmsprop, lr: 1e-2, batch_size: 32, steps: 600}
  search: {policy: rungs, rungs: [4, 16, 64, 256], eps: [0.1]}
grid:
  seed: [0]
"""
MAIN = "from flexhpc.cli import main; main()"
WITHOUT_TORCH = f"""\
import sys
try:
    {MAIN}
except SystemExit as exit:
    assert not exit.code, exit.code
assert not {{'torch', 'mlflow'}} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def extended_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the copy of flexhpc, a spec and an .npz file of vectors."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(
        REPOSITORY / "flexhpc", folder / "flexhpc", ignore=shutil.ignore_patterns("*.pyc.*")
    )
    modules, lines = MODULE.findall(PAGE), LINE.findall(PAGE)
    assert len(modules) == len(lines) == 5
    for path, text in modules:
        assert not (folder / path).exists()
        (folder / path).write_text(text)
    for path, line in lines:
        before = (folder / path).read_text()
        after = re.sub(r"^(MODULES = \[\n(?:    .*\n)*)\]", rf"\1    {line}\n]", before, flags=re.M)
        assert len(after.splitlines()) == len(before.splitlines()) + 1
        (folder / path).write_text(after)
    rng = np.random.default_rng(0)
    np.savez(folder / "vectors.npz", x=rng.normal(size=(300, 20)), y=rng.integers(0, 3, 300))
    (folder / "spec.yaml").write_text(SPEC)
    return folder


def run_copy(package: Path, folder: Path, *arguments: str, code: str = MAIN) -> str:
    """Run the copy of flexhpc in the folder ``package``; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(package)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_specs_with_new_variants_are_validated_without_torch(extended_copy: Path) -> None:
    assert "1 point" in run_copy(
        extended_copy, extended_copy, "validate", "spec.yaml", code=WITHOUT_TORCH
    )


def test_a_point_of_new_variants_is_measured(extended_copy: Path) -> None:
    """41 parameters per class fit between 41 and 82 random labels."""
    (extended_copy / "profile.yaml").write_text("workers: 1\ntracking_uri: none\n")
    run_copy(extended_copy, extended_copy, "sweep", "spec.yaml", "--profile", "profile.yaml")
    (row,) = json.loads(
        run_copy(extended_copy, extended_copy, "results", "runs/extended", "--format", "json")
    )
    assert (row["params"], row["censored"], row["ended_by"]) == (41 * 3, "none", "complete")
    assert row["largest_fit"] >= 16
    assert row["emc_eps_0.1"] >= 4
    assert row["smallest_fail"] <= 256
    page = (extended_copy / "runs" / "extended" / "report" / "index.html").read_text()
    assert "<h2>Cost</h2>" in page
    assert (extended_copy / "runs" / "extended" / "report" / "cost.svg").is_file()


def test_new_variants_in_packed_data_the_plan_and_the_reference(extended_copy: Path) -> None:
    run_copy(
        extended_copy, extended_copy, "data", "prepare", "npz", "--set", "data.path=vectors.npz"
    )
    assert (extended_copy / "data" / "vectors.packed").is_file()
    planned = json.loads(
        run_copy(extended_copy, extended_copy, "plan", "spec.yaml", "--json", "--params")
    )
    assert planned["points"][0]["params"] == 41 * 3
    code = "from flexhpc.config.reference import render_reference; print(render_reference())"
    reference = run_copy(extended_copy, extended_copy, code=code)
    assert all(f"### `{name}`" in reference for name in ("rmsprop", "npz", "fourier", "rungs"))
