"""Network families of exact size, their scaling, reparameterizations and parameter counts.

Public names are imported lazily: reading a spec, which refers to implementations in this package by
name, must not import torch.
"""

from typing import TYPE_CHECKING

from flexhpc.imports import lazy_getattr

if TYPE_CHECKING:
    from flexhpc.models.builder import build, count_bits, count_parameters
    from flexhpc.models.scaling import resolve_size

__all__ = ["build", "count_bits", "count_parameters", "resolve_size"]
__getattr__ = lazy_getattr(
    __name__,
    {
        "build": "builder",
        "resolve_size": "scaling",
        "count_bits": "builder",
        "count_parameters": "builder",
    },
)
