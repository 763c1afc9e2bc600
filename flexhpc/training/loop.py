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
from torch.nn import functional

from flexhpc.errors import Interrupted, PointError
from flexhpc.spec import sections
from flexhpc.spec.sections import Training
from flexhpc.training import checkpoint
from flexhpc.training.batches import batch_sizes, epoch_order
from flexhpc.training.optimizers import make_optimizer, rate
from flexhpc.training.outcome import Hooks, MakeModel, Outcome, ProbeData, Verdict
from flexhpc.training.plateau import Plateau

_MOST_AT_ONCE = 4_096
_VALUES_AT_ONCE = 2**23
_BACKWARD_AT_ONCE = 512


def train(
    training: Training, make_model: MakeModel, batch: Sequence[ProbeData], hooks: Hooks
) -> list[Outcome]:
    """Train every probe of a batch from scratch.

    Args:
        training: the procedure.
        make_model: builds the untrained network.
        batch: probes of one shape.
        hooks: how to stop, save and report.

    Raises:
        Interrupted: ``hooks.stopping`` said so; the state is saved where ``hooks`` says.
    """
    return [_Run(training, make_model, data, hooks).outcome() for data in batch]


@dataclass(kw_only=True)
class _State:
    """Where the loop stands; with weights, optimizer and random state all that a resume needs."""

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    cost: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_errors: float = math.inf
    since: int = 0
    losses: list[float] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)


