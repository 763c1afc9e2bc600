"""Optimizers, learning rates, gradient clipping and SAM.

docs/optimizers.md says from which library each optimizer is taken and how it was verified.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # not in torch's stubs

from flexhpc.config.sections.training import Adam, AdamW, Gd, Sgd, Training
from flexhpc.config.variants import load_implementation
from flexhpc.training.memory_format import match_memory_format
from flexhpc.training.shampoo import Shampoo

_VECTOR_LR_FACTOR = 0.1
"""Ratio of the learning rate of vectors to the learning rate of matrices, for Muon."""
_MIN_NORM = 1e-12
_DECAY_FRACTION = 0.1
"""With ``schedule: wsd``, the learning rate decays during this last fraction of the budget."""
_UNWRAPPED_METHODS = ("add_param_group", "state_dict")

Parameters = list[nn.Parameter]


def make_optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer that the ``training`` section specifies.

    Call :func:`set_learning_rates` before every step. Parameters without a gradient are not
    changed. If a parameter has an attribute ``lr_factors`` (two numbers), its learning rate is
    multiplied by the first number if the optimizer is sgd or gd, and by the second number if it is
    adam or adamw.
    """
    optimizer: torch.optim.Optimizer = load_implementation(training)(training, list(parameters))
    for group in optimizer.param_groups:
        group.setdefault("lr_factor", 1.0)
    return optimizer


def _make_fused_class(
    optimizer_class: type[torch.optim.Optimizer],
    fused_step: Callable[[torch.optim.Optimizer], bool],
) -> Callable[..., torch.optim.Optimizer]:
    """Return a subclass of a torch optimizer whose ``step`` only calls the fused kernel.

    Arithmetic and state are the same as in torch. The ``step`` method of torch also selects an
    implementation, calls hooks and supports torch.compile and profilers. This extra work takes
    100 us per step, and imports torch._dynamo, which takes about as long as importing torch.

    Args:
        optimizer_class: class of the optimizer in torch.
        fused_step: function that makes a step and returns True. If the optimizer has no state yet,
            the function only returns False; then the ``step`` method of torch makes the step and
            creates the state.
    """
    torch_step = inspect.unwrap(optimizer_class.step)

    def step(self: torch.optim.Optimizer) -> None:
        if not fused_step(self):
            torch_step(self)
            _share_step_counters(self)

    step.hooked = True  # type: ignore[attr-defined]  # or torch would wrap it again
    torch_load = inspect.unwrap(optimizer_class.load_state_dict)

    def load_state_dict(self: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        torch_load(self, state_dict)
        for parameter, state in self.state.items():  # the kernel does not check shapes
            sizes = {value.shape for value in state.values() if isinstance(value, Tensor)}
            if not sizes <= {parameter.shape, torch.Size()}:
                raise ValueError("the optimizer's state does not match the parameters")
            for name, value in state.items():
                if isinstance(value, Tensor) and value.dim():
                    state[name] = match_memory_format(value, parameter)

    methods = {name: inspect.unwrap(getattr(optimizer_class, name)) for name in _UNWRAPPED_METHODS}
    methods |= {"step": step, "load_state_dict": load_state_dict}
    return type(optimizer_class.__name__, (optimizer_class,), methods)


def _groups_with_gradients(
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[dict[str, Any], list[Tensor], list[Tensor]]]:
    """Yield each parameter group, its parameters that have a gradient, and their gradients.

    Groups without any gradient are omitted.
    """
    for group in optimizer.param_groups:
        pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
        if pairs:
            yield group, [p for p, _ in pairs], [g for _, g in pairs]


def _share_step_counters(optimizer: torch.optim.Optimizer) -> None:
    """Let all parameters of a group that have made the same number of steps share one counter."""
    for group in optimizer.param_groups:
        counts: dict[float, Tensor] = {}
        for state in (optimizer.state[p] for p in group["params"] if p in optimizer.state):
            if "step" in state:
                state["step"] = counts.setdefault(float(state["step"]), state["step"])


def _fused_adam_step(optimizer: torch.optim.Optimizer) -> bool:
    state, groups = optimizer.state, list(_groups_with_gradients(optimizer))
    if any(p not in state for _, parameters, _ in groups for p in parameters):
        return False
    for group, parameters, gradients in groups:
        states = [state[p] for p in parameters]
        if len(parameters) == len(group["params"]):
            for step in {id(s["step"]): s["step"] for s in states}.values():
                step += 1
        else:  # parameters without a gradient make no step, but may share this counter
            for s in states:
                s["step"] = s["step"] + 1
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            parameters, gradients, [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states], [],
            [s["step"] for s in states], lr=group["lr"], beta1=group["betas"][0],
            beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False,
        )  # fmt: skip
    return True


def _fused_sgd_step(optimizer: torch.optim.Optimizer) -> bool:
    state, groups = optimizer.state, list(_groups_with_gradients(optimizer))
    if any(
        p not in state for group, parameters, _ in groups if group["momentum"] for p in parameters
    ):
        return False
    for group, parameters, gradients in groups:
        buffers = [state[p]["momentum_buffer"] for p in parameters] if group["momentum"] else []
        torch._fused_sgd_(
            parameters, gradients, buffers, lr=group["lr"], momentum=group["momentum"],
            weight_decay=group["weight_decay"], dampening=0.0, nesterov=False, maximize=False,
            is_first_step=False,
        )  # fmt: skip
    return True


_SGD = _make_fused_class(torch.optim.SGD, _fused_sgd_step)
_ADAM = _make_fused_class(torch.optim.Adam, _fused_adam_step)


