"""A finished run and a checkpoint for the fault tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexhpc.config.sections.training import Adam
from flexhpc.errors import Interrupted
from flexhpc.training import Callbacks
from tests.barrier import Barrier
from tests.command import flexhpc_output
from tests.faults.site import SPEC
from tests.training.helpers import run

TRAINING = Adam(optimizer="adam", lr=5e-3, batch_size=32, epochs=40)
N = 150


def finished_run(folder: Path) -> Path:
    """Measure the two points of ``SPEC``; return their run folder."""
    folder.mkdir(parents=True)
    (folder / "faults.yaml").write_text(SPEC)
    Barrier(folder)
    (folder / "p.yaml").write_text("workers: 1\ntracking_uri: none\n")
    flexhpc_output(folder, "sweep", "faults.yaml", "--profile", "p.yaml")
    return folder / "runs" / "faults"


def saved_checkpoint(folder: Path) -> Path:
    """Interrupt a training run; return its checkpoint, whose key is ``k``."""
    path = folder / "probe.ckpt"
    callbacks = Callbacks(
        should_stop=iter([False] * 60 + [True]).__next__, checkpoint=path, key="k"
    )
    with pytest.raises(Interrupted):
        run(TRAINING, N, callbacks=callbacks)
    return path
