"""Network families of exact size, their scaling, reparameterizations and parameter counts.

Public names are imported on first access: a spec may name variants of this package, and reading a
spec must not import torch.
"""

from typing import TYPE_CHECKING

from flexhpc.imports import offering

if TYPE_CHECKING:
    from flexhpc.models.builder import build, count_bits, count_parameters
    from flexhpc.models.scaling import concrete

__all__ = ["build", "concrete", "count_bits", "count_parameters"]
__getattr__ = offering(
    __name__,
    {
        "build": "builder",
        "concrete": "scaling",
        "count_bits": "builder",
        "count_parameters": "builder",
    },
)
