"""Updates that are recorded and replayed, here by what records on no card: it makes them anew.

That the graph of a card replays is tested where there is one (test_gpu.py).
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexhpc.models import build
from flexhpc.spec import checked
from flexhpc.spec.sections.model import Cnn, Mlp, Model, Resnet, Subspace, Timm, Vit
from flexhpc.spec.sections.training import Adam, AdamW, Gd, Sam, Sgd, Soap, Training
from flexhpc.training import Hooks, loop, recorded, train
from flexhpc.training.recorded import Found, Record, Recording, Update
from flexhpc.training.resident import Resident
from tests.training.helpers import SMALL, probe_data, run, same
from tests.training.test_loop import resumed

N = 149  # batches of 30 and of 29
SHORT: dict[str, int] = {"batch_size": 32, "epochs": 20}
ADAM = Adam(optimizer="adam", lr=3e-3, **SHORT)
RESNET = Resnet(family="resnet", width=4, depth=2)
DROPPING = Timm(
    family="timm:vit_tiny_patch16_224",
    kwargs={
        "img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3,
        "drop_rate": 0.2,
    },
)  # fmt: skip


class Tape:
    """Records an update as its rows and where what it found lies; counts.

    Args:
        spoil: called with what was found after every replay; breaks: whether recording fails.
        stale: whether it replays the rows of its recording, whatever it is given.
    """

    def __init__(
        self, spoil: Callable[[Found], None] = lambda found: None, *, breaks: bool = False,
        stale: bool = False,
    ) -> None:  # fmt: skip
        self.spoil, self.breaks, self.stale = spoil, breaks, stale
        self.sizes: list[int] = []
        self.replays = 0

    def record(self, update: Update, ids: Tensor) -> Recording:
        rows = ids.clone()
        found = [tuple(x.clone() for x in some) for some in update(rows)]
        if self.breaks:
            raise RuntimeError("cannot be recorded")
        self.sizes.append(len(ids))

        def replay() -> None:
            for kept, new in zip(found, update(ids if self.stale else rows), strict=True):
                for one, other in zip(kept, new, strict=True):
                    one.copy_(other)
            self.spoil(found)
            self.replays += 1

        return Recording(rows, found, replay)


def with_tape(monkeypatch: pytest.MonkeyPatch, tape: Tape) -> None:
    records: Record = tape.record
    monkeypatch.setattr(loop, "recorder", lambda device: records)


@pytest.mark.parametrize(
    ("training", "model", "sizes"),
    [
        (ADAM, SMALL, [30, 29]),
        (ADAM, Cnn(family="cnn", width=4, depth=2), [30, 29]),
        (ADAM, RESNET, [30, 29]),
        (ADAM, Vit(family="vit", width=12, depth=1, patch=4), [30, 29]),
        (AdamW(optimizer="adamw", lr=3e-3, clip_norm=1.0, **SHORT), RESNET, [30, 29]),
        (Sgd(optimizer="sgd", lr=0.05, **SHORT), SMALL, [30, 29]),
        (Sgd(optimizer="sgd", lr=0.05, momentum=0.0, **SHORT), SMALL, [30, 29]),
        (Gd(optimizer="gd", lr=0.05, epochs=80), SMALL, [149]),
        (ADAM.model_copy(update={"curves": "looks"}), SMALL, [30, 29]),
    ],
)
def test_what_is_replayed_has_the_bits_of_what_is_made(
    training: Training, model: Model, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(training, N, model=model)
    tape = Tape()
    with_tape(monkeypatch, tape)
    same(straight, run(training, N, model=model))
    assert sorted(tape.sizes, reverse=True) == sizes
    assert tape.replays > straight.steps / 8


def test_an_interrupted_probe_goes_on_bitwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    longer = ADAM.model_copy(update={"epochs": 60})
    straight = run(longer, 150)
    tape = Tape()
    with_tape(monkeypatch, tape)
    same(straight, resumed(longer, [90, 80], tmp_path / "probe.ckpt", SMALL))
    assert len(tape.sizes) == 3


def _other_logits(found: Found) -> None:
    found[0][0].add_(1e-6)


def _other_weights(found: Found, network: list[nn.Module]) -> None:
    with torch.no_grad():
        next(network[-1].parameters()).add_(1e-6)


@pytest.mark.parametrize("what", ["logits", "weights", "breaks"])
def test_a_recording_that_does_anything_else_is_not_used(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(ADAM, N)
    networks: list[nn.Module] = []
    spoil = {
        "logits": _other_logits, "weights": partial(_other_weights, network=networks),
        "breaks": lambda found: None,
    }  # fmt: skip
    tape = Tape(spoil[what], breaks=what == "breaks")
    with_tape(monkeypatch, tape)
    build = loop._Run._build

    def kept(self: loop._Run) -> None:
        build(self)
        networks.append(self.network.model)

    monkeypatch.setattr(loop._Run, "_build", kept)
    same(straight, run(ADAM, N))
    assert tape.replays == (what != "breaks"), "tried once"


def test_a_recording_that_reads_no_other_rows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run(ADAM, N)
    tape = Tape(stale=True)
    with_tape(monkeypatch, tape)
    same(straight, run(ADAM, N))
    assert tape.replays == 2


def test_batches_of_one_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = ADAM.model_copy(update={"batch_size": 5, "batches": "tail"})
    straight = run(tail, 21)
    tape = Tape()
    with_tape(monkeypatch, tape)
    same(straight, run(tail, 21))
    assert tape.sizes == [5]


@pytest.mark.parametrize(
    ("training", "model"),
    [
        (ADAM, DROPPING),  # draws random numbers
        (ADAM, Mlp(family="mlp", width=8, depth=1, subspace=Subspace(dims=50))),
        (ADAM.model_copy(update={"schedule": "cosine"}), SMALL),
        (ADAM.model_copy(update={"warmup": 10}), SMALL),
        (ADAM.model_copy(update={"sam": Sam()}), SMALL),
        (ADAM.model_copy(update={"shards": 2}), SMALL),
        (ADAM.model_copy(update={"precision": "bf16"}), SMALL),
        (Soap(optimizer="soap", **SHORT), SMALL),
    ],
)
def test_what_differs_from_update_to_update_is_not_recorded(
    training: Training, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()
    with_tape(monkeypatch, tape)
    assert run(training, N, model=model).steps >= 90
    assert not tape.sizes


def test_networks_of_others_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may do something else every hundredth time."""
    tape = Tape()
    with_tape(monkeypatch, tape)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert train(ADAM, lambda: network, probe_data(N), Hooks()).steps >= 90
    assert not tape.sizes


