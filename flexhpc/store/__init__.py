"""Results on disk: HDF5 point files, fit masks, claims and the layout of run folders.

Does not import torch.
"""

from flexhpc.store.claim import SILENCE, Claim, ClaimRecord, read_claim, take
from flexhpc.store.masks import Masks, read_masks
from flexhpc.store.point_file import append, create, read, write_estimate, write_evaluation
from flexhpc.store.record import Header, PointRecord, ProbeRecord, history_of
from flexhpc.store.run_folder import RunFolder

__all__ = [
    "SILENCE",
    "Claim",
    "ClaimRecord",
    "Header",
    "Masks",
    "PointRecord",
    "ProbeRecord",
    "RunFolder",
    "append",
    "create",
    "history_of",
    "read",
    "read_claim",
    "read_masks",
    "take",
    "write_estimate",
    "write_evaluation",
]  # fmt: skip
