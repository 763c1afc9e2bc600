"""A network over the samples of its probe: gradients and a look at what it fits.

In one process or in several, the math is that of one pass over the whole batch. With ``shards``
every batch is cut into that many parts whatever the number of processes, and their gradients are
added in the order of the parts: the weights then have the same bits on one process as on four.
Without it each process takes one part, and sums differ in their last bits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.errors import BatchOfOne, PointError
from flexhpc.training.curvature import Ritz, ritz
from flexhpc.training.group import Group
from flexhpc.training.outcome import ProbeData
from flexhpc.training.sync_norm import SyncedBatchNorm, batch_norms

_MOST_AT_ONCE = 4_096
_VALUES_AT_ONCE = 2**23
_BACKWARD_AT_ONCE = 512
_VOTES_EVERY = 8


class Network:
    """An untrained network and the samples that it is to fit.

    Args:
        model: on the group's device.
        data: the samples.
        group: the processes that train it.
        shards: see above.
        precision: one of the spec's.
        in_chunks: the gradient of a large batch is summed up chunk by chunk, unless the network's
            BatchNorm needs it all at once.
        label_smoothing: of the loss that is trained; looks, norms and curvature are without.

    Raises:
        PointError: the network cannot be trained in shards.
    """

    def __init__(
        self, model: nn.Module, data: ProbeData, group: Group, *,
        shards: int | None, precision: str, in_chunks: bool, label_smoothing: float,
    ) -> None:  # fmt: skip
        double = precision == "fp64"
        self.model = model.double() if double else model
        self.inputs = data.inputs.double() if double else data.inputs
        self.labels, self.seed, self.group = data.labels, data.init_seed, group
        self.n = len(self.labels)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        normed = bool(batch_norms(model))
        self.parts = shards or group.size
        self.ordered = shards is not None
        self.alone = shards is None and group.size == 1
        self.in_chunks = in_chunks and not normed
        self.synced = group.size > 1 and normed
        if self.ordered and normed:
            raise PointError(
                "training.shards takes the gradient of each part of a batch by itself, but this "
                "network's BatchNorm normalises over the whole batch; leave shards out"
            )
        self.look_at_once = max(
            64, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // max(1, self.inputs[0].numel()))
        )
        self.precision: contextlib.AbstractContextManager[Any] = (
            torch.autocast(group.device.type, torch.bfloat16)
            if precision == "bf16"
            else contextlib.nullcontext()
        )
        self.label_smoothing = label_smoothing
        self._used: list[bool] | None = None

    def synchronise(self) -> None:
        """Give every process the weights and buffers of rank 0."""
        self.group.broadcast([*self.model.parameters(), *self.model.buffers()])

    def backward(self, ids: Tensor, step: int, vote: bool) -> bool:
        """Set every parameter's gradient to that of the mean loss over a batch (train mode).

        Args:
            ids: int64 (m,), rows of the subset.
            step: number of the update; with the part it seeds what is random in the network.
            vote: whether this process wants to stop.

        Returns:
            Whether any process does.
        """
        if self.alone:
            self._clear()
            self._accumulate(ids, len(ids), len(ids))
            return vote
        parts = ids.tensor_split(self.parts)

        def part(number: int) -> None:
            seed = np.random.SeedSequence((self.seed, step, number))
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
            if len(parts[number]) or self.synced:
                self._accumulate(parts[number], len(ids), len(parts[0]))

        total = self._summed(part, vote)
        # On a GPU reading a number waits for it: not at every step.
        heard = self.group.device.type != "cuda" or step % _VOTES_EVERY == 0
        return heard and bool(total > 0)

    @contextlib.contextmanager
    def statistics_kept(self) -> Iterator[None]:
        """While active, BatchNorm's running statistics stay: for a second look at a batch."""
        norms = batch_norms(self.model)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def _accumulate(self, ids: Tensor, of: int, largest: int) -> None:
        """Add the gradient of the loss over ``ids``, divided by ``of``.

        Every process takes as many chunks as the one with the ``largest`` part, so that each finds
        the others in the same pass.
        """
        chunks = -(-largest // _BACKWARD_AT_ONCE) if self.in_chunks else 1
        for chunk in ids.tensor_split(chunks):
            with self.precision:
                logits, labels = self._logits(chunk), self.labels[chunk]
                whole = len(chunk) == of
                loss = functional.cross_entropy(
                    logits,
                    labels,
                    reduction="mean" if whole else "sum",
                    label_smoothing=self.label_smoothing,
                )
            (loss if whole else loss / of).backward()

    def _logits(self, ids: Tensor) -> Tensor:
        sync = SyncedBatchNorm(self.group) if self.synced else contextlib.nullcontext()
        try:
            with sync:
                logits: Tensor = self.model(self.inputs[ids])
        except ValueError as error:
            if len(ids) > 1:
                raise
            raise BatchOfOne(
                f"a batch of one sample cannot be trained on ({error}); with BatchNorm use a "
                "larger search.start and batch_size"
            ) from None
        return logits

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _summed(self, part: Callable[[int], None], vote: bool) -> Tensor:
        """Sum the gradients that ``part`` leaves for each part, over parts and processes.

        The votes to stop and the note which parameters have a gradient travel in the same vector;
        the sum of the votes is returned.
        """
        vectors = []
        for number in self.group.mine(self.parts):
            self._clear()
            part(number)
            vectors.append(self._flat(vote))
        if self.ordered:
            self._clear()
            total = self.group.ordered_sum(vectors, self.parts, nothing=self._flat(vote))
        else:
            total = self.group.all_reduce(vectors[0])
        count = len(self.parameters)
        if self._used is None:
            self._used = [flag > 0 for flag in total[-1 - count : -1].tolist()]
        place = 0
        for parameter, used in zip(self.parameters, self._used, strict=True):
            size = parameter.numel()
            parameter.grad = total[place : place + size].view_as(parameter) if used else None
            place += size
        return total[-1]

    def _flat(self, vote: bool) -> Tensor:
        gradients = [p.grad for p in self.parameters]
        flags = torch.tensor(
            [*(g is not None for g in gradients), vote],
            dtype=self.parameters[0].dtype,
            device=self.group.device,
        )
        pieces = [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        return torch.cat([*pieces, flags])

    def evaluate(self) -> tuple[Tensor, int, float]:
        """Return (right: bool (n,), samples missed, mean loss) over the subset in eval mode."""
        self.model.eval()
        bounds = [len(rows) for rows in torch.arange(self.n).tensor_split(self.parts)]
        inputs, labels = self.inputs.split(bounds), self.labels.split(bounds)
        totals = torch.zeros(self.parts, dtype=torch.float64, device=self.group.device)
        right = [torch.zeros(0, dtype=torch.bool, device=self.group.device)]
        for part in self.group.mine(self.parts):
            totals[part] = self._look_at(inputs[part], labels[part], right)
        owned = [
            sum(bounds[p] for p in range(self.parts) if self.group.owner(p, self.parts) == rank)
            for rank in range(self.group.size)
        ]
        joined = self.group.concatenated(torch.cat(right).to(torch.uint8), owned).bool()
        loss = sum(self.group.all_reduce(totals).tolist())
        return joined, self.n - int(joined.sum()), loss / self.n

    def _look_at(self, inputs: Tensor, labels: Tensor, right: list[Tensor]) -> Tensor:
        """Add what is right to ``right``; return the sum of losses."""
        total = torch.zeros((), dtype=torch.float64, device=self.group.device)
        if not len(labels):
            return total
        with torch.no_grad(), self.precision:
            for some, theirs in zip(
                inputs.split(self.look_at_once), labels.split(self.look_at_once), strict=True
            ):
                logits = self.model(some)
                total += functional.cross_entropy(logits, theirs, reduction="sum").double()
                right.append((logits.argmax(dim=1) == theirs) & logits.isfinite().all(dim=1))
        return total

    def ritz(self, products: int) -> Ritz:
        """Return the ends of the Hessian's spectrum over the whole subset; see :func:`ritz`."""
        shards = self.parts if self.ordered else None
        return ritz(
            self.model, self.inputs, self.labels, self.group, products, self.seed, shards=shards
        )

    def norms(self) -> tuple[float, float]:
        """Return the norms of the whole subset's gradient (eval mode) and of the parameters."""
        self.model.eval()
        parts = torch.arange(self.n, device=self.group.device).tensor_split(self.parts)

        def part(number: int) -> None:
            for ids in parts[number].split(_BACKWARD_AT_ONCE):
                if len(ids):
                    logits = self.model(self.inputs[ids])
                    loss = functional.cross_entropy(logits, self.labels[ids], reduction="sum")
                    (loss / self.n).backward()

        if self.alone:
            self._clear()
            part(0)
        else:
            self._used = None
            self._summed(part, vote=False)
            self._used = None
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return _norm(gradients), _norm(self.parameters)


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))
