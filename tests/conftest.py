"""What the tests share: the command line as a user runs it, and small real specs."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from flexhpc.imports import imports_without_gc
from tests import reaper
from tests.command import flexhpc
from tests.speeds import BUDGET, ORDER

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
FLEXHPC = Path(sys.executable).parent / "flexhpc"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

torch.set_num_threads(1)

SMALL = """\
name: small
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 120}
  search: {policy: bisection, start: 16, tolerance: 0.2}
grid:
  model.width: [4, 8, 12]
"""
"""Three points, each measured in about a second."""

FULL = "FLEXHPC_TEST_FULL" in os.environ
"""``make test-full``: every repetition and size; otherwise fewer of what takes longest."""
settings.register_profile("flexhpc", deadline=None, max_examples=100 if FULL else 40)
settings.load_profile("flexhpc")

SWEEPS = (
    "launch/test_sweep.py", "launch/test_interruptions.py", "launch/test_old_run.py",
    "measuring/test_pool.py", "measuring/test_point.py", "measuring/test_tuned.py",
    "tracking/test_sync.py", "training/test_group.py", "search/test_bayes.py",
    "test_bench_search.py", "test_bench_recipe.py", "test_extending.py", "test_known_answers.py",
    "test_package.py", "faults/test_fuzz.py", "faults/test_groups.py", "faults/test_input.py",
    "faults/test_point_files.py", "store/test_archive.py", "test_bench_speed.py",
    "reference/test_reference.py",
)  # fmt: skip
"""Files whose tests start sweeps or many commands, simulate or time: not in ``make check``."""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run flexhpc in an empty folder, as a user would; returns the finished command."""

    def run(*arguments: object, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = flexhpc(tmp_path, *arguments)
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    """A spec of three small points."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def untracked(tmp_path: Path) -> Path:
    """A profile of one worker, without tracking: what most sweeps of tests need."""
    path = tmp_path / "untracked.yaml"
    path.write_text("workers: 1\ntracking_uri: none\n")
    return path


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the small spec, measured once by the real command; only to be read.

    One for all processes of pytest, whose base folders lie beside each other. Beside ``runs`` lies
    ``outcome.json``: what the command said, its exit status, and which processes of it were left.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "measured"
    run = folder / "runs" / "small"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            spec = folder / "small.yaml"
            spec.write_text(SMALL)
            outcome: dict[str, Any] = {"status": None, "said": "it did not end", "left": []}
            try:
                done = subprocess.run(
                    [str(FLEXHPC), "sweep", str(spec)], cwd=folder, capture_output=True, text=True,
                )  # fmt: skip
                patience = time.monotonic() + 10  # a process that ends is not one that is left
                while (left := sorted(processes_in(folder))) and time.monotonic() < patience:
                    time.sleep(0.1)
                outcome = {
                    "status": done.returncode, "said": done.stdout + done.stderr, "left": left,
                }  # fmt: skip
            finally:
                (folder / "outcome.json").write_text(json.dumps(outcome))
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["status"] == 0, outcome["said"]
    return run


def processes_in(folder: Path) -> Iterator[str]:
    """Yield the commands of processes that work in a folder, or were told of it."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(folder) in command or str(folder) in (process.info["cwd"] or ""):
            yield command


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("the tests in a browser must run here: chromium is not installed")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def _smaller_budgets() -> Iterator[None]:
    """Divide the budgets of all specs that tests write, for `make test-speeds`."""
    divisor = int(os.environ.get(BUDGET, "1"))
    written = Path.write_text

    def write_text(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if path.suffix == ".yaml":
            text = re.sub(
                r"\b(epochs|steps): (\d+)\b",
                lambda found: f"{found[1]}: {max(1, int(found[2]) // divisor)}",
                text,
            )
        return written(path, text, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        if divisor > 1:
            patch.setattr(Path, "write_text", write_text)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Set aside what is imported for good, so that the collector never looks through it."""
    with imports_without_gc():
        found = yield
    gc.freeze()
    return found


def pytest_sessionstart() -> None:
    """See to it that nothing this process starts outlives it, however it ends."""
    reaper.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder; begin with those of SLURM, which take longest.

    pytest-xdist gives each process a part of the list, in order, and lets idle ones steal the rest.
    """
    for item in items:
        for room in ("slurm", "container"):
            if item.path.is_relative_to(REPOSITORY / "tests" / room):
                item.add_marker(room)
        if str(item.path).endswith(SWEEPS):
            item.add_marker("sweeps")
    if ORDER in os.environ:
        draw = random.Random(os.environ[ORDER])  # the same in all processes of pytest-xdist
        keys = {path: draw.random() for path in sorted({str(item.path) for item in items})}
        items.sort(key=lambda item: (keys[str(item.path)], draw.random()))
    slow = [item for item in items if item.get_closest_marker("slurm")]
    quick = [item for item in items if item not in slow]
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    ordered, at = [], 0
    for part in range(parts):
        mine, end = slow[part::parts], len(items) * (part + 1) // parts
        more = max(0, end - len(ordered) - len(mine)) if part < parts - 1 else len(quick)
        ordered += [*mine, *quick[at : at + more]]
        at += more
    items[:] = ordered
