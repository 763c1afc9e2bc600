"""One process of a group that trains all cases together.

Usage: python -m tests.training.ranks RANK SIZE TOKEN FOLDER

Rank 0 writes the outcomes of all cases to a pickle in the folder.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from flexhpc.config.sections.gates import CurvatureGate, Gates
from flexhpc.config.sections.model import Cnn, Mlp, Model, Resnet, Subspace, Timm
from flexhpc.config.sections.training import Sam, Training
from flexhpc.errors import Interrupted, PointError
from flexhpc.models import build
from flexhpc.training import Callbacks, Group, Outcome, train
from tests.sections import optimizer
from tests.training.helpers import CPU, DIGIT, SMALL, probe_data

INTERRUPTED = ("adam", "one shard", "sam, sharded", "curves by evaluation")
"""Cases that only the last rank interrupts; in some it has no samples of the batch."""
CURVATURE = Gates(curvature=CurvatureGate(mode="report", products=20))


@dataclass(frozen=True)
class Case:
    """A training run; ``bitwise``: bitwise equal on any number of processes."""

    training: Training
    n: int
    model: Model = SMALL
    bitwise: bool = False


CASES = {
    "adam": Case(optimizer("adam", lr=2e-2, epochs=60), 90),
    "failing": Case(optimizer("adam", lr=1e-2, batch_size=64, epochs=10), 400),
    "sharded gd": Case(optimizer("gd", lr=0.5, epochs=10, shards=4), 1200, bitwise=True),
    "one shard": Case(optimizer("adam", lr=2e-2, epochs=20, shards=1), 90, bitwise=True),
    "gd and batch norm": Case(
        optimizer("gd", lr=0.5, epochs=10, precision="fp64"), 1200,
        Mlp(family="mlp", width=8, depth=1, norm="batch"),
    ),
    "fewer samples than processes": Case(optimizer("sgd", lr=0.1, epochs=10, gates=CURVATURE), 2),
    "batch norm": Case(
        optimizer("sgd", lr=0.05, batch_size=8, epochs=8, precision="fp64"), 29,
        Mlp(family="mlp", width=16, depth=2, norm="batch"),
    ),
    "resnet, few samples": Case(
        optimizer("sgd", lr=0.05, batch_size=3, epochs=4, precision="fp64"), 6,
        Resnet(family="resnet", width=4, depth=2),
    ),
    "two gradients, and curvature": Case(
        optimizer(
            "sgd", lr=0.05, epochs=6, precision="fp64", sam=Sam(), label_smoothing=0.1,
            clip_norm=1.0, warmup=5, gates=CURVATURE,
        ), 90,
    ),
    "subspace": Case(
        optimizer("adam", lr=1e-2, epochs=10, shards=4), 60,
        Mlp(family="mlp", width=8, depth=1, subspace=Subspace(dims=50, projection="sparse")),
        bitwise=True,
    ),
    "sam, sharded": Case(
        optimizer("adam", lr=1e-2, epochs=10, shards=4, sam=Sam(), gates=CURVATURE), 150,
        bitwise=True,
    ),
    "curves by evaluation": Case(
        optimizer("adam", lr=1e-2, epochs=10, shards=4, curves="evaluation", sam=Sam()), 150,
        bitwise=True,
    ),
    "cnn, curves by evaluation": Case(
        optimizer("adam", lr=3e-3, epochs=8, curves="evaluation"), 64,
        Cnn(family="cnn", width=4, depth=2),
    ),
    "channels_last": Case(
        optimizer("adam", lr=1e-2, epochs=8), 64,
        Resnet(family="resnet", width=4, depth=2, norm="layer"),
    ),
    "dropout": Case(
        optimizer("adam", lr=1e-3, batch_size=16, epochs=3, shards=4), 40,
        Timm(family="timm:vit_tiny_patch16_224", kwargs={
            "img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3,
            "drop_rate": 0.2, "proj_drop_rate": 0.2,
        }),
        bitwise=True,
    ),
}  # fmt: skip


def train_case(case: Case, group: Group, callbacks: Callbacks | None = None) -> Outcome:
    make = partial(build, case.model, DIGIT, 10)
    return train(
        case.training, make, probe_data(case.n), callbacks or Callbacks(forgetting=True), group
    )


def interrupt_and_resume(group: Group, folder: Path, name: str) -> Outcome:
    """Interrupt a training run on the last rank, in the middle of an epoch, and resume it."""
    case = CASES[name]
    calls = iter(range(10**6))
    checkpoint = folder / f"{group.size} {name}.ckpt"
    uninterrupted = Callbacks(checkpoint=checkpoint, key="k", forgetting=True)
    interrupted = replace(
        uninterrupted,
        should_stop=lambda: next(calls) >= 40 and group.rank == group.size - 1,
    )
    try:
        train_case(case, group, interrupted)
    except Interrupted:
        assert next(calls) == 41
        assert group.rank or checkpoint.exists()
    else:
        raise AssertionError("not interrupted")
    return train_case(case, group, uninterrupted)


def one_sample_with_batch_norm(group: Group) -> str:
    model = Mlp(family="mlp", width=4, depth=1, norm="batch")
    case = Case(optimizer("sgd", epochs=3), 1, model)
    try:
        train_case(case, group)
    except PointError as error:
        return str(error)
    return "trained"


def main(rank: int, size: int, token: str, folder: Path) -> None:
    torch.set_num_threads(1)
    group = Group.init_process_group(CPU, rank, size, host="127.0.0.1", token=token)
    outcomes = {name: train_case(case, group) for name, case in CASES.items()}
    for name in INTERRUPTED:
        outcomes[f"{name}, interrupted"] = interrupt_and_resume(group, folder, name)
    error = one_sample_with_batch_norm(group)
    if rank == 0:
        (folder / f"{size}.pkl").write_bytes(pickle.dumps((outcomes, error)))
    group.destroy()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
