"""One probe: optimizers, budget, loop, verdict. Knows nothing of searches, files or clusters."""

from flexhpc.training.group import Group
from flexhpc.training.loop import train
from flexhpc.training.outcome import Hooks, Outcome, ProbeData, Verdict

__all__ = ["Group", "Hooks", "Outcome", "ProbeData", "Verdict", "train"]
