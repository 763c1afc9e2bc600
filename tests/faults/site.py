"""A folder with a short sweep, into which faults are injected, and checks of its results."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
import pytest

from flexhpc.errors import PointError
from tests.barrier import TIMEOUT, Barrier
from tests.sweeps import (
    kill_sweep,
    logged_names,
    measure_undisturbed,
    probes_in,
    results_by_point,
    start_command,
)

SPEC = """\
name: faults
fixed:
  data: {source: digits, labels: random, n_max: 300}
  model: {family: "barrier_net:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 200, shards: 2,
    gates: {plateau: off}}
  search: {policy: bisection, start: 64, tolerance: 0.2}
grid: {model.kwargs.width: [8, 12]}
"""
_MAX_PASSES = 400
"""Faults occur after fewer forward passes; a point takes more than 1,000."""


@dataclass
class Outcome:
    """Outcome of a sweep with faults of one kind.

    Attributes:
        faults: number of faults that occurred.
        survived: number of sweeps with the same results as without faults.
        lost: number of finished probes that were missing afterwards.
        duplicates: number of probes and files that exist twice.
        wrong: number of unexpected results and messages.
        messages: error messages of failed points, and descriptions of wrong results.
    """

    faults: int = 0
    survived: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        return bool(self.lost or self.duplicates or self.wrong)

    @property
    def passed(self) -> bool:
        return self.faults > 0 and not self.broken


@lru_cache
def expected() -> dict[str, object]:
    """Return the results of the sweep without faults."""
    with TemporaryDirectory() as folder:
        return results_by_point(measure_undisturbed(Path(folder), SPEC))


class Unavailable(Exception):
    """This kind of fault cannot be caused on this machine."""


def skip(reason: Unavailable) -> NoReturn:
    """Skip a test that needs something that this machine lacks; fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"the fault tests must run in CI: {reason}")
    pytest.skip(str(reason))


class Site:
    """A folder in which a sweep is started again and again until it is complete."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rng, self.outcome = folder, rng, Outcome()
        self.spec = folder / "faults.yaml"
        self.spec.write_text(SPEC)
        self.barrier = Barrier(folder)
        self.run = folder / "runs" / "faults"
        self.write_profile("tracking_uri: none")
        self._started: list[subprocess.Popen[str]] = []
        self._probes: set[tuple[object, ...]] = set()
        self._expected: Callable[[], dict[str, object]] = expected

    def use_spec(self, spec: str) -> None:
        """Replace the spec; run the sweep once without faults."""
        self.spec.write_text(spec)
        self.finish(self.start())
        undisturbed = results_by_point(self.run)
        self._expected = lambda: undisturbed

    def write_profile(self, *lines: str, workers: int = 2) -> None:
        """Write a profile with frequent checkpoints and enough retries."""
        common = (f"workers: {workers}", "retries: 100", "checkpoint_every: 0.1")
        (self.folder / "profile.yaml").write_text("\n".join([*common, *lines]) + "\n")

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start or resume the sweep."""
        sweep = start_command(self.spec, self.folder / "profile.yaml", environment)
        self._started.append(sweep)
        return sweep

    def kill(self, sweep: subprocess.Popen[str]) -> None:
        """Kill a sweep and all processes that it started; check the probes."""
        kill_sweep(sweep)
        self.check_probes()

    def kill_sweeps(self) -> None:
        for sweep in self._started:
            if sweep.poll() is None:
                kill_sweep(sweep)

    def record_wrong_result(self, message: str) -> None:
        self.outcome.wrong += 1
        self.outcome.messages.append(message)

    def expect(self, condition: bool, output: str) -> None:
        """Record a wrong result with the end of the output if the condition is false."""
        if not condition:
            self.record_wrong_result(output[-300:])

    def signal_worker(self, sweep: subprocess.Popen[str], number: int) -> list[int]:
        """Send a signal to a worker in the middle of a probe; return its process id, if any."""
        pids = self.hold(sweep)[:1]
        for pid in pids:
            os.kill(pid, number)
            self.outcome.faults += 1
        return pids

    def finish(self, sweep: subprocess.Popen[str], *, check: bool = True) -> str:
        """Wait for a sweep; check the probes unless ``check`` is False; return its output.

        A traceback in the output is a wrong result.
        """
        self.barrier.open()
        try:
            output, _ = sweep.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill(sweep)
            self.record_wrong_result(f"no end after {TIMEOUT:.0f} s")
            return ""
        if check:
            self.check_probes()
        if (start := max(output.find(mark) for mark in ("Traceback", '|   File "'))) >= 0:
            self.record_wrong_result(output[start:][-1500:])
        lines = output.splitlines()
        self.outcome.messages += [line for line in lines if line.startswith("failed: ")]
        return output

    def finish_with_status(self, sweep: subprocess.Popen[str], *statuses: int) -> str:
        """Wait for a sweep that must exit with one of these statuses, by default 0."""
        output = self.finish(sweep)
        if sweep.returncode not in (statuses or (0,)):
            self.record_wrong_result(f"status {sweep.returncode}: {output[-500:]}")
        return output

    def wait(self, sweep: subprocess.Popen[str], condition: Callable[[], object]) -> None:
        """Wait until a condition is true or the sweep ends."""
        deadline = time.monotonic() + TIMEOUT
        while not condition() and sweep.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def hold(self, sweep: subprocess.Popen[str], processes: int = 1) -> list[int]:
        """Let training runs make a random number of forward passes; wait until they are held.

        Returns:
            The ids of the processes that are held; none if the sweep ends first.
        """
        self.barrier.hold(int(self.rng.integers(1, _MAX_PASSES)))
        self.wait(sweep, lambda: len(self.barrier.waiting()) >= processes)
        return sorted(self.barrier.waiting())

    def check_probes(self) -> None:
        """Count the probes that were lost since the last call, and the duplicates."""
        probes: set[tuple[object, ...]] = set()
        if (self.run / "sweep.yaml").is_file():
            try:
                probes = probes_in(self.run)
            except PointError:
                return
        self.outcome.lost += len(self._probes - probes)
        keys = [probe[:-1] for probe in probes]
        self.outcome.duplicates += len(keys) - len(set(keys))
        self._probes = probes

    def forget_point(self, point_id: str) -> None:
        """Do not expect the probes of a point whose file was removed."""
        self._probes = {probe for probe in self._probes if probe[0] != point_id}

    def remove_run(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        self._probes = set()

    def resume_and_compare(self) -> Outcome:
        """Resume the sweep without faults; compare its results with those of a run without faults.

        Checkpoints and temporary files that remain count as duplicates.
        """
        before = self.outcome.wrong
        sweep = self.start()
        output = self.finish(sweep)
        if sweep.returncode != 0:
            self.record_wrong_result(output[-500:])
        elif results_by_point(self.run) != self._expected():
            self.record_wrong_result("results differ")
        remaining = [*self.run.rglob("*.ckpt"), *self.run.rglob("*.part")]
        if remaining and not self.outcome.wrong:
            self.outcome.duplicates += len(remaining)
            self.outcome.messages += [f"not removed: {path.name}" for path in remaining]
        if self.outcome.wrong == before:
            self.outcome.survived += 1
        return self.outcome

    def check_tracking(self) -> None:
        """Check that MLflow contains every point and probe once."""
        names = logged_names(self.run)
        self.outcome.duplicates += len(names) - len(set(names))
        self.outcome.lost += len(self._probes) + len(expected()) - len(set(names))


Fault = Callable[[Site, int], Outcome]
