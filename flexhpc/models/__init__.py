"""Families of networks with exact sizes, their scaling, reparameterizations and counts.

What it offers is imported when it is asked for: a spec may name variants of this room, and reading
one imports no torch.
"""

from typing import TYPE_CHECKING

from flexhpc.imports import offering

if TYPE_CHECKING:
    from flexhpc.models.builder import build
    from flexhpc.models.counts import count_bits, count_parameters
    from flexhpc.models.scaling import concrete

__all__ = ["build", "concrete", "count_bits", "count_parameters"]
__getattr__ = offering(
    __name__,
    {
        "build": "builder",
        "concrete": "scaling",
        "count_bits": "counts",
        "count_parameters": "counts",
    },
)
