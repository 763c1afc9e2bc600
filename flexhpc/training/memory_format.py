"""Choose the memory format of images and convolution kernels: channels_last on the CPU.

With channels_last (NHWC), oneDNN computes convolutions and their gradients faster, above all if
they have few channels (docs/performance.md). The output of a convolution has the memory format of
its kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def use_channels_last(model: nn.Module, device: torch.device) -> None:
    """Convert a model to channels_last where this is faster: on the CPU, in float32.

    Only models with the attribute ``flexhpc_any_memory_format`` are converted. Other models may
    flatten images with ``view``, which fails with channels_last.
    """
    single = all(weight.dtype == torch.float32 for weight in model.parameters())
    if device.type == "cpu" and single and getattr(model, "flexhpc_any_memory_format", False):
        model.to(memory_format=torch.channels_last)


def match_memory_format(tensor: Tensor, like: Tensor) -> Tensor:
    """Return ``tensor`` with the strides of ``like``, which must have the same shape.

    ``tensor`` is copied if its strides differ; strides of axes of length 1 do not matter. Fused
    optimizers require a weight, its gradient and its state to have the same strides.
    """
    strides = zip(like.shape, tensor.stride(), like.stride(), strict=True)
    same = all(size == 1 or stride == expected for size, stride, expected in strides)
    return tensor if same else torch.empty_like(like).copy_(tensor)
