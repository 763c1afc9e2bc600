"""Families of networks with exact sizes, their scaling and counts."""

from flexhpc.models.build import build
from flexhpc.models.counts import count_parameters
from flexhpc.models.scaling import concrete

__all__ = ["build", "concrete", "count_parameters"]
