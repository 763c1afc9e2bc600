"""Training of one probe: loop, gradient engine, optimizers, verdict.

Public names are imported lazily, so that reading a spec does not import torch.
"""

from typing import TYPE_CHECKING

from flexhpc.imports import lazy_getattr

if TYPE_CHECKING:
    from flexhpc.training.group import Group
    from flexhpc.training.loop import train
    from flexhpc.training.outcome import Callbacks, ModelFactory, Outcome, ProbeData, Verdict

__all__ = ["Callbacks", "Group", "ModelFactory", "Outcome", "ProbeData", "Verdict", "train"]
__getattr__ = lazy_getattr(
    __name__,
    {
        "Group": "group",
        "Callbacks": "outcome",
        "ModelFactory": "outcome",
        "Outcome": "outcome",
        "ProbeData": "outcome",
        "Verdict": "outcome",
        "train": "loop",
    },
)
