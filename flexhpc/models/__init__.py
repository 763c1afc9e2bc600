"""Build networks, scale and reparameterize them, and count their parameters.

Public names are imported lazily, so that importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from flexhpc.imports import lazy_getattr

if TYPE_CHECKING:
    from flexhpc.models.builder import ParameterCounts, build, count_parameters
    from flexhpc.models.scaling import resolve_size

__all__ = ["ParameterCounts", "build", "count_parameters", "resolve_size"]
__getattr__ = lazy_getattr(
    __name__,
    {
        "build": "builder",
        "resolve_size": "scaling",
        "ParameterCounts": "builder",
        "count_parameters": "builder",
    },
)
