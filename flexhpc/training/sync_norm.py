"""BatchNorm over a batch that is distributed over several processes.

torch's SyncBatchNorm is not used, because it runs on GPUs only, and because converting a timm model
to it drops the activations that are fused into BatchNorm layers. Instead, the function
``torch.nn.functional.batch_norm``, which all BatchNorm layers call, is replaced during a forward
pass. Modules, parameters and checkpoints are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from flexhpc.training.group import Group


def batch_norm_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorm layers of a model."""
    norms = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, norms)]


class synced_batch_norm(TorchFunctionMode):
    """Context manager in which BatchNorm in train mode uses the statistics of the whole batch.

    The whole batch consists of the batches of all processes of the group.

    Raises:
        ValueError: in a forward pass, if the whole batch has only one value per channel.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Replace ``torch.nn.functional.batch_norm``."""
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
        weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
        momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if not training:
            plain: Tensor = functional.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
            return plain
        with torch.autocast(input.device.type, enabled=False):
            values = input if input.dtype == torch.float64 else input.float()
            dims = [0, *range(2, values.dim())]
            shape = [1, -1, *[1] * (values.dim() - 2)]
            channels = values.shape[1]
            count = values.new_full((1,), values.numel() / max(1, channels))
            sums = _GroupSum.apply(torch.cat([values.sum(dims), count]), self.group)
            total = float(sums.detach()[-1])
            if total <= 1:
                raise ValueError("Expected more than 1 value per channel when training")
            mean = sums[:-1] / total
            centred = values - mean.view(shape)
            variance = _GroupSum.apply(centred.square().sum(dims), self.group) / total
            with torch.no_grad():
                if running_mean is not None:
                    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                if running_var is not None:
                    unbiased = variance * (total / (total - 1))
                    running_var.lerp_(unbiased.to(running_var.dtype), momentum)
            normalised = centred * (variance + eps).rsqrt().view(shape)
            if weight is not None:
                normalised = normalised * weight.view(shape)
            if bias is not None:
                normalised = normalised + bias.view(shape)
        result: Tensor = normalised.to(input.dtype)
        return result


class _GroupSum(torch.autograd.Function):
    """Sum of a vector over all processes; the backward pass sums the gradient in the same way."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.all_reduce(vector.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_reduce(gradient.clone()), None
