"""The optimizer Shampoo as defined in its paper; docs/optimizers.md compares implementations.

Shampoo of the package pytorch-optimizer is not used. With momentum, it deviates from the paper,
because the momentum buffer, which contains preconditioned gradients, enters the statistics. At
every update it computes a singular value decomposition for every axis, even for long axes.
ScalableShampoo of pytorch-optimizer (Anil et al. 2020) is not used, because it decays old
statistics, and because its state cannot be loaded with ``weights_only``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_EPSILON = 1e-6


class Shampoo(torch.optim.Optimizer):
    """Shampoo (Gupta, Koren and Singer 2018, arXiv 1802.09568, algorithm 2).

    Let G be the gradient of a tensor of order k. The update is G, multiplied along each axis i by
    H_i^(-1/(2k)). H_i is epsilon I plus the sum of G_(i) G_(i)^T over all updates so far, where the
    rows of G_(i) are the slices of G along axis i. For an axis longer than
    ``max_preconditioner_dim``, only the diagonal of H_i is kept, as in the experiments of the
    paper.

    Args:
        parameters: parameters to train; a scalar is treated as a vector of length 1.
        lr: learning rate.
        weight_decay: coefficient of the L2 penalty.
        max_preconditioner_dim: maximum length of an axis for which the full matrix H_i is kept.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0,
        max_preconditioner_dim: int = 1200,
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._max_preconditioner_dim = max_preconditioner_dim

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no loss
        """Make one update with the current gradients; ``closure`` is ignored.

        Raises:
            LinAlgError: a gradient is not finite and has an axis for which a full matrix is kept.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                    tensor = gradient.reshape(gradient.shape or (1,))
                    update = self._precondition(parameter, tensor)
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"])

    def _precondition(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            diagonals = [gradient.new_full((n,), _EPSILON) for n in gradient.shape]
            state["statistics"] = [
                d.diag() if len(d) <= self._max_preconditioner_dim else d for d in diagonals
            ]
        update = gradient
        for axis, statistic in enumerate(state["statistics"]):
            rows = gradient.movedim(axis, 0).reshape(len(statistic), -1)
            full = statistic.dim() == 2
            statistic.add_(rows @ rows.T if full else rows.square().sum(1))
            root = _matrix_power(statistic, -1 / (2 * gradient.dim()))
            moved = update.movedim(axis, 0)
            rows = moved.reshape(len(statistic), -1)
            rows = root @ rows if full else root[:, None] * rows
            update = rows.view(moved.shape).movedim(0, axis)
        return update


def _matrix_power(statistic: Tensor, exponent: float) -> Tensor:
    """Return a symmetric positive definite matrix raised to a power.

    A diagonal matrix is represented by the vector of its diagonal elements.
    """
    if statistic.dim() == 1:
        return statistic.pow(exponent)
    values, vectors = torch.linalg.eigh(statistic)
    # No eigenvalue is below epsilon, except by rounding.
    root: Tensor = (vectors * values.clamp_min(_EPSILON).pow(exponent)) @ vectors.T
    return root
