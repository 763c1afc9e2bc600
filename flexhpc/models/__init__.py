"""Families of networks with exact shapes and parameter counts."""

from flexhpc.models.build import build, count_parameters

__all__ = ["build", "count_parameters"]
