"""What to measure: sweep specs, their points and their ids. Imports neither torch nor mlflow."""

from flexhpc.spec.frozen import freeze, request_hash
from flexhpc.spec.loading import checked, load
from flexhpc.spec.point import Point
from flexhpc.spec.sections.data import Data
from flexhpc.spec.sections.gates import Gates
from flexhpc.spec.sections.model import Model
from flexhpc.spec.sections.search import Search
from flexhpc.spec.sections.training import Training
from flexhpc.spec.sweep import Sweep

__all__ = [
    "Data", "Gates", "Model", "Point", "Search", "Sweep", "Training", "checked", "freeze", "load",
    "request_hash",
]  # fmt: skip
