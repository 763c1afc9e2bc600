"""A short sweep that faults befall, and what must be true of it afterwards."""

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
from flexhpc.tracking.quiet import mlflow_client
from tests.barrier import Barrier
from tests.conftest import FLEXHPC
from tests.sweeps import contents, end, probes_in

SPEC = """\
name: faults
fixed:
  data: {source: digits, labels: random, n_max: 300}
  model: {family: "gated:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 600, shards: 2,
    gates: {plateau: off}}
  search: {policy: bisection, start: 64, tolerance: 0.2}
grid: {model.kwargs.width: [8, 12]}
"""
_PATIENCE = 300.0
_PASSES = 1000
"""Faults strike after fewer forward passes than this; a point takes some thousands."""


@dataclass
class Outcome:
    """What came of faults of one kind.

    Attributes:
        tried: faults that struck; survived: runs that ended as if there had been none.
        lost: finished probes that were gone afterwards; doubled: what was there twice; wrong: runs
            with another result.
        messages: messages of the failures.
    """

    tried: int = 0
    survived: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether anything was lost, doubled or wrong."""
        return bool(self.lost or self.doubled or self.wrong)

    @property
    def fine(self) -> bool:
        """Whether faults did strike, and broke nothing."""
        return self.tried > 0 and not self.broken


@lru_cache
def expected() -> dict[str, object]:
    """What the sweep gives when nothing befalls it."""
    from tests.faults.made import a_run

    with TemporaryDirectory() as folder:
        return contents(a_run(Path(folder, "run")))


class Unavailable(Exception):
    """This machine cannot have such a fault."""


def leave_out(reason: Unavailable) -> NoReturn:
    """Skip a test of something that this machine cannot have; in CI it must be tried."""
    if os.environ.get("CI"):
        pytest.fail(f"everything must be tried here: {reason}")
    pytest.skip(str(reason))


class Site:
    """A folder in which the sweep runs, again and again, until it is done."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rng, self.outcome = folder, rng, Outcome()
        self.spec = folder / "faults.yaml"
        self.spec.write_text(SPEC)
        self.barrier = Barrier(folder)
        self.run = folder / "runs" / "faults"
        self.profile("tracking_uri: none")
        self._started: list[subprocess.Popen[str]] = []
        self._known: set[tuple[object, ...]] = set()
        self._expected: Callable[[], dict[str, object]] = expected

    def measures(self, spec: str) -> None:
        """Measure another spec than the usual one, first once with nothing that befalls it."""
        self.spec.write_text(spec)
        self.finish(self.start())
        undisturbed = contents(self.run)
        self._expected = lambda: undisturbed

    def profile(self, *lines: str, workers: int = 2) -> None:
        """Write the profile: workers that save often and are replaced as often as it takes."""
        usual = (f"workers: {workers}", "retries: 100", "checkpoint_every: 0.1")
        (self.folder / "profile.yaml").write_text("\n".join([*usual, *lines]) + "\n")

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start the one command that begins the sweep and goes on with it."""
        sweep = subprocess.Popen(
            [str(FLEXHPC), "sweep", str(self.spec), "--profile", "profile.yaml"], cwd=self.folder,
            env={**os.environ, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._started.append(sweep)
        return sweep

    def end_all(self) -> None:
        """End every sweep that was started here."""
        for sweep in self._started:
            if sweep.poll() is None:
                end(sweep)

    def wrong(self, message: str) -> None:
        """Count a wrong result."""
        self.outcome.wrong += 1
        self.outcome.messages.append(message)

    def must_say(self, said: bool, output: str) -> None:
        """Count a wrong result if a command did not say what it should."""
        if not said:
            self.wrong(output[-300:])

    def strike(self, sweep: subprocess.Popen[str], number: int) -> list[int]:
        """Send a signal to a worker in the middle of a probe; return its id, if there is one."""
        held = self.hold(sweep)[:1]
        for pid in held:
            os.kill(pid, number)
            self.outcome.tried += 1
        return held

    def finish(self, sweep: subprocess.Popen[str]) -> str:
        """Wait for it; returns what it said, and notes how failures named themselves."""
        self.barrier.open()
        try:
            output, _ = sweep.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            end(sweep)
            self.wrong(f"hung for {_PATIENCE:.0f} s")
            return ""
        if (at := max(output.find(sign) for sign in ("Traceback", '|   File "'))) >= 0:
            self.wrong(output[at:][-1500:])
        failures = [line for line in output.splitlines() if line.startswith("failed: ")]
        self.outcome.messages += failures
        return output

    def wait(self, sweep: subprocess.Popen[str], condition: Callable[[], object]) -> bool:
        """Wait until something is true; False if the sweep ends first."""
        give_up = time.monotonic() + _PATIENCE
        while not condition():
            if sweep.poll() is not None or time.monotonic() > give_up:
                return False
            time.sleep(0.02)
        return True

    def hold(self, sweep: subprocess.Popen[str], processes: int = 1) -> list[int]:
        """Let training runs go on for a random number of passes, then wait until some are held.

        Returns:
            The ids of the processes that are held; none if the sweep ends first.
        """
        self.barrier.hold(int(self.rng.integers(1, _PASSES)))
        self.wait(sweep, lambda: len(self.barrier.waiting()) >= processes)
        return sorted(self.barrier.waiting())

    def note_probes(self) -> None:
        """Count what was known before and is gone, or is there twice."""
        now = self._probes()
        if now is None:
            return
        self.outcome.lost += len(self._known - now)
        keys = [probe[:-1] for probe in now]
        self.outcome.doubled += len(keys) - len(set(keys))
        self._known = now

    def forget(self, point_id: str) -> None:
        """A point's file was taken away: its probes are no loss."""
        self._known = {probe for probe in self._known if probe[0] != point_id}

    def begin_anew(self) -> None:
        """Remove the run."""
        shutil.rmtree(self.run, ignore_errors=True)
        self._known = set()

    def _probes(self) -> set[tuple[object, ...]] | None:
        if not (self.run / "sweep.yaml").is_file():
            return set()
        try:
            return probes_in(self.run)
        except PointError:
            return None

    def must_end_well(self, sweep: subprocess.Popen[str], *statuses: int) -> str:
        """Wait for a command that went on in spite of faults; returns what it said.

        Args:
            statuses: that it may end with; by default 0 alone.
        """
        output = self.finish(sweep)
        if sweep.returncode not in (statuses or (0,)):
            self.wrong(f"status {sweep.returncode}: {output[-500:]}")
        return output

    def conclude(self) -> Outcome:
        """Run the command to its end, and compare with a run that nothing befell."""
        before = self.outcome.wrong
        sweep = self.start()
        output = self.finish(sweep)
        self.note_probes()
        if sweep.returncode != 0:
            self.wrong(output[-500:])
        elif contents(self.run) != self._expected():
            self.wrong("another result")
        left = [*self.run.rglob("*.ckpt"), *self.run.rglob("*.part")]
        if left and not self.outcome.wrong:
            self.outcome.doubled += len(left)
            self.outcome.messages += [f"left behind: {path.name}" for path in left]
        if self.outcome.wrong == before:
            self.outcome.survived += 1
        return self.outcome

    def tracked_once(self) -> None:
        """See that MLflow holds every point and probe, and none twice."""
        client = mlflow_client(f"sqlite:///{self.run}/mlflow.db")
        experiment = client.get_experiment_by_name("faults")
        logged = client.search_runs([experiment.experiment_id], max_results=1000)
        tags = [r.data.tags.get("flexhpc.probe", r.data.tags["flexhpc.point_id"]) for r in logged]
        self.outcome.doubled += len(tags) - len(set(tags))
        self.outcome.lost += len(self._known) + len(expected()) - len(set(tags))


Kind = Callable[[Site, int], Outcome]
