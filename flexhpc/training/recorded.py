"""An update that is recorded once and replayed: where to start kernels takes longer than they run.

That is a small network on a GPU. The recording is a CUDA graph, one for each size of a batch. It is
used only after it has left, on this very card and network, the same bits as two updates, one after
the other, of rows in two orders; otherwise training goes on without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Found = list[tuple[Tensor, Tensor, Tensor]]
"""What the passes of an update found: logits, labels and rows of each."""
Update = Callable[[Tensor], Found]

_BY_ITSELF = 64
"""Updates that are made first: a training of few is over before a recording pays."""
_MOST_STATE = 2**26
"""Bytes of weights and what an optimizer keeps of them: with more the kernels are the time."""
_WARM_UP = 3
"""Updates before a recording in which libraries choose and allocate what they need."""


@dataclass(frozen=True)
class Recording:
    """An update of a batch of one size.

    Attributes:
        rows: int64 (m,), where it reads the rows to train on; found: where it leaves what it found.
        replay: makes it.
    """

    rows: Tensor
    found: Found
    replay: Callable[[], None]


Record = Callable[[Update, Tensor], Recording]


def recorder(device: torch.device) -> Record | None:
    """Return what records updates on a device; None where that gains nothing."""
    return _Graphs() if device.type == "cuda" else None


class _Graphs:
    """Records updates as CUDA graphs; those of one training share their memory."""

    def __init__(self) -> None:
        self._first: torch.cuda.CUDAGraph | None = None

    def __call__(self, update: Update, ids: Tensor) -> Recording:
        """Record an update of some rows; makes some of these first."""
        rows, here, aside = ids.clone(), torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                update(rows)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        pool = None if self._first is None else self._first.pool()
        try:
            with torch.cuda.stream(here), torch.cuda.graph(graph, pool=pool):  # back if it fails
                found = update(rows)
        except RuntimeError:
            _record_nothing(ids.device)
            raise
        self._first = self._first or graph
        return Recording(rows, found, graph.replay)


def _record_nothing(device: torch.device) -> None:
    """Record what cannot fail: after a failure random numbers count as being recorded still."""
    number, graph = torch.zeros(1, device=device), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        number.add_(1)


class Recorded:
    """The updates of a training: made, or replayed where there is a recording.

    Args:
        update: makes one of the rows that it is given. It draws no random numbers, or is never
            replayed.
        state: returns all tensors that updates change; the same ones each time.
        record: see :func:`recorder`.
    """

    def __init__(
        self, update: Update, state: Callable[[], Sequence[Tensor]], record: Record
    ) -> None:
        self._update, self._state, self._record = update, state, record
        self._made, self._refused = 0, False
        self._recordings: dict[int, Recording] = {}

    def __call__(self, ids: Tensor) -> Found:
        """Make an update of some rows, int64 (m,); nothing of what it returns changes later."""
        recording = self._recordings.get(ids.shape[0])
        if recording is not None:
            recording.rows.copy_(ids)
            recording.replay()
            return _kept(recording.found)
        self._made += 1
        if self._refused or self._made <= _BY_ITSELF or ids.shape[0] == 1:  # has but one order
            return self._update(ids)
        return self._made_and_recorded(ids)

    def _made_and_recorded(self, ids: Tensor) -> Found:
        """Make an update, and keep a recording of it if that does the same."""
        state, random = self._state(), rng_state(ids.device)
        if sum(tensor.nbytes for tensor in state) > _MOST_STATE:
            self._refused = True
            return self._update(ids)
        before = _copies(state)
        found = _kept(self._update(ids))
        after = _copies(state)
        stays = all(map(_same_place, state, self._state()))
        if not stays or not torch.equal(random, rng_state(ids.device)):
            self._refused = True
            return found
        others = ids.flip(0)
        then = _kept(self._update(others))
        expected = [(ids, [*after, *_flat(found)]), (others, [*_copies(state), *_flat(then)])]
        recording = self._tried(ids, state, before, expected)
        _put(state, after)
        if recording is None:
            self._refused = True
        else:
            self._recordings[ids.shape[0]] = recording
        return found

    def _tried(
        self, ids: Tensor, state: Sequence[Tensor], before: Sequence[Tensor],
        expected: Sequence[tuple[Tensor, Sequence[Tensor]]],
    ) -> Recording | None:  # fmt: skip
        """Record an update; None if that fails, or a replay leaves anything else.

        Args:
            ids: its rows; state: what it changes; before: from where to begin.
            expected: rows of one update after the other, and what they leave: state and found.
        """
        try:
            _put(state, before)
            recording = self._record(self._update, ids)
            _put(state, before)
            for rows, left in expected:
                recording.rows.copy_(rows)
                recording.replay()
                if not all(map(torch.equal, [*state, *_flat(recording.found)], left)):
                    return None
        except RuntimeError:  # a kernel that cannot be recorded
            return None
        return recording


def rng_state(device: torch.device) -> Tensor:
    """Return the state of the default random number generator of a device, uint8."""
    if device.type == "cpu":
        return torch.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def _kept(found: Found) -> Found:
    return [(logits.clone(), labels.clone(), rows.clone()) for logits, labels, rows in found]


def _flat(found: Found) -> list[Tensor]:
    return [tensor for some in found for tensor in some]


def _same_place(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr()


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


@torch.no_grad()
def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
