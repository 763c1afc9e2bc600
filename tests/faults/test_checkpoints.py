"""Checkpoints that are damaged, or hold something else than their key says: never trained on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexhpc.training import Callbacks, Outcome, checkpoint
from tests.conftest import FULL
from tests.faults.made import TRAINING, N, a_checkpoint
from tests.training.helpers import run, same

FLIPS = 2_000 if FULL else 300


@pytest.fixture(scope="module")
def undisturbed() -> Outcome:
    return run(TRAINING, N)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The checkpoint of a training that was stopped in the middle."""
    return a_checkpoint(tmp_path)


def test_no_flipped_bit_is_trained_on(saved: Path, tmp_path: Path) -> None:
    """What is loaded in spite of one is what was saved."""
    content, right = saved.read_bytes(), checkpoint.load(saved, "k")
    damaged, taken = tmp_path / "damaged.ckpt", 0
    rng = np.random.default_rng()
    for place in [*range(0, len(content), 4096), *rng.integers(0, len(content), FLIPS)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(flipped)
        found = checkpoint.load(damaged, "k")
        if found is not None:
            taken += 1
            assert plain(found) == plain(right), f"a flip at {place} went unseen"
    assert taken < FLIPS / 2, "most flips hit what matters"


def test_no_cut_is_trained_on(saved: Path) -> None:
    content = saved.read_bytes()
    for length in range(0, len(content), 4096):
        saved.write_bytes(content[:length])
        assert checkpoint.load(saved, "k") is None


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


def plain(value: Any) -> Any:
    """Nested lists of plain values, to compare."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def another_network(state: dict[str, Any]) -> None:
    state["model"] = {key: value[:1] for key, value in state["model"].items()}


def no_progress(state: dict[str, Any]) -> None:
    del state["progress"]


def no_network(state: dict[str, Any]) -> None:
    state["model"] = 3


def text_as_progress(state: dict[str, Any]) -> None:
    state["progress"]["steps"] = "x"


def another_optimizer(state: dict[str, Any]) -> None:
    moments = state["optimizer"]["state"]
    for one in moments.values():
        one["exp_avg"] = torch.zeros(3, 7)


def no_random_state(state: dict[str, Any]) -> None:
    state["random"]["cpu"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change",
    [
        another_network,
        no_progress,
        no_network,
        text_as_progress,
        another_optimizer,
        no_random_state,
    ],
)
def test_the_right_key_with_wrong_content_costs_no_more_than_the_probe(
    change: Callable[[dict[str, Any]], None], saved: Path, undisturbed: Outcome
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
