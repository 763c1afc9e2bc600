"""Malicious checkpoints, and checkpoints whose content does not match their key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flexhpc.training import Callbacks, Outcome, checkpoint
from tests.faults.checkpoints import TRAINING, N, saved_checkpoint
from tests.training.helpers import assert_outcomes_equal, run


@pytest.fixture(scope="module")
def undisturbed() -> Outcome:
    return run(TRAINING, N)


class CreatesFolder:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    """The checksums of the checkpoint are valid."""
    path, folder = tmp_path / "probe.ckpt", tmp_path / "folder"
    checkpoint.save(path, "k", {"model": CreatesFolder(folder)})
    assert checkpoint.load(path, "k") is None
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists(), "the checkpoint contains no code"


def test_a_member_that_is_marked_as_a_folder_is_detected(tmp_path: Path) -> None:
    """The attributes have no checksum, and torch.load returns uninitialised memory."""
    path = tmp_path / "probe.ckpt"
    checkpoint.save(path, "k", {"weight": torch.ones(3)})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    assert checkpoint.load(path, "k") is None


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "other network": lambda state: state["model"].update(
        {key: value[:1] for key, value in state["model"].items()}
    ),
    "no network": lambda state: state.update(model=3),
    "no progress": lambda state: state.pop("progress"),
    "text as progress": lambda state: state["progress"].update(steps="x"),
    "other optimizer": lambda state: [
        moments.update(exp_avg=torch.zeros(3, 7))
        for moments in state["optimizer"]["state"].values()
    ],
    "no random state": lambda state: state["random"].update(cpu=torch.zeros(3)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_of_other_content_restarts_the_probe(
    change: Callable[[dict[str, Any]], object], undisturbed: Outcome, tmp_path: Path
) -> None:
    """Either at once, or, if only the first update fails, at the next attempt."""
    saved = saved_checkpoint(tmp_path)
    state = checkpoint.load(saved, "k")
    assert state is not None
    change(state)
    del state["format"], state["key"]
    checkpoint.save(saved, "k", state)
    callbacks = Callbacks(checkpoint=saved, key="k")
    try:
        outcome = run(TRAINING, N, callbacks=callbacks)
    except (RuntimeError, TypeError):
        assert not saved.exists()
        outcome = run(TRAINING, N, callbacks=callbacks)
    assert_outcomes_equal(undisturbed, outcome)
