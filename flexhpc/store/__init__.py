"""Results on disk: HDF5 point files, fit masks, claims and the layout of run folders.

Does not import torch.
"""

from flexhpc.store.claim import HEARTBEAT_TIMEOUT, Claim, ClaimRecord, acquire_claim, read_claim
from flexhpc.store.masks import Masks, read_masks
from flexhpc.store.point_file import append, create, read, write_estimate, write_evaluation
from flexhpc.store.record import Header, PointRecord, ProbeRecord, history_of
from flexhpc.store.run_folder import RunFolder

__all__ = [
    "HEARTBEAT_TIMEOUT",
    "Claim",
    "ClaimRecord",
    "Header",
    "Masks",
    "PointRecord",
    "ProbeRecord",
    "RunFolder",
    "acquire_claim",
    "append",
    "create",
    "history_of",
    "read",
    "read_claim",
    "read_masks",
    "write_estimate",
    "write_evaluation",
]  # fmt: skip
