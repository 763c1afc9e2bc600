"""Search policies: pure functions that choose the n of the next probes and estimate the EMC.

This package does not import torch.
"""

from flexhpc.search.bayes import estimate_at_training_error
from flexhpc.search.cost import cost_bound
from flexhpc.search.history import (
    Bracket,
    EmcInterval,
    Estimate,
    History,
    Probe,
    ProbeResult,
)
from flexhpc.search.policy import estimate_so_far, is_precise, next_probes, probes_per_round

__all__ = [
    "Bracket", "EmcInterval", "Estimate", "History", "Probe", "ProbeResult", "cost_bound",
    "estimate_at_training_error", "estimate_so_far", "is_precise", "next_probes",
    "probes_per_round",
]  # fmt: skip
