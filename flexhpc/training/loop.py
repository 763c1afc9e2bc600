"""Training loop of one probe.

Training stops when all samples are fitted, at a plateau, at the end of the budget, or when the loss
is not finite.

All random numbers are derived from the seeds of the probe. The state can be saved after every
update, and a resumed training run is bit-identical to an uninterrupted training run.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import deterministic

from flexhpc.config.sections.training import Training
from flexhpc.errors import Interrupted, PeerLost, PointError
from flexhpc.training import budget, checkpoint
from flexhpc.training.budget import epoch_batch_sizes, epoch_order
from flexhpc.training.device_inputs import DeviceInputs
from flexhpc.training.engine import Engine, frozen_running_statistics
from flexhpc.training.epoch_metrics import EpochMetrics, ForgettingCounter
from flexhpc.training.evaluation import Evaluation, Evaluator
from flexhpc.training.frozen_part import split_off_frozen_part
from flexhpc.training.gates import Plateau, apply_gates, patience_in_updates
from flexhpc.training.group import Group, Partition
from flexhpc.training.losses import cross_entropy
from flexhpc.training.manual_backprop import ManualBackprop, mlp_layers
from flexhpc.training.memory_format import use_channels_last
from flexhpc.training.optimizers import (
    budget_independent_updates,
    make_optimizer,
    perturb_weights,
    restore_weights,
    set_learning_rates,
    update_weights,
)
from flexhpc.training.outcome import Callbacks, ModelFactory, Outcome, ProbeData, Verdict
from flexhpc.training.sync_norm import batch_norm_layers

SavedState = dict[str, Any]


@dataclass(kw_only=True)
class TrainState:
    """Counters and curves of a training run.

    A checkpoint contains this object and the states of the model, the optimizer, the metrics and
    the random generators.

    Attributes:
        plateau: state of the plateau detection.
        max_steps: budget in updates, including extensions; None without a budget.
        gradient_norm_start: norm of the gradient at initialisation; nan if no gate needs it.
        loss_start: loss at initialisation; infinite if no gate needs it.
        epoch: number of finished epochs.
        batch: number of updates made so far in the current epoch.
        steps: number of updates made so far in all epochs.
        cost: number of sample passes: sum of the batch sizes of all updates (with SAM, twice this
            sum).
        seconds: training time, including the time before an interruption.
        losses: mean loss of every epoch.
        errors: number of missed samples of every epoch.
    """

    plateau: Plateau
    max_steps: int | None
    gradient_norm_start: float = math.nan
    loss_start: float = math.inf
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    cost: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)

    def out_of_budget(self) -> bool:
        """Return whether the budget is used up."""
        return self.max_steps is not None and self.steps >= self.max_steps


def train(
    training: Training,
    make_model: ModelFactory,
    data: ProbeData,
    callbacks: Callbacks,
    group: Group | None = None,
) -> Outcome:
    """Train one probe.

    Training resumes from ``callbacks.checkpoint``. If it does not exist or cannot be used, training
    resumes from ``callbacks.final_state``, which training with a smaller budget saved. If neither
    file exists or can be used, training starts from scratch.

    Args:
        training: training procedure.
        make_model: builds the untrained model.
        data: samples and seeds.
        callbacks: see :class:`Callbacks`. Only rank 0 reads and writes the checkpoint.
        group: processes that train together; each must call this function with the same arguments.
            By default only this process trains, on the device of the data.

    Raises:
        Interrupted: ``callbacks.should_stop`` returned True in any process; the state is saved. All
            processes raise this exception after the same update.
        PeerLost: another process of the group is lost.
    """
    group = group or Group(data.inputs.device)
    paths = [path for path in (callbacks.checkpoint, callbacks.final_state) if path is not None]
    saved = None
    for path in paths if group.rank == 0 else ():
        loaded = checkpoint.load(path, callbacks.key)
        if loaded is not None and _can_continue_from(loaded, training, len(data.labels)):
            saved = loaded
            break
    saved = group.broadcast_object(saved)
    devices = [] if group.device.type == "cpu" else [group.device]
    with (
        torch.random.fork_rng(devices, device_type=group.device.type),
        _use_deterministic_algorithms(),
    ):
        run = TrainingRun(training, make_model, data, callbacks, group)
        state = None
        if saved is not None:
            state = run.restore(saved)
            if state is None:  # some of the weights may already have been overwritten
                run = TrainingRun(training, make_model, data, callbacks, group)
        try:
            return _run_training_loop(run, state or run.initial_state(), data)
        except (Interrupted, PeerLost, PointError, torch.OutOfMemoryError):
            raise
        except Exception:
            if state is not None and run.steps_since_resume == 0:
                for path in paths:  # otherwise every attempt would fail in the same way
                    path.unlink(missing_ok=True)
            raise


def _can_continue_from(saved: SavedState, training: Training, n: int) -> bool:
    """Return whether training with the current budget can continue from a saved state.

    If ``training.doubling_settings`` is set and the state was saved with another budget, training
    can continue only if all updates so far would have been the same with the current budget.
    """
    current = budget.budget_in_updates(training, epoch_batch_sizes(training, n))
    try:
        steps, previous = saved["progress"]["steps"], saved["progress"]["max_steps"]
        if training.doubling_settings is None or previous == current:
            return True
        stable = min(
            budget_independent_updates(training, max_steps) for max_steps in (previous, current)
        )
        return bool(steps <= stable)
    except (KeyError, TypeError):
        return True  # TrainingRun.restore rejects it


def _run_training_loop(run: TrainingRun, state: TrainState, data: ProbeData) -> Outcome:
    """Train until there is a verdict; then apply the gates and return the result."""
    training, callbacks, group, gates = run.training, run.callbacks, run.group, run.training.gates
    engine, evaluator, metrics = run.engine, run.evaluator, run.metrics
    n, sizes, initial_max_steps = len(data.labels), run.batch_sizes, run.initial_max_steps
    stable_steps = budget_independent_updates(training, initial_max_steps)
    start_time = last_save_time = time.monotonic()
    seconds_before = state.seconds
    verdict: Verdict | None = None

    while verdict is None:
        order = torch.from_numpy(epoch_order(n, data.order_seed, state.epoch))
        batches = order.to(group.device).split(sizes)
        steps_at_start = state.steps - state.batch
        if engine.backprop is None:  # a plain MLP has the same outputs in train mode and eval mode
            run.model.train()
        while state.batch < len(batches) and not state.out_of_budget():
            ids = batches[state.batch]
            set_learning_rates(run.optimizer, training, state.steps, initial_max_steps)
            engine.backward(ids, state.steps)
            if training.sam is not None:
                weights = perturb_weights(engine.parameters, training.sam.rho)
                with frozen_running_statistics(run.model):
                    engine.backward(ids, state.steps, second_gradient=True)
                restore_weights(engine.parameters, weights)
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(engine.parameters, training.clip_norm)
            update_weights(run.optimizer)
            state.batch += 1
            state.steps += 1
            state.cost += len(ids) * training.gradients_per_sample
            run.steps_since_resume += 1

            now = time.monotonic()
            state.seconds = seconds_before + now - start_time
            if state.steps == stable_steps and callbacks.final_state is not None:
                # Save within the epoch, because a larger budget may add updates to this epoch.
                run.save(state, callbacks.final_state)
            stop = group.agree_to_stop(callbacks.should_stop(), state.steps)
            if stop or now - last_save_time >= callbacks.checkpoint_every:
                run.save(state, callbacks.checkpoint)
                last_save_time = time.monotonic()
            if stop:
                raise Interrupted
        state.epoch, state.batch = state.epoch + 1, 0

        evaluation: Evaluation | None = None
        if metrics is not None:
            loss, errors = metrics.read_and_reset(n)
        else:
            evaluation = evaluator.evaluate()
            loss, errors = evaluation.loss, evaluation.errors
            if run.forgetting is not None:
                run.forgetting.update(torch.arange(n, device=group.device), ~evaluation.correct)
        state.losses.append(loss)
        state.errors.append(errors)
        state.plateau.update(loss, errors, state.steps - steps_at_start)
        callbacks.on_progress(
            {
                "epoch": state.epoch, "epochs": -(-(state.max_steps or 0) // len(sizes)),
                "n_errors": errors, "loss": loss,
            }
        )  # fmt: skip

        if not math.isfinite(loss):
            verdict = "diverged"
            break
        evaluation = evaluation or evaluator.evaluate_unless_missed(metrics)
        if evaluation is not None and evaluation.errors == 0:
            verdict = "fit"
            break
        plateau_gate_on = gates.plateau.mode != "off"
        at_plateau = plateau_gate_on and (
            state.plateau.updates >= patience_in_updates(gates.plateau, state.max_steps, len(sizes))
        )
        stops_early = training.schedule == "constant" and training.until != "saturation"
        if state.out_of_budget() or (at_plateau and stops_early):
            evaluation = evaluation or evaluator.evaluate()
            if not math.isfinite(evaluation.loss):  # the last updates may have diverged
                verdict = "diverged"
            elif at_plateau or not plateau_gate_on:
                verdict = "not_fit"
            else:
                assert state.max_steps is not None
                assert initial_max_steps is not None
                extended = budget.extended_budget(training, state.max_steps, initial_max_steps)
                state.max_steps = extended or state.max_steps
                verdict = None if extended else "unconverged"

    evaluation = evaluation or evaluator.evaluate()
    metrics_at_end = callbacks.on_train_end(run.model.eval())
    verdict, rejected, gate_metrics = apply_gates(
        gates, verdict, evaluator, state.plateau, losses=state.losses,
        initial_gradient_norm=state.gradient_norm_start, initial_loss=state.loss_start,
    )  # fmt: skip
    if verdict != "fit" and metrics is not None and state.errors[-1] == 0:
        metrics_at_end["missed_only_in_evaluation"] = float(evaluation.errors)
    if state.max_steps != initial_max_steps:
        metrics_at_end["extended_to_steps"] = float(state.max_steps or 0)
    return Outcome(
        verdict=verdict,
        n_errors=evaluation.errors,
        loss=evaluation.loss,
        epochs=state.epoch,
        steps=state.steps,
        cost=state.cost,
        seconds=seconds_before + time.monotonic() - start_time,
        fitted=evaluation.correct.cpu().numpy(),
        metrics={**metrics_at_end, **gate_metrics},
        rejected=rejected,
        loss_curve=np.array(state.losses, dtype=np.float32),
        error_curve=np.array(state.errors, dtype=np.int32),
        forgotten=None if run.forgetting is None else run.forgetting.events(),
    )


class TrainingRun:
    """Model, optimizer, gradient engine, evaluator and metrics of a training run.

    Raises:
        PointError: ``training.shards`` is set although the model has BatchNorm.
    """

    def __init__(
        self, training: Training, make_model: ModelFactory, data: ProbeData, callbacks: Callbacks,
        group: Group,
    ) -> None:  # fmt: skip
        self.training, self.callbacks, self.group = training, callbacks, group
        self.steps_since_resume = 0
        device, labels = group.device, data.labels
        torch.manual_seed(data.init_seed)
        model = make_model().to(device)
        self.model = model.double() if training.precision == "fp64" else model
        if training.elementwise:
            use_channels_last(self.model, device)
        if training.shards is not None and batch_norm_layers(model):
            raise PointError(
                "training.shards: cannot be combined with BatchNorm, which normalises over the "
                "whole batch; remove shards"
            )
        precision: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if training.precision == "bf16":
            precision = torch.autocast(device.type, torch.bfloat16)
        inputs = DeviceInputs(data, double=training.precision == "fp64")
        trained = self.model
        if getattr(self.model, "frozen_part_is_fixed", False):
            split = split_off_frozen_part(self.model, inputs, precision)
            if split is not None:
                trained, activations = split
                data = replace(data, inputs=activations, moments=None)
                inputs = DeviceInputs(data, double=training.precision == "fp64")
        layers = None if training.precision == "bf16" else mlp_layers(trained, data.inputs.dim())
        backprop = None if layers is None else ManualBackprop(layers, training.label_smoothing)

        self.forgetting = ForgettingCounter(len(labels), device) if callbacks.forgetting else None
        self.metrics: EpochMetrics | None = None
        if training.curves == "batches":
            loss = cross_entropy if backprop is None else functional.nll_loss
            self.metrics = EpochMetrics(device, loss, data.prompt, self.forgetting)

        partition = Partition(group, training.shards)
        self.engine = Engine(
            training, trained, inputs, labels, partition, precision=precision,
            backprop=backprop, metrics=self.metrics, seed=data.init_seed,
        )  # fmt: skip
        self.evaluator = Evaluator(self.engine, data.prompt)
        self.optimizer = make_optimizer(training, self.engine.parameters)
        group.broadcast([*self.model.parameters(), *self.model.buffers()])
        self.batch_sizes = epoch_batch_sizes(training, len(labels))
        self.initial_max_steps = budget.budget_in_updates(training, self.batch_sizes)

    def initial_state(self) -> TrainState:
        """Return the state before the first update.

        It contains the initial gradient norm and the initial loss if a gate needs them.
        """
        gates = self.training.gates
        state = TrainState(
            plateau=Plateau(tolerance=gates.plateau.tolerance), max_steps=self.initial_max_steps
        )
        if gates.gradient.mode != "off":
            norms = self.evaluator.norms_and_loss()
            state.gradient_norm_start, state.loss_start = norms.gradient, norms.loss
        elif gates.stability.mode != "off":
            state.loss_start = self.evaluator.evaluate().loss
        return state

    def save(self, state: TrainState, path: Path | None) -> None:
        """Write a checkpoint; if this fails, print a message and continue.

        Nothing is written if ``path`` is None, on ranks other than 0, or if this process has lost
        its claim on the point.
        """
        callbacks, device = self.callbacks, self.group.device
        if path is None or self.group.rank > 0 or not callbacks.owns_claim():
            return
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if device.type != "cpu":
            # The state of a generator cannot be restored on another type of device.
            rng_state: Tensor = torch.get_device_module(device).get_rng_state(device)
            random["accelerator"] = device.type, rng_state
        saved: SavedState = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
            "progress": asdict(state),
        }
        if self.metrics is not None:
            saved["metrics"] = self.metrics.state_dict()
        if self.forgetting is not None:
            saved["forgetting"] = self.forgetting.state_dict()
        try:
            checkpoint.save(path, callbacks.key, saved)
        except (OSError, RuntimeError) as error:  # such as a full disk
            print(f"checkpoint: cannot save ({error}); training continues", flush=True)

    def restore(self, saved: SavedState) -> TrainState | None:
        """Restore a checkpoint; return its TrainState, or None if it does not match the model.

        If it does not match, some weights of the model may already have been overwritten.
        """
        device = self.group.device
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["random"]["cpu"])
            saved_on, rng_state = saved["random"].get("accelerator", ("cpu", None))
            if saved_on == device.type != "cpu":
                torch.get_device_module(device).set_rng_state(rng_state, device)
            if self.metrics is not None:
                self.metrics.load_state_dict(saved["metrics"])
            if self.forgetting is not None and "forgetting" in saved:
                self.forgetting.load_state_dict(saved["forgetting"])
            elif self.forgetting is not None:  # record.forgetting was set after saving
                self.forgetting = None
                if self.metrics is not None:
                    self.metrics.forgetting = None
            progress = {**saved["progress"], "plateau": Plateau(**saved["progress"]["plateau"])}
            if self.training.until == "saturation":  # the saved budget may be smaller
                progress["max_steps"] = self.initial_max_steps
            return TrainState(**progress)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            return None


@contextlib.contextmanager
def _use_deterministic_algorithms() -> Iterator[None]:
    """Context manager in which operations use deterministic algorithms.

    Operations without a deterministic algorithm print a warning. This function does not call
    torch.use_deterministic_algorithms, because that imports torch's compiler, which takes as long
    as importing torch. In deterministic mode, torch also fills new memory with nan. Filling is
    disabled here, because on a GPU it is an additional kernel launch for each new tensor.
    """
    settings: Any = deterministic  # its attributes are not in torch's stubs
    mode, fill = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        settings.fill_uninitialized_memory = fill
