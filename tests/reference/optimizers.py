"""The optimizers of the recipes: torch's, pytorch_optimizer's, and Shampoo from its paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_optimizer import SOAP, Muon
from torch import Tensor, nn

Words = Mapping[str, Any]
_SMALL = 1e-6


class Shampoo(torch.optim.Optimizer):
    """Gupta, Koren and Singer 2018, algorithm 2, with an L2 penalty."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no loss
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = weight.grad + group["weight_decay"] * weight
                weight -= group["lr"] * self._preconditioned(weight, gradient)

    def _preconditioned(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        if "sums" not in state:
            state["sums"] = [_SMALL * torch.eye(side) for side in gradient.shape]
        order = gradient.dim()
        result = gradient
        for axis, total in enumerate(state["sums"]):
            others = [other for other in range(order) if other != axis]
            total += torch.tensordot(gradient, gradient, dims=(others, others))
            values, vectors = torch.linalg.eigh(total)
            roots = values.clamp(min=_SMALL) ** (-1 / (2 * order))
            root = vectors @ torch.diag(roots) @ vectors.T
            result = torch.tensordot(root, result, dims=([1], [axis])).movedim(0, axis)
        return result


def optimizer(training: Words, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that the ``training`` words of a recipe ask for."""
    name, lr, decay = training["optimizer"], training["lr"], training.get("weight_decay", 0.0)
    weights = list(parameters)
    if name in ("sgd", "gd"):
        return torch.optim.SGD(weights, lr=lr, momentum=training["momentum"], weight_decay=decay)
    if name == "muon":
        return _muon(weights, lr, decay)
    made: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "shampoo": Shampoo,
        "soap": SOAP,
    }
    return made[name](weights, lr=lr, weight_decay=decay)


def _muon(weights: list[nn.Parameter], lr: float, decay: float) -> torch.optim.Optimizer:
    """Muon for matrices and kernels; AdamW, at a tenth of the rate, for vectors."""
    matrices = [weight for weight in weights if weight.dim() > 1]
    vectors = [weight for weight in weights if weight.dim() <= 1]
    return Muon(
        [
            {"params": matrices, "use_muon": True, "lr": lr, "weight_decay": decay},
            {"params": vectors, "use_muon": False, "lr": lr / 10, "weight_decay": decay},
        ]
    )
