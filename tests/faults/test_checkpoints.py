"""Checkpoints that are damaged, or hold something else than their key says: never trained on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flexhpc.training import Callbacks, Outcome, checkpoint
from tests.faults.made import TRAINING, N, a_checkpoint
from tests.training.helpers import run, same


@pytest.fixture(scope="module")
def undisturbed() -> Outcome:
    return run(TRAINING, N)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The checkpoint of a training run that was stopped in the middle."""
    return a_checkpoint(tmp_path)


class Calling:
    """What calls something as soon as it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_a_checkpoint_that_calls_is_not_obeyed(tmp_path: Path) -> None:
    """It is whole, and its checksums are right."""
    path, called = tmp_path / "one.ckpt", tmp_path / "called"
    checkpoint.save(path, "k", {"model": Calling(called)})
    assert checkpoint.load(path, "k") is None
    assert not called.exists()
    torch.load(path, weights_only=False)
    assert called.exists(), "it would have called"


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another network": lambda state: state["model"].update(
        {key: value[:1] for key, value in state["model"].items()}
    ),
    "no network": lambda state: state.update(model=3),
    "no progress": lambda state: state.pop("progress"),
    "text as progress": lambda state: state["progress"].update(steps="x"),
    "another optimizer": lambda state: [
        one.update(exp_avg=torch.zeros(3, 7)) for one in state["optimizer"]["state"].values()
    ],
    "no random state": lambda state: state["random"].update(cpu=torch.zeros(3)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_right_key_with_wrong_content_costs_no_more_than_the_probe(
    change: Callable[[dict[str, Any]], object], saved: Path, undisturbed: Outcome
) -> None:
    """It begins anew: at once, or, where it shows in the first step only, at the next attempt."""
    state = checkpoint.load(saved, "k")
    assert state is not None
    change(state)
    del state["format"], state["key"]
    checkpoint.save(saved, "k", state)
    callbacks = Callbacks(checkpoint=saved, key="k")
    try:
        found = run(TRAINING, N, callbacks=callbacks)
    except (RuntimeError, TypeError):
        assert not saved.exists()
        found = run(TRAINING, N, callbacks=callbacks)
    same(undisturbed, found)