REPEATING = """\
from torch import nn

class Repeating(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.repeats, self.any_layout = 3, "NCHW"
        self.inner, self.head = nn.Linear(64, 64), nn.Linear(64, classes)

    def forward(self, images):
        seen = images.flatten(1)
        for _ in range(self.repeats):
            seen = self.inner(seen).relu()
        return self.head(seen)
"""


def test_attributes_of_a_users_network_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repeating.py").write_text(REPEATING)
    spec = tmp_path / "own.yaml"
    spec.write_text(
        "name: own\nfixed:\n  data: {source: digits}\n  model: {family: 'repeating:Repeating'}\n"
    )
    (point,) = checked(spec)[1]
    network: Any = build(point.model, (1, 8, 8), 10)
    assert network.repeats == 3
    assert network.any_layout == "NCHW"
    tape = Tape()
    with_tape(monkeypatch, tape)
    assert train(ADAM, lambda: network, probe_data(N), Hooks()).steps >= 90
    assert not tape.sizes


def test_large_networks_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    with_tape(monkeypatch, tape)
    monkeypatch.setattr(recorded, "_MOST_STATE", 1000)
    straight = run(ADAM, N)
    assert not tape.sizes
    assert straight.steps >= 90


def test_a_recording_is_gone_with_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the collector comes to it, which knows nothing of a card's memory."""
    tape = Tape()
    with_tape(monkeypatch, tape)
    runs: list[weakref.ref[loop._Run]] = []
    build_ = loop._Run._build

    def seen(self: loop._Run) -> None:
        build_(self)
        runs.append(weakref.ref(self))

    monkeypatch.setattr(loop._Run, "_build", seen)
    gc.disable()
    try:
        run(ADAM, N)
        assert tape.sizes
        assert runs[0]() is None
    finally:
        gc.enable()


def test_a_recording_reads_a_batch_where_it_was() -> None:
    """Longer batches come later where a probe goes on in the middle of an epoch."""
    inputs = Resident(probe_data(60), double=False)
    short = inputs.batch(torch.arange(20))
    kept, place = short.clone(), short.data_ptr()
    other = inputs.batch(torch.arange(20, 60))
    assert other.data_ptr() != place
    assert torch.equal(short, kept)
    assert any(taken.data_ptr() == place for taken, _ in inputs._outgrown)


def test_without_a_gpu_nothing_is_recorded() -> None:
    assert loop.recorder(torch.device("cpu")) is None
