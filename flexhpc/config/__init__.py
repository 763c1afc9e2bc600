"""Sweep specs, their points and the ids of points. This package imports neither torch nor
mlflow."""

from flexhpc.config.frozen import freeze, request_hash
from flexhpc.config.loading import load_points, load_sweep
from flexhpc.config.point import Point
from flexhpc.config.sections.data import Data
from flexhpc.config.sections.gates import Gates
from flexhpc.config.sections.model import Model
from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Training
from flexhpc.config.sweep import Sweep

__all__ = [
    "Data", "Gates", "Model", "Point", "Search", "Sweep", "Training", "freeze", "load_points",
    "load_sweep", "request_hash",
]  # fmt: skip
