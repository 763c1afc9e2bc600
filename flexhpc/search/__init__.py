"""Search policies: pure functions that choose the next n (samples) and estimate the EMC.

Does not import torch.
"""

from flexhpc.search.bayes import estimate_at
from flexhpc.search.cost import cost_bound
from flexhpc.search.history import (
    Bracket,
    EmcInterval,
    Estimate,
    History,
    Probe,
    ProbeResult,
)
from flexhpc.search.policy import advance, at_once, estimate_so_far, is_precise

__all__ = [
    "Bracket", "EmcInterval", "Estimate", "History", "Probe", "ProbeResult", "advance",
    "at_once", "cost_bound", "estimate_at", "estimate_so_far", "is_precise",
]  # fmt: skip