class _Run:
    def __init__(
        self, training: Training, make_model: MakeModel, data: ProbeData, hooks: Hooks
    ) -> None:
        self.training, self.data, self.hooks = training, data, hooks
        self.device = data.inputs.device
        self.n = len(data.labels)
        self.sizes = batch_sizes(self.n, getattr(training, "batch_size", None))
        self.steps_budget = training.steps or (training.epochs or 0) * len(self.sizes)
        self.epochs_budget = -(-self.steps_budget // len(self.sizes))
        self.started = self.saved = time.monotonic()
        self.make_model = make_model
        size = max(1, data.inputs[0].numel())
        self.look_at_once = max(64, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // size))
        self.precision: contextlib.AbstractContextManager[Any] = (
            torch.autocast(self.device.type, torch.bfloat16)
            if training.precision == "bf16"
            else contextlib.nullcontext()
        )

    def outcome(self) -> Outcome:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), _deterministic():
            torch.manual_seed(self.data.init_seed)
            self.model = self.make_model().to(self.device)
            self.inputs = self.data.inputs
            if self.training.precision == "fp64":
                self.model, self.inputs = self.model.double(), self.inputs.double()
            self.parameters = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = make_optimizer(self.training, self.parameters)
            self.state = self._resumed() or _State()
            self.plateau = Plateau(
                tolerance=self.training.gates.plateau.tolerance,
                best_loss=self.state.best_loss,
                best_errors=self.state.best_errors,
                since=self.state.since,
            )
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
        self.model.train()
        while state.batch < len(sizes) and state.steps < self.steps_budget:
            self._step(batches[state.batch])
            state.batch += 1
            state.steps += 1
            state.cost += sizes[state.batch - 1]
            self._pause()
        state.epoch, state.batch = state.epoch + 1, 0
        _, errors, loss = self._look()
        state.losses.append(loss)
        state.errors.append(errors)
        self.plateau.update(loss, errors)
        self.hooks.epoch_done(state.epoch, self.epochs_budget, errors, loss)

    def _step(self, ids: Tensor) -> None:
        """One update with the mean gradient over ``ids``; whole sets are summed in chunks."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.training, self.state.steps, self.steps_budget)
        self._clear_gradients()
        chunks = ids.split(_BACKWARD_AT_ONCE) if isinstance(self.training, sections.Gd) else (ids,)
        for chunk in chunks:
            with self.precision:
                logits = self._logits(chunk)
                loss = functional.cross_entropy(logits, self.data.labels[chunk])
            (loss if len(chunks) == 1 else loss * (len(chunk) / len(ids))).backward()
        self.optimizer.step()

    def _logits(self, ids: Tensor) -> Tensor:
        try:
            logits: Tensor = self.model(self.inputs[ids])
        except ValueError as error:
            if len(ids) > 1:
                raise
            raise PointError(
                f"a batch of one sample cannot be trained on ({error}); with BatchNorm use a "
                "larger search.start and batch_size"
            ) from None
        return logits

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _look(self) -> tuple[Tensor, int, float]:
        """Return (right: bool (n,), samples missed, mean loss) over the subset in eval mode."""
        self.model.eval()
        right, total = [], torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.no_grad(), self.precision:
            for inputs, labels in zip(
                self.inputs.split(self.look_at_once),
                self.data.labels.split(self.look_at_once),
                strict=True,
            ):
                logits = self.model(inputs)
                total += functional.cross_entropy(logits, labels, reduction="sum").double()
                right.append((logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1))
        joined = torch.cat(right)
        return joined, self.n - int(joined.sum()), float(total) / self.n

    def _verdict(self) -> Verdict | None:
        """Return how the probe ended, or None while it goes on."""
        loss, errors = self.state.losses[-1], self.state.errors[-1]
        gate = self.training.gates.plateau
        if not math.isfinite(loss):
            return "diverged"
        if errors == 0:
            return "fit"
        over = self.state.steps >= self.steps_budget
        flat = self.plateau.since >= gate.patience
        if gate.mode == "off":
            return "not_fit" if over else None
        if over:
            return "not_fit" if flat else "unconverged"
        return "not_fit" if flat and self.training.schedule == "constant" else None

    def _finish(self, verdict: Verdict) -> Outcome:
        right, errors, loss = self._look()
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
            readings["plateau_epochs"] = float(self.plateau.since)
        if gates.gradient.mode != "off" and verdict != "diverged":
            gradient, parameters = self._gradient_norm()
            readings |= {"gradient_norm": gradient, "parameter_norm": parameters}
        return readings

    def _gradient_norm(self) -> tuple[float, float]:
        """Return the norms of the whole subset's gradient (eval mode) and of the parameters."""
        self.model.eval()
        self._clear_gradients()
        for inputs, labels in zip(
            self.inputs.split(_BACKWARD_AT_ONCE),
            self.data.labels.split(_BACKWARD_AT_ONCE),
            strict=True,
        ):
            loss = functional.cross_entropy(self.model(inputs), labels, reduction="sum")
            (loss / self.n).backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return _norm(gradients), _norm(self.parameters)

    def _seconds(self) -> float:
        return self.state.seconds + time.monotonic() - self.started

    def _pause(self) -> None:
        """Save a checkpoint if it is time to, or if the probe is to stop."""
        stopping = self.hooks.stopping()
        if stopping or time.monotonic() - self.saved >= self.hooks.checkpoint_every:
            try:
                self._save()
            except (OSError, RuntimeError) as error:
                # A full disk costs the checkpoint, not the training.
                print(f"checkpoint not saved: {error}", flush=True)
                self.saved = time.monotonic()
        if stopping:
            raise Interrupted

    def _save(self) -> None:
        if self.hooks.checkpoint is None:
            return
        plateau = asdict(self.plateau)
        plateau.pop("tolerance")
        progress = {**asdict(self.state), **plateau, "seconds": self._seconds()}
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
            "progress": progress,
        }
        checkpoint.save(self.hooks.checkpoint, self.hooks.key, state)
        self.saved = time.monotonic()

    def _resumed(self) -> _State | None:
        """Take up a checkpoint of this very probe, if there is one."""
        if self.hooks.checkpoint is None:
            return None
        saved = checkpoint.load(self.hooks.checkpoint, self.hooks.key)
        if saved is None:
            return None
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"]["cpu"])
        if "cuda" in saved["random"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["random"]["cuda"], self.device)
        return _State(**saved["progress"])


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))


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