def sgd(training: Sgd | Gd, parameters: Parameters) -> torch.optim.Optimizer:
    """Return torch's SGD, which is also used for full-batch gradient descent."""
    return _SGD(
        lr_groups(parameters, 0), lr=training.lr, momentum=training.momentum,
        weight_decay=training.weight_decay, fused=True,
    )  # fmt: skip


def adam(training: Adam | AdamW, parameters: Parameters) -> torch.optim.Optimizer:
    """Return torch's Adam, which with decoupled weight decay is AdamW."""
    return _ADAM(
        lr_groups(parameters, 1), lr=training.lr, weight_decay=training.weight_decay,
        decoupled_weight_decay=isinstance(training, AdamW), fused=True,
    )  # fmt: skip


def shampoo(training: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """Return the optimizer :class:`Shampoo`."""
    return Shampoo(parameters, lr=training.lr, weight_decay=training.weight_decay)


def soap(training: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """Return the optimizer SOAP of the package pytorch-optimizer."""
    from pytorch_optimizer import SOAP

    return SOAP(parameters, lr=training.lr, weight_decay=training.weight_decay)


def muon(training: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """Return the optimizer Muon of the package pytorch-optimizer.

    Matrices and convolution kernels are in one parameter group, and all other parameters, which are
    trained with AdamW, in another. A group without parameters is omitted.
    """
    from pytorch_optimizer import Muon

    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "use_muon": True, "lr_factor": 1.0},
        {"params": vectors, "use_muon": False, "lr_factor": _VECTOR_LR_FACTOR},
    ]
    for group in groups:
        group["lr"] = training.lr * group["lr_factor"]
        group["weight_decay"] = training.weight_decay
    return Muon([group for group in groups if group["params"]])


def lr_groups(parameters: Parameters, factor_index: int) -> list[dict[str, Any]]:
    """Return parameter groups, each with the parameters that have the same learning-rate factor.

    Args:
        parameters: all parameters; the factor of parameters without ``lr_factors`` is 1.
        factor_index: index of the factor in ``lr_factors``: 0 for optimizers whose step is
            proportional to the gradient, 1 for optimizers that normalise the step, such as Adam.
    """
    groups: dict[float, Parameters] = {}
    for parameter in parameters:
        factor = getattr(parameter, "lr_factors", (1.0, 1.0))[factor_index]
        groups.setdefault(factor, []).append(parameter)
    return [{"params": members, "lr_factor": factor} for factor, members in groups.items()]


def budget_independent_updates(training: Training, max_steps: int | None) -> float:
    """Return the number of initial updates that would be the same with a larger budget.

    With ``schedule: wsd``, these are the updates before the learning rate decays. With a constant
    learning rate, these are all updates.

    Args:
        training: training procedure; with ``schedule: cosine``, the result has no meaning.
        max_steps: budget in updates; None without a budget. The result is then infinity.
    """
    if max_steps is None:
        return math.inf
    return (
        math.floor((1 - _DECAY_FRACTION) * max_steps) if training.schedule == "wsd" else max_steps
    )


def learning_rate(training: Training, step: int, max_steps: int | None) -> float:
    """Return the learning rate of an update.

    Args:
        training: training procedure, with the maximum learning rate, the warmup and the schedule.
        step: number of the update, counted from 0.
        max_steps: budget in updates; not used if the schedule is constant.
    """
    lr = training.lr
    if training.warmup is not None:
        lr *= min(1.0, (step + 1) / training.warmup)
    if training.schedule == "constant" or max_steps is None:
        return lr
    if training.schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * step / max_steps))
    stable = budget_independent_updates(training, max_steps)
    return lr if step < stable else lr * (max_steps - step) / (max_steps - stable)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, training: Training, step: int, max_steps: int | None
) -> None:
    """Set the learning rate of every parameter group for update number ``step``."""
    lr = learning_rate(training, step, max_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


@torch.no_grad()
def update_weights(optimizer: torch.optim.Optimizer) -> None:
    """Make one update; if the optimizer raises LinAlgError, set all weights to nan.

    Shampoo and SOAP raise LinAlgError if a gradient is not finite. Other optimizers compute nan
    weights from such a gradient.
    """
    try:
        optimizer.step()
    except LinAlgError:
        optimizer.state.clear()  # SOAP leaves it incomplete, so the next update would fail
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.fill_(math.nan)


@torch.no_grad()
def perturb_weights(parameters: Sequence[nn.Parameter], rho: float) -> list[Tensor | None]:
    """Move the weights from w to ``w + rho g / |g|``, where g is the gradient at w.

    To first order, this is where the loss is largest within distance ``rho`` of w (Foret et al.
    2021, arXiv 2010.01412, equation 2 with p = 2). ``|g|`` is the norm over all parameters. SAM
    computes a second gradient at the new weights, but applies it to the previous weights: call
    :func:`restore_weights` before the update.

    Args:
        parameters: parameters to move; parameters without a gradient are not moved.
        rho: Euclidean distance by which the weights are moved.

    Returns:
        The previous value of each parameter; None for parameters that were not moved.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    scale = rho / nn.utils.get_total_norm(gradients).clamp_min(_MIN_NORM)
    previous = [None if p.grad is None else p.clone() for p in parameters]
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad * scale)
    return previous


@torch.no_grad()
def restore_weights(parameters: Sequence[nn.Parameter], previous: Sequence[Tensor | None]) -> None:
    """Restore the weights from ``previous``, which :func:`perturb_weights` returned."""
    for parameter, weight in zip(parameters, previous, strict=True):
        if weight is not None:
            parameter.copy_(weight)
