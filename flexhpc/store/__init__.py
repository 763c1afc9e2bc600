"""Results on disk: HDF5 point files, fit masks, claims and the layout of run folders.

This package does not import torch.
"""

from flexhpc.store.claim import HEARTBEAT_TIMEOUT, Claim, ClaimRecord, acquire_claim, read_claim
from flexhpc.store.masks import Masks, read_masks
from flexhpc.store.point_file import (
    append_probe,
    create_point_file,
    read_loss_curves,
    read_point_file,
    write_estimate,
    write_evaluation,
)
from flexhpc.store.record import Header, PointRecord, ProbeRecord, to_history
from flexhpc.store.run_folder import RunFolder

__all__ = [
    "HEARTBEAT_TIMEOUT", "Claim", "ClaimRecord", "Header", "Masks", "PointRecord", "ProbeRecord",
    "RunFolder", "acquire_claim", "append_probe", "create_point_file", "read_claim",
    "read_loss_curves", "read_masks", "read_point_file", "to_history", "write_estimate",
    "write_evaluation",
]  # fmt: skip
