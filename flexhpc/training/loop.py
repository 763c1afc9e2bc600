"""One probe: a network trained from scratch until it fits, stops improving, or runs out of budget.

One flat loop. Everything random is drawn from the probe's own seeds, and the state of the loop is
small enough to save at any step, so that an interrupted probe goes on bitwise as if nothing had
happened.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexhpc.errors import Interrupted
from flexhpc.spec import sections
from flexhpc.spec.sections import Training
from flexhpc.training import checkpoint
from flexhpc.training.batches import batch_sizes, epoch_order
from flexhpc.training.group import Group
from flexhpc.training.network import Network
from flexhpc.training.optimizers import make_optimizer, rate
from flexhpc.training.outcome import Hooks, MakeModel, Outcome, ProbeData, Verdict
from flexhpc.training.plateau import Plateau


def train(
    training: Training,
    make_model: MakeModel,
    batch: Sequence[ProbeData],
    hooks: Hooks,
    group: Group | None = None,
) -> list[Outcome]:
    """Train every probe of a batch from scratch.

    Args:
        training: the procedure.
        make_model: builds the untrained network.
        batch: probes of one shape.
        hooks: how to stop, save and report; only rank 0 of a group reads and writes checkpoints.
        group: the processes that train together, each calling this with the same arguments; by
            default this one alone, on the device of the data.

    Raises:
        Interrupted: ``hooks.stopping`` of some process said so; the state is saved where ``hooks``
            says. All processes of a group raise it at the same step.
        PeerLost: another process of the group is gone.
    """
    return [
        _Run(training, make_model, data, hooks, group or Group(data.inputs.device)).outcome()
        for data in batch
    ]


@dataclass(kw_only=True)
class _State:
    """Where the loop stands; with weights, optimizer and random state all that a resume needs."""

    plateau: Plateau
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    cost: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)


class _Run:
    def __init__(
        self, training: Training, make_model: MakeModel, data: ProbeData, hooks: Hooks, group: Group
    ) -> None:
        self.training, self.data, self.hooks, self.group = training, data, hooks, group
        self.device = group.device
        self.n = len(data.labels)
        self.sizes = batch_sizes(self.n, getattr(training, "batch_size", None))
        self.steps_budget = training.steps or (training.epochs or 0) * len(self.sizes)
        self.epochs_budget = -(-self.steps_budget // len(self.sizes))
        self.started = self.saved = time.monotonic()
        self.make_model = make_model

    def outcome(self) -> Outcome:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), _deterministic():
            torch.manual_seed(self.data.init_seed)
            training = self.training
            self.network = Network(
                self.make_model().to(self.device),
                self.data,
                self.group,
                shards=training.shards,
                precision=training.precision,
                in_chunks=isinstance(training, sections.Gd),
            )
            self.optimizer = make_optimizer(training, self.network.parameters)
            tolerance = training.gates.plateau.tolerance
            self.state = self._resumed() or _State(plateau=Plateau(tolerance=tolerance))
            self.network.synchronise()
            verdict: Verdict | None = None
            while verdict is None:
                self._epoch()
                verdict = self._verdict()
            return self._finish(verdict)

    def _epoch(self) -> None:
        """Train from the current batch to the end of the epoch (or of the budget), then look."""
        state, sizes = self.state, self.sizes
        order = torch.from_numpy(epoch_order(self.n, self.data.order_seed, state.epoch))
        batches = order.to(self.device).split(sizes)
        self.network.model.train()
        while state.batch < len(sizes) and state.steps < self.steps_budget:
            stop = self._step(batches[state.batch])
            state.batch += 1
            state.steps += 1
            state.cost += sizes[state.batch - 1]
            self._pause(stop)
        state.epoch, state.batch = state.epoch + 1, 0
        _, errors, loss = self.network.look()
        state.losses.append(loss)
        state.errors.append(errors)
        state.plateau.update(loss, errors)
        self.hooks.epoch_done(state.epoch, self.epochs_budget, errors, loss)

    def _step(self, ids: Tensor) -> bool:
        """Make one update with the mean gradient over ``ids``; True if it is time to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.training, self.state.steps, self.steps_budget)
        stop = self.network.backward(ids, self.state.steps, self.hooks.stopping())
        self.optimizer.step()
        return stop

    def _verdict(self) -> Verdict | None:
        """Return how the probe ended, or None while it goes on."""
        loss, errors = self.state.losses[-1], self.state.errors[-1]
        gate = self.training.gates.plateau
        if not math.isfinite(loss):
            return "diverged"
        if errors == 0:
            return "fit"
        over = self.state.steps >= self.steps_budget
        flat = self.state.plateau.since >= gate.patience
        if gate.mode == "off":
            return "not_fit" if over else None
        if over:
            return "not_fit" if flat else "unconverged"
        return "not_fit" if flat and self.training.schedule == "constant" else None

    def _finish(self, verdict: Verdict) -> Outcome:
        right, errors, loss = self.network.look()
        state = self.state
        return Outcome(
            verdict=verdict,
            n_errors=errors,
            loss=loss,
            epochs=state.epoch,
            steps=state.steps,
            cost=state.cost,
            seconds=self._seconds(),
            fitted=right.cpu().numpy(),
            readings=self._readings(verdict),
            loss_curve=np.array(state.losses, dtype=np.float32),
            error_curve=np.array(state.errors, dtype=np.int32),
        )

    def _readings(self, verdict: Verdict) -> dict[str, float]:
        readings: dict[str, float] = {}
        gates = self.training.gates
        if gates.plateau.mode != "off":
            readings["plateau_epochs"] = float(self.state.plateau.since)
        if gates.gradient.mode != "off" and verdict != "diverged":
            gradient, parameters = self.network.norms()
            readings |= {"gradient_norm": gradient, "parameter_norm": parameters}
        return readings

    def _seconds(self) -> float:
        return self.state.seconds + time.monotonic() - self.started

    def _pause(self, stop: bool) -> None:
        """Save a checkpoint if it is time to, or if the probe is to stop."""
        late = time.monotonic() - self.saved >= self.hooks.checkpoint_every
        if (stop or late) and self.group.rank == 0:
            try:
                self._save()
            except (OSError, RuntimeError) as error:
                # A full disk costs the checkpoint, not the training.
                print(f"checkpoint not saved: {error}", flush=True)
                self.saved = time.monotonic()
        if stop:
            raise Interrupted

    def _save(self) -> None:
        if self.hooks.checkpoint is None or not self.hooks.holds():
            return
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state: dict[str, Any] = {
            "model": self.network.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
            "progress": {**asdict(self.state), "seconds": self._seconds()},
        }
        checkpoint.save(self.hooks.checkpoint, self.hooks.key, state)
        self.saved = time.monotonic()

    def _resumed(self) -> _State | None:
        """Take up a checkpoint of this very probe, if there is one."""
        saved = None
        if self.hooks.checkpoint is not None and self.group.rank == 0:
            saved = checkpoint.load(self.hooks.checkpoint, self.hooks.key)
        saved = self.group.told(saved)
        if saved is None:
            return None
        self.network.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"]["cpu"])
        if "cuda" in saved["random"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["random"]["cuda"], self.device)
        progress = saved["progress"]
        return _State(**{**progress, "plateau": Plateau(**progress["plateau"])})


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic algorithms inside; what has none warns rather than fails."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
