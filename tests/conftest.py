"""Shared fixtures: the command line, small specs, a finished run; the order of tests."""

from __future__ import annotations

import contextlib
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
from tests.barrier import TIMEOUT
from tests.command import run_flexhpc
from tests.speeds import BUDGET, ORDER

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
FLEXHPC = Path(sys.executable).parent / "flexhpc"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

torch.set_num_threads(1)

SMALL_SPEC = """\
name: small
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 120}
  search: {policy: bisection, start: 16, tolerance: 0.2}
grid:
  model.width: [4, 8, 12]
"""
"""Three points, each measured in about one second."""

FULL = "FLEXHPC_TEST_FULL" in os.environ
"""Whether slow tests use all repetitions and sizes (``make test-full``)."""
settings.register_profile("flexhpc", deadline=None, max_examples=100 if FULL else 40)
settings.load_profile("flexhpc")

SWEEPS = (
    "launch/test_sweep.py", "launch/test_interruptions.py",
    "measuring/test_pool.py", "measuring/test_evaluation.py", "measuring/test_tuned.py",
    "tracking/test_sync.py", "training/test_group.py", "search/test_bayes.py",
    "test_bench_search.py", "test_bench_recipe.py", "test_extending.py", "test_known_answers.py",
    "test_package.py", "faults/test_fuzz.py", "faults/test_groups.py", "faults/test_input.py",
    "faults/test_point_files.py", "store/test_archive.py", "test_bench_speed.py",
    "reference/test_reference.py",
)  # fmt: skip
"""Files of tests that start sweeps or many commands, or simulate: not in ``make check``."""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run commands in an empty folder; check their exit status, by default 0."""

    def run(*arguments: object, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = run_flexhpc(tmp_path, *arguments)
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    """A spec of three small points."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_SPEC)
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile with one worker, without tracking."""
    path = tmp_path / "untracked.yaml"
    path.write_text("workers: 1\ntracking_uri: none\n")
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished sweep of the small spec; tests must not change it.

    Next to the folder ``runs``, ``outcome.json`` contains the exit status and output of the sweep,
    and remaining processes.
    """

    def measure(folder: Path) -> None:
        spec = folder / "small.yaml"
        spec.write_text(SMALL_SPEC)
        outcome: dict[str, Any] = {"status": None, "output": "the sweep did not end"}
        try:
            done = subprocess.run(
                [str(FLEXHPC), "sweep", str(spec)], cwd=folder, capture_output=True, text=True,
            )  # fmt: skip
            deadline = time.monotonic() + 10  # for processes that are about to exit
            while (remaining := sorted(processes_in(folder))) and time.monotonic() < deadline:
                time.sleep(0.1)
            output = done.stdout + done.stderr
            outcome = {"status": done.returncode, "output": output, "remaining": remaining}
        finally:
            (folder / "outcome.json").write_text(json.dumps(outcome))

    folder = shared_folder(tmp_path_factory, "measured", measure)
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["status"] == 0, outcome["output"]
    return folder / "runs" / "small"


def shared_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]
) -> Path:
    """Create and fill a folder once for all processes of pytest-xdist; return its path."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    filled = folder.with_name(f"{name}.filled")
    with FileLock(f"{folder}.lock"):
        if not filled.exists():
            folder.mkdir()  # fails if another process could not fill the folder
            fill(folder)
            filled.touch()
    return folder


def processes_in(folder: Path) -> Iterator[str]:
    """Yield the commands of processes with this folder in their command or working directory."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(folder) in command or str(folder) in (process.info["cwd"] or ""):
            yield command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Function that mounts a file system of a size, such as ``300k``, and returns its path."""
    from tests.faults.machines import mounted
    from tests.faults.site import Unavailable

    with contextlib.ExitStack() as stack:

        def mount(size: str) -> Path:
            try:
                stack.enter_context(mounted(tmp_path / "small", f"size={size}"))
            except Unavailable as error:
                pytest.skip(str(error))
            return tmp_path / "small"

        yield mount


@pytest.fixture(scope="module")
def _browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("the browser tests must run in CI: chromium is not installed")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT * 1000)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def chromium(_browser: Any) -> Iterator[Any]:
    """A browser without a window; its pages are closed after the test."""
    yield _browser
    for context in _browser.contexts:
        context.close()


@pytest.fixture(scope="session", autouse=True)
def _smaller_budgets() -> Iterator[None]:
    """Divide the budgets of all specs that tests write, for `make test-speeds`."""
    divisor = int(os.environ.get(BUDGET, "1"))
    original = Path.write_text

    def write_text(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if path.suffix == ".yaml":
            text = re.sub(
                r"\b(epochs|steps): (\d+)\b",
                lambda match: f"{match[1]}: {max(1, int(match[2]) // divisor)}",
                text,
            )
        return original(path, text, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        if divisor > 1:
            patch.setattr(Path, "write_text", write_text)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude imported modules from garbage collection."""
    with imports_without_gc():
        result = yield
    gc.freeze()
    return result


def pytest_sessionstart() -> None:
    """Kill the processes that tests start when this process ends."""
    reaper.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the marks slurm, container and sweeps; run the SLURM tests first, which take longest.

    pytest-xdist gives each process a contiguous part of the list, from which idle processes steal.
    """
    for item in items:
        for folder in ("slurm", "container"):
            if item.path.is_relative_to(REPOSITORY / "tests" / folder):
                item.add_marker(folder)
        if str(item.path).endswith(SWEEPS):
            item.add_marker("sweeps")
    if ORDER in os.environ:
        rng = random.Random(os.environ[ORDER])  # the same in all processes of pytest-xdist
        keys = {path: rng.random() for path in sorted({str(item.path) for item in items})}
        items.sort(key=lambda item: (keys[str(item.path)], rng.random()))
    slow = [item for item in items if item.get_closest_marker("slurm")]
    others = [item for item in items if item not in slow]
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    ordered: list[pytest.Item] = []
    for part in range(parts):
        ordered += slow[part::parts]
        end = len(items) * (part + 1) // parts
        count = max(0, end - len(ordered)) if part < parts - 1 else len(others)
        ordered += others[:count]
        others = others[count:]
    items[:] = ordered
