"""One probe: a network trained from scratch until it fits, stops improving, or runs out of budget.

One flat loop. Everything random is drawn from the probe's own seeds, and the state of the loop is
small enough to save at any step, so that an interrupted probe goes on bitwise as if nothing had
happened.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import deterministic

from flexhpc.errors import Interrupted, PeerLost, PointError
from flexhpc.spec.sections.training import Training
from flexhpc.training import budget, checkpoint
from flexhpc.training.batches import epoch_order, sizes_of
from flexhpc.training.forgetting import Forgetting
from flexhpc.training.gates import examine
from flexhpc.training.group import Group
from flexhpc.training.network import Look, Network
from flexhpc.training.optimizers import clip, make_optimizer, perturb, rate, restore, update
from flexhpc.training.outcome import Hooks, MakeModel, Outcome, ProbeData, Verdict
from flexhpc.training.plateau import Plateau, patience
from flexhpc.training.recorded import Found, Recorded, recorder, rng_state

Saved = dict[str, Any]


def train(
    training: Training,
    make_model: MakeModel,
    data: ProbeData,
    hooks: Hooks,
    group: Group | None = None,
) -> Outcome:
    """Train one probe from scratch, or go on from its checkpoint if there is one.

    Args:
        training: the procedure.
        make_model: builds the untrained network.
        data: samples and seeds.
        hooks: how to stop, save and report; only rank 0 of a group reads and writes checkpoints.
        group: the processes that train together, each calling this with the same arguments; by
            default this one alone, on the device of the data.

    Raises:
        Interrupted: ``hooks.stopping`` of some process said so; the state is saved where ``hooks``
            says. All processes of a group raise it at the same step.
        PeerLost: another process of the group is gone.
    """
    group = group or Group(data.inputs.device)
    saved = None
    if hooks.checkpoint is not None and group.rank == 0:
        saved = checkpoint.load(hooks.checkpoint, hooks.key)
    run = _Run(training, make_model, data, hooks, group)
    try:
        return run.outcome(group.broadcast_object(saved))
    except (Interrupted, PeerLost, PointError, torch.OutOfMemoryError):
        raise
    except Exception:
        if saved is not None and hooks.checkpoint is not None and run.steps_of_its_own == 0:
            hooks.checkpoint.unlink(missing_ok=True)  # or every attempt would end like this one
        raise


@dataclass(kw_only=True)
class _State:
    """Where the loop stands; with weights, optimizer and random state all that a resume needs."""

    plateau: Plateau
    allowed: int | None
    gradient_start: float = math.nan
    loss_start: float = math.inf
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    cost: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)


class _Run:
    """One training."""

    def __init__(
        self, training: Training, make_model: MakeModel, data: ProbeData, hooks: Hooks, group: Group
    ) -> None:
        self.training, self.data, self.hooks = training, data, hooks
        self.group, self.device = group, group.device
        self.n = len(data.labels)
        self.sizes = sizes_of(training, self.n)
        self.first_budget = budget.updates(training, self.sizes)
        self.gradients = budget.gradients_per_sample(training)
        self.started = self.saved = time.monotonic()
        self.seen: Look | None = None
        self.recorded: Recorded | None = None
        self.make_model = make_model
        self.steps_of_its_own = 0

    def outcome(self, saved: Saved | None) -> Outcome:
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices, device_type=self.device.type), _deterministic():
            self._build()
            resumed = None if saved is None else self._resumed(saved)
            if saved is not None and resumed is None:
                self._build()
            self.state = resumed or self._begun()
            verdict: Verdict | None = None
            try:
                while verdict is None:
                    self._epoch()
                    verdict = self._verdict()
            finally:
                self.recorded = None  # it holds this object, and with it what lies on the card
            return self._finish(verdict)

    def _build(self) -> None:
        """Make the untrained network and its optimizer."""
        training = self.training
        torch.manual_seed(self.data.init_seed)
        self.forgetting = Forgetting(self.n, self.device) if self.hooks.forgetting else None
        self.network = Network(
            self.make_model().to(self.device),
            self.data,
            self.group,
            shards=training.shards,
            precision=training.precision,
            in_chunks=training.full_batch,
            label_smoothing=training.label_smoothing,
            elementwise=training.elementwise,
            running=training.curves == "batches",
            forgetting=self.forgetting,
        )
        self.optimizer = make_optimizer(training, self.network.parameters)
        self.network.synchronise()
        record = recorder(self.device) if self._is_alike() else None
        self.recorded = None if record is None else Recorded(self._update, self._changing, record)

    def _is_alike(self) -> bool:
        """Return whether every update is made by the same kernels, with the same numbers."""
        training = self.training
        return (
            self.network.alone
            and getattr(self.network.model, "flexhpc_repeats", False)
            and training.elementwise
            and (training.schedule, training.warmup, training.sam) == ("constant", None, None)
            and training.precision != "bf16"
        )

    def _update(self, ids: Tensor) -> Found:
        found = self.network.gradient(ids)
        self._go()
        return found

    def _go(self) -> None:
        """Update the weights by their gradients."""
        if self.training.clip_norm is not None:
            clip(self.network.parameters, self.training.clip_norm)
        update(self.optimizer)

    def _changing(self) -> list[Tensor]:
        states = [value for own in self.optimizer.state.values() for value in own.values()]
        return [*self.network.changing(), *(x for x in states if isinstance(x, Tensor))]

    def _begun(self) -> _State:
        gates = self.training.gates
        state = _State(
            plateau=Plateau(tolerance=gates.plateau.tolerance), allowed=self.first_budget
        )
        if gates.gradient.mode != "off":
            start = self.network.norms()
            state.gradient_start, state.loss_start = start.gradient, start.loss
        elif gates.stability.mode != "off":
            state.loss_start = self.network.evaluate().loss
        return state

    def _over(self) -> bool:
        return self.state.allowed is not None and self.state.steps >= self.state.allowed

    def _epoch(self) -> None:
        """Train from the current batch to the end of the epoch (or of the budget)."""
        state, sizes = self.state, self.sizes
        self.seen = None
        order = torch.from_numpy(epoch_order(self.n, self.data.order_seed, state.epoch))
        batches = order.to(self.device).split(sizes)
        self.network.mode(training=True)
        begun = state.steps - state.batch
        while state.batch < len(sizes) and not self._over():
            stop = self._step(batches[state.batch])
            state.batch += 1
            state.steps += 1
            self.steps_of_its_own += 1
            state.cost += sizes[state.batch - 1] * self.gradients
            self._pause(stop)
        state.epoch, state.batch = state.epoch + 1, 0
        running = self.network.running
        if running is not None:
            loss, errors = running.read(self.n)
        else:
            loss, errors = self._look().loss, self._look().errors
            if self.forgetting is not None:
                self.forgetting.saw(torch.arange(self.n, device=self.device), ~self._look().right)
        state.losses.append(loss)
        state.errors.append(errors)
        state.plateau.update(loss, errors, state.steps - begun)
        epochs = -(-(state.allowed or 0) // len(sizes))
        self.hooks.progress(
            {"epoch": state.epoch, "epochs": epochs, "n_errors": errors, "loss": loss}
        )

    def _fits(self) -> bool:
        if self.seen is None:
            self.seen = self.network.look_for_fit()
        return self.seen is not None and self.seen.errors == 0

    def _look(self) -> Look:
        """Look where training stands, once."""
        if self.seen is None:
            self.seen = self.network.evaluate()
        return self.seen

    def _step(self, ids: Tensor) -> bool:
        """Make one update with the mean gradient over ``ids``; True if it is time to stop."""
        training, step = self.training, self.state.steps
        parameters = self.network.parameters
        now = rate(training, training.lr, step, self.first_budget or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = now * group["lr_factor"]
        if self.recorded is not None:
            self.network.note(self.recorded(ids))
            return self.hooks.stopping()
        stop = self.network.backward(ids, step, self.hooks.stopping())
        if training.sam is not None:
            kept = perturb(parameters, training.sam.rho)
            self.network.backward(ids, step, vote=False, again=True)
            restore(parameters, kept)
        self._go()
        return stop

    def _verdict(self) -> Verdict | None:
        """Return how the probe ended, or None while it goes on."""
        state, gate = self.state, self.training.gates.plateau
        if not math.isfinite(state.losses[-1]):
            return "diverged"
        over = self._over()
        flat = gate.mode != "off" and (
            state.plateau.updates >= patience(gate, state.allowed, len(self.sizes))
        )
        ends = over or (flat and self.training.schedule == "constant")
        if self._fits():
            return "fit"
        if ends and not math.isfinite(self._look().loss):  # of the last updates
            return "diverged"
        if ends and (flat or gate.mode == "off"):
            return "not_fit"
        if over:
            return None if self._extend() else "unconverged"
        return None

    def _extend(self) -> bool:
        """Allow more updates to a probe that still improves, if it may have them."""
        if self.state.allowed is None or self.first_budget is None:
            return False
        more = budget.extended(self.training, self.state.allowed, self.first_budget)
        self.state.allowed = more or self.state.allowed
        return more is not None

    def _finish(self, verdict: Verdict) -> Outcome:
        state, seen = self.state, self._look()
        readings = self.hooks.trained(self.network.model.eval())
        examined = examine(
            self.training.gates, verdict, self.network, state.plateau,
            gradient_start=state.gradient_start, loss_start=state.loss_start, losses=state.losses,
        )  # fmt: skip
        if state.allowed != self.first_budget:
            readings["extended_to_steps"] = float(state.allowed or 0)
        return Outcome(
            verdict=examined.verdict,
            n_errors=seen.errors,
            loss=seen.loss,
            epochs=state.epoch,
            steps=state.steps,
            cost=state.cost,
            seconds=self._seconds(),
            fitted=seen.right.cpu().numpy(),
            readings={**readings, **examined.readings},
            rejected=examined.rejected,
            loss_curve=np.array(state.losses, dtype=np.float32),
            error_curve=np.array(state.errors, dtype=np.int32),
            forgotten=None if self.forgetting is None else self.forgetting.events(),
        )

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
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            # The type is stored because each type of accelerator has its own form of the state.
            random["accelerator"] = self.device.type, rng_state(self.device)
        state: Saved = {
            "model": self.network.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
            "progress": {**asdict(self.state), "seconds": self._seconds()},
        }
        if self.network.running is not None:
            state["running"] = self.network.running.state()
        if self.forgetting is not None:
            state["forgetting"] = self.forgetting.state()
        checkpoint.save(self.hooks.checkpoint, self.hooks.key, state)
        self.saved = time.monotonic()

    def _resumed(self, saved: Saved) -> _State | None:
        """Take up a checkpoint; None if it is of another network than this, whatever its key."""
        try:
            self.network.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["random"]["cpu"])
            saved_on, random = saved["random"].get("accelerator", ("cpu", None))
            if saved_on == self.device.type != "cpu":
                torch.get_device_module(self.device).set_rng_state(random, self.device)
            if self.network.running is not None:
                self.network.running.load(saved["running"])
            if self.forgetting is not None and "forgetting" in saved:
                self.forgetting.load(saved["forgetting"])
            elif self.forgetting is not None:
                self._stop_counting()
            progress = saved["progress"]
            return _State(**{**progress, "plateau": Plateau(**progress["plateau"])})
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            return None

    def _stop_counting(self) -> None:
        """Go on from a checkpoint that was written before counts were asked for."""
        self.forgetting = self.network.forgetting = None
        if self.network.running is not None:
            self.network.running.forgetting = None


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic algorithms inside; what has none warns rather than fails.

    torch.use_deterministic_algorithms does the same, but imports torch's compiler to tell it, which
    takes as long as importing torch. In that mode torch also fills new memory with nan, so that
    what reads it before it is written shows; that takes a twentieth of a step, and is left out.
    """
    settings: Any = deterministic  # of no known attributes
    before, filled = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        settings.fill_uninitialized_memory = filled
