"""Choose the memory format of images and kernels: channels_last on the CPU.

Convolutions of oneDNN and their gradients take less time with channels_last (NHWC), above all those
with few channels (docs/performance.md). Outputs have the memory format of the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def use_channels_last(model: nn.Module, device: torch.device) -> None:
    """Convert a model to channels_last where that is faster: on the CPU in float32.

    Only models with the attribute ``flexhpc_any_layout`` are converted, because others may flatten
    images with ``view``, which fails with channels_last.
    """
    single = all(weight.dtype == torch.float32 for weight in model.parameters())
    if device.type == "cpu" and single and getattr(model, "flexhpc_any_layout", False):
        model.to(memory_format=torch.channels_last)


def match_memory_format(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with the strides of ``like``, which has the same shape.

    Fused optimizers require equal strides of weight, gradient and state.
    """
    same = all(
        size == 1 or stride == other
        for size, stride, other in zip(like.shape, tensor.stride(), like.stride(), strict=True)
    )
    return tensor if same else torch.empty_like(like).copy_(tensor)
