"""In which order the numbers of images and of kernels lie in memory.

torch keeps channels apart (NCHW). Beside each other (NHWC, ``torch.channels_last``) convolutions of
oneDNN take less time, those of few channels and their gradients above all. Kernels that lie so have
all images that come out of them lie so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lay_out(network: nn.Module, device: torch.device) -> None:
    """Have the channels of images lie beside each other where that is quicker.

    On the CPU in single precision, which is oneDNN's. Only where the network says so by its
    ``flexhpc_any_layout``: one may flatten images by a view, which does not work then.
    """
    single = all(weight.dtype == torch.float32 for weight in network.parameters())
    if device.type == "cpu" and single and getattr(network, "flexhpc_any_layout", False):
        network.to(memory_format=torch.channels_last)


def as_laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor whose numbers lie in memory as those of another of its shape.

    Fused optimizers go through the memory of weight, gradient and state as it is.
    """
    same = all(
        size == 1 or stride == other
        for size, stride, other in zip(like.shape, tensor.stride(), like.stride(), strict=True)
    )
    return tensor if same else torch.empty_like(like).copy_(tensor)
