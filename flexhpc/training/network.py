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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.errors import BatchOfOne, PointError
from flexhpc.training.closed_form import ClosedForm, chain
from flexhpc.training.curvature import Ritz, ritz
from flexhpc.training.forgetting import Forgetting
from flexhpc.training.group import Group
from flexhpc.training.layout import as_laid_out, lay_out
from flexhpc.training.losses import cross_entropy, finite, missed
from flexhpc.training.outcome import ProbeData
from flexhpc.training.recorded import Found
from flexhpc.training.resident import Resident, at_once
from flexhpc.training.running import SUSPECTS, Running
from flexhpc.training.sync_norm import SyncedBatchNorm, batch_norms

_LOOK_AT_ONCE = 4_096
_BACKWARD_AT_ONCE = 512
_VOTES_EVERY = 8
_FEW = 128  # samples up to which a look at all takes no longer than one at a few
_FORWARD_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a network makes of its whole subset, in eval mode.

    Attributes:
        right: bool (n,), classified right.
        errors: samples missed; loss: mean, without regularisers.
    """

    right: Tensor
    errors: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Norms:
    """What a pass forth and back over the whole subset finds, in eval mode.

    Attributes:
        gradient: norm of the mean loss's gradient; parameters: their norm.
        loss: mean, without regularisers.
    """

    gradient: float
    parameters: float
    loss: float


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
        elementwise: whether updates treat every weight by itself.
        running: whether to keep the loss and the errors of the batches that are trained on.
        forgetting: what is told which samples of a batch were missed, where these are kept.

    Attributes:
        running: these, summed up since they were read; None without.
        closed_form: takes the gradients of a plain chain of layers; None for other networks.

    Raises:
        PointError: the network cannot be trained in shards.
    """

    def __init__(
        self, model: nn.Module, data: ProbeData, group: Group, *,
        shards: int | None, precision: str, in_chunks: bool, label_smoothing: float,
        elementwise: bool, running: bool, forgetting: Forgetting | None = None,
    ) -> None:  # fmt: skip
        double = precision == "fp64"
        self.model = model.double() if double else model
        self.inputs = Resident(data, double=double)
        self.labels, self.seed, self.group = data.labels, data.init_seed, group
        self.n, self.prompt = len(self.labels), data.prompt
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
        self.look_at_once = at_once(self.inputs.shape[1:], _LOOK_AT_ONCE)
        self.backward_at_once = at_once(self.inputs.shape[1:], _BACKWARD_AT_ONCE)
        self.precision: contextlib.AbstractContextManager[Any] = (
            torch.autocast(group.device.type, torch.bfloat16)
            if precision == "bf16"
            else contextlib.nullcontext()
        )
        self.label_smoothing = label_smoothing
        if elementwise:
            lay_out(self.model, group.device)
        layers = chain(self.model, data.inputs.dim()) if precision != "bf16" else None
        self.closed_form = None if layers is None else ClosedForm(layers, label_smoothing)
        loss = cross_entropy if layers is None else functional.nll_loss
        self.running = Running(group.device, loss, data.prompt, forgetting) if running else None
        self.forgetting = forgetting if running else None
        self._missed = torch.zeros(0, dtype=torch.int64, device=group.device)
        self._used: list[bool] | None = None

    def mode(self, *, training: bool) -> None:
        """Put the network into train or eval mode, unless it has none."""
        if self.closed_form is None:
            self.model.train(training)

    def synchronise(self) -> None:
        """Give every process the weights and buffers of rank 0."""
        self.group.broadcast([*self.model.parameters(), *self.model.buffers()])

    def backward(self, ids: Tensor, step: int, vote: bool, *, again: bool = False) -> bool:
        """Set every parameter's gradient to that of the mean loss over a batch (train mode).

        Args:
            ids: int64 (m,), rows of the subset.
            step: number of the update; with the part it seeds what is random in the network.
            vote: whether this process wants to stop.
            again: whether it is the second gradient of this update: BatchNorm's running statistics
                and the running loss stay as the first left them.

        Returns:
            Whether any process does.
        """
        with self._statistics_kept() if again else contextlib.nullcontext():
            if self.alone:
                found = self.gradient(ids)
                if not again:
                    self.note(found)
                return vote
            parts = ids.tensor_split(self.parts)
            counting = self.forgetting is not None and not again
            missed_here = torch.zeros(self.n if counting else 0, device=self.group.device)

            def part(number: int) -> Tensor:
                seed = np.random.SeedSequence((self.seed, step, number))
                torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
                sums = torch.zeros(2, dtype=torch.float64, device=self.group.device)
                if len(parts[number]) or self.synced:
                    found = self._accumulate(parts[number], len(ids), len(parts[0]))
                    for logits, labels, rows in found:
                        if self.running is not None and not again:
                            its_own, wrong = self.running.sums(logits, labels)
                            sums += its_own
                            if counting:
                                missed_here[rows] = wrong.float()
                return sums

            sums, votes = self._summed(part, vote)
        if self.running is not None and not again:
            self.running.add_sums(sums, len(ids))
            if self.forgetting is not None:
                self.forgetting.saw(ids, self.group.all_reduce(missed_here[ids]) > 0)
        # On a GPU reading a number waits for it: not at every step.
        heard = self.group.device.type == "cpu" or step % _VOTES_EVERY == 0
        return heard and bool(votes > 0)

    def gradient(self, ids: Tensor) -> Found:
        """Set every parameter's gradient, as :meth:`backward` does, where this process is alone.

        Returns:
            What its passes found, for :meth:`note`.
        """
        self._clear()
        return list(self._accumulate(ids, len(ids), len(ids)))

    def note(self, found: Found) -> None:
        """Keep the loss and the errors of what passes found, if these are kept."""
        if self.running is not None:
            for logits, labels, rows in found:
                self.running.add(logits, labels, rows)

    def changing(self) -> list[Tensor]:
        """Return all tensors of the network that updates change."""
        return [*(p.detach() for p in self.parameters), *self.model.buffers()]

    @contextlib.contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """While active, BatchNorm's running statistics stay."""
        norms = batch_norms(self.model)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def _accumulate(
        self, ids: Tensor, of: int, largest: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Set the gradient to that of the loss over ``ids``, divided by ``of``.

        Every process takes as many chunks as the one with the ``largest`` part, so that each finds
        the others in the same pass. Yields logits (log-probabilities where the gradient is taken by
        formulas), labels and rows of each.
        """
        chunks = -(-largest // self.backward_at_once) if self.in_chunks else 1
        for number, chunk in enumerate(ids.tensor_split(chunks) if chunks > 1 else (ids,)):
            inputs, labels = self.inputs.batch(chunk), self.labels[chunk]
            if self.closed_form is not None:
                logits = self.closed_form.backward(inputs, labels, of, first=number == 0)
            else:
                logits = self._graphed(inputs, labels, of)
            yield logits, labels, chunk

    def _graphed(self, inputs: Tensor, labels: Tensor, of: int) -> Tensor:
        """Add the gradient of a chunk by autograd; return its logits."""
        with self.precision:
            logits = self._logits(inputs)
            whole = len(labels) == of
            loss = cross_entropy(
                logits,
                labels,
                reduction="mean" if whole else "sum",
                label_smoothing=self.label_smoothing,
            )
        (loss if whole else loss / of).backward()
        return logits.detach()

    def _logits(self, inputs: Tensor) -> Tensor:
        sync = SyncedBatchNorm(self.group) if self.synced else contextlib.nullcontext()
        try:
            with sync:
                logits: Tensor = self.model(inputs)
        except ValueError as error:
            if len(inputs) > 1:
                raise
            raise BatchOfOne(
                f"a batch of one sample cannot be trained on ({error}); with BatchNorm use a "
                "larger search.start and batch_size"
            ) from None
        return logits

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _summed(self, part: Callable[[int], Tensor], vote: bool) -> tuple[Tensor, Tensor]:
        """Sum the gradients that ``part`` leaves for each part, over parts and processes.

        What it returns, the votes to stop and the note which parameters have a gradient travel in
        the same vector; the first two are returned as summed up.
        """
        vectors = []
        nothing = torch.zeros(2, dtype=torch.float64, device=self.group.device)
        for number in self.group.mine(self.parts):
            self._clear()
            sums = part(number)
            vectors.append(self._flat(sums, vote))
        if self.ordered:
            self._clear()
            total = self.group.ordered_sum(vectors, self.parts, nothing=self._flat(nothing, vote))
        else:
            total = self.group.all_reduce(vectors[0])
        count = len(self.parameters)
        if self._used is None:
            self._used = [flag > 0 for flag in total[-1 - count : -1].tolist()]
        place = 0
        for parameter, used in zip(self.parameters, self._used, strict=True):
            size = parameter.numel()
            gradient = total[place : place + size].view_as(parameter)
            parameter.grad = as_laid_out(gradient, parameter) if used else None
            place += size
        return total[place : place + 2], total[-1]

    def _flat(self, sums: Tensor, vote: bool) -> Tensor:
        gradients = [p.grad for p in self.parameters]
        dtype = self.parameters[0].dtype
        flags = torch.tensor(
            [*(g is not None for g in gradients), vote], dtype=dtype, device=self.group.device
        )
        pieces = [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        return torch.cat([*pieces, sums.to(dtype), flags])

    def evaluate(self) -> Look:
        """Look at the whole subset in eval mode."""
        self.mode(training=False)
        parts = torch.arange(self.n).tensor_split(self.parts)
        totals = torch.zeros(self.parts, dtype=torch.float64, device=self.group.device)
        fitted = [torch.zeros(0, dtype=torch.bool, device=self.group.device)]
        for part in self.group.mine(self.parts):
            totals[part] = self._look_at(parts[part], fitted)
        owned = [
            sum(len(parts[p]) for p in range(self.parts) if self.group.owner(p, self.parts) == rank)
            for rank in range(self.group.size)
        ]
        joined = self.group.concatenated(torch.cat(fitted).to(torch.uint8), owned).bool()
        loss = sum(self.group.all_reduce(totals).tolist())
        return Look(right=joined, errors=self.n - int(joined.sum()), loss=loss / self.n)

    def look_for_fit(self) -> Look | None:
        """Look at the whole subset, or return None where a few samples show that it is not fitted.

        Those few were missed late in the epoch, or at the last look at all: if one is still
        missed, that answers it for all.
        """
        suspects = self._missed
        late = None if self.running is None else self.running.missed()
        if late is not None:
            suspects = torch.cat([late, suspects[: SUSPECTS - len(late)]])
        if self.n > _FEW and len(suspects):
            self.mode(training=False)
            with torch.no_grad(), self.precision:
                logits = self._forward(self.inputs[suspects])
                wrong = missed(logits, self.labels[suspects], self.prompt).any()
            if self.group.size > 1:
                wrong = self.group.all_reduce(wrong.float().reshape(1))
            if bool(wrong > 0):
                return None
        look = self.evaluate()
        self._missed = (~look.right).nonzero().flatten()[:SUSPECTS]
        return look

    def _look_at(self, part: Tensor, fitted: list[Tensor]) -> Tensor:
        """Add what is right of consecutive rows to ``fitted``; return the sum of losses."""
        total = torch.zeros((), dtype=torch.float64, device=self.group.device)
        with torch.no_grad(), self.precision:
            for rows in part.split(self.look_at_once) if len(part) else ():
                some = slice(int(rows[0]), int(rows[-1]) + 1)  # a view, not a copy
                logits, theirs = self._forward(self.inputs[some]), self.labels[some]
                total += cross_entropy(logits, theirs, reduction="sum").double()
                fitted.append(~missed(logits, theirs, self.prompt) & finite(logits))
        return total

    def _forward(self, inputs: Tensor) -> Tensor:
        """Return logits, of a network other than a perceptron few samples at a time.

        More would not stay in a core's cache: what lies between its layers is larger than they are.
        """
        form = self.closed_form
        forward: Callable[[Tensor], Tensor] = self.model if form is None else form.logits
        if self.group.device.type != "cpu" or (form is not None and not form.spatial):
            return forward(inputs)
        return torch.cat([forward(some) for some in inputs.split(_FORWARD_AT_ONCE)])

    def ritz(self, products: int) -> Ritz:
        """Return the ends of the Hessian's spectrum over the whole subset; see :func:`ritz`."""
        shards = self.parts if self.ordered else None
        return ritz(
            self.model, self.inputs, self.labels, self.group, products, self.seed, shards=shards
        )

    def norms(self) -> Norms:
        """Take the gradient of the loss over the whole subset, in eval mode."""
        self.mode(training=False)
        parts = torch.arange(self.n, device=self.group.device).tensor_split(self.parts)

        def part(number: int) -> Tensor:
            sums = torch.zeros(2, dtype=torch.float64, device=self.group.device)
            for ids in parts[number].split(self.backward_at_once):
                if len(ids):
                    logits = self.model(self.inputs[ids])
                    loss = cross_entropy(logits, self.labels[ids], reduction="sum")
                    (loss / self.n).backward()
                    sums[0] += loss.detach()
            return sums

        if self.alone:
            self._clear()
            sums = part(0)
        else:
            self._used = None
            sums, _ = self._summed(part, vote=False)
            self._used = None
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return Norms(
            gradient=_norm(gradients),
            parameters=_norm(self.parameters),
            loss=float(sums[0]) / self.n,
        )


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))
