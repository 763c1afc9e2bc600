"""A checkpoint for the fault tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexhpc.config.sections.training import Adam
from flexhpc.errors import Interrupted
from flexhpc.training import Callbacks
from tests.training.helpers import run

TRAINING = Adam(optimizer="adam", lr=5e-3, batch_size=32, epochs=40)
N = 150


def saved_checkpoint(folder: Path) -> Path:
    """Interrupt a training run; return its checkpoint, whose key is ``k``."""
    path = folder / "probe.ckpt"
    callbacks = Callbacks(
        should_stop=iter([False] * 60 + [True]).__next__, checkpoint=path, key="k"
    )
    with pytest.raises(Interrupted):
        run(TRAINING, N, callbacks=callbacks)
    return path
