"""Families of networks with exact sizes, their scaling, reparameterizations and counts."""

from flexhpc.models.build import build
from flexhpc.models.counts import count_bits, count_parameters
from flexhpc.models.scaling import concrete

__all__ = ["build", "concrete", "count_bits", "count_parameters"]
