"""Gradient engines: compute the gradient of the mean loss over a batch.

:class:`AutogradEngine` is the reference implementation. :class:`ManualEngine` computes the same
gradient of a plain MLP without the overhead of autograd. :class:`ShardedEngine` splits each batch
into parts, distributes the parts over the processes of a group, and uses one of the other engines
for each part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexhpc.errors import BatchOfOne
from flexhpc.training.device_inputs import DeviceInputs, chunk_size
from flexhpc.training.epoch_metrics import EpochMetrics
from flexhpc.training.group import Group, Partition
from flexhpc.training.losses import cross_entropy
from flexhpc.training.manual_backprop import ManualBackprop
from flexhpc.training.memory_format import match_memory_format
from flexhpc.training.sync_norm import batch_norm_layers, synced_batch_norm

_CHUNK = 512
Outputs = list[tuple[Tensor, Tensor, Tensor]]
"""For each chunk of a batch: logits (or log-probabilities), labels and sample indices."""


class AutogradEngine:
    """Engine that computes the gradient by autograd, in one process.

    Args:
        model: model to train, on its device.
        inputs, labels: all samples of the probe; labels are int64 (n,) or (n, length).
        precision: context manager for forward passes, such as ``torch.autocast``.
        label_smoothing: label smoothing of the loss.
        full_batch: whether each batch consists of all samples. The gradient of such a batch is
            accumulated in chunks, unless the model has BatchNorm, which needs the statistics of the
            whole batch.
        metrics: metrics that every batch updates; None unless ``training.curves`` is ``batches``.
        norm_group: processes over which BatchNorm computes its statistics; None for this process
            only.
    """

    def __init__(
        self, model: nn.Module, inputs: DeviceInputs, labels: Tensor, *,
        precision: contextlib.AbstractContextManager[Any], label_smoothing: float,
        full_batch: bool, metrics: EpochMetrics | None, norm_group: Group | None = None,
    ) -> None:  # fmt: skip
        self.model, self.inputs, self.labels = model, inputs, labels
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.precision, self.label_smoothing = precision, label_smoothing
        in_chunks = full_batch and not batch_norm_layers(model)
        self.chunk = chunk_size(inputs.shape[1:], _CHUNK) if in_chunks else None
        self.metrics, self.norm_group = metrics, norm_group

    def train_mode(self) -> None:
        """Switch dropout and BatchNorm to train mode."""
        self.model.train()

    def backward(self, ids: Tensor, step: int, *, second_gradient: bool = False) -> None:
        """Set the gradient of every parameter to the gradient of the mean loss over a batch.

        Args:
            ids: indices of the samples of the batch, int64 (m,).
            step: number of the update.
            second_gradient: whether this is the second gradient of an update with SAM. If so, the
                running statistics of BatchNorm and the metrics of the epoch are not updated again.
        """
        with frozen_running_statistics(self.model) if second_gradient else contextlib.nullcontext():
            zero_grad(self.parameters)
            outputs = self.accumulate_gradients(ids, batch_length=len(ids))
        if self.metrics is not None and not second_gradient:
            for logits, labels, rows in outputs:
                self.metrics.add(logits, labels, rows)

    def accumulate_gradients(
        self, ids: Tensor, batch_length: int, max_part_length: int | None = None
    ) -> Outputs:
        """Add the gradient of ``(sum of losses) / batch_length`` to ``.grad``.

        Args:
            ids: indices of the samples, int64 (m,); m can be 0.
            batch_length: number of samples in the whole batch.
            max_part_length: number of samples in the largest part of the batch, by default
                ``len(ids)``. It determines the number of chunks, which must be the same in all
                processes.
        """
        chunks = 1 if self.chunk is None else -(-(max_part_length or len(ids)) // self.chunk)
        outputs: Outputs = []
        for rows in ids.tensor_split(chunks) if chunks > 1 else (ids,):
            inputs, labels = self.inputs.batch(rows), self.labels[rows]
            logits = self.backward_chunk(inputs, labels, batch_length, is_first_chunk=not outputs)
            outputs.append((logits, labels, rows))
        return outputs

    def backward_chunk(
        self, inputs: Tensor, labels: Tensor, batch_length: int, *, is_first_chunk: bool
    ) -> Tensor:
        """Add the gradient of one chunk of a batch to ``.grad``; return the logits of the chunk.

        Args:
            inputs, labels: the samples of the chunk.
            batch_length: number of samples in the whole batch.
            is_first_chunk: whether no gradient has been added since the gradients were set to None:
                True for the first chunk of a batch or, if :class:`ShardedEngine` splits the batch
                into parts, for the first chunk of each part.
        """
        with self.precision:
            logits = self._forward(inputs)
            whole_batch = len(labels) == batch_length
            loss = cross_entropy(
                logits, labels, reduction="mean" if whole_batch else "sum",
                label_smoothing=self.label_smoothing,
            )  # fmt: skip
        (loss if whole_batch else loss / batch_length).backward()
        return logits.detach()

    def _forward(self, inputs: Tensor) -> Tensor:
        group = self.norm_group
        try:
            with contextlib.nullcontext() if group is None else synced_batch_norm(group):
                logits: Tensor = self.model(inputs)
        except ValueError as error:
            if len(inputs) > 1:
                raise
            raise BatchOfOne(
                f"cannot train on a batch of one sample ({error}); if the network has BatchNorm, "
                "increase search.start and batch_size"
            ) from None
        return logits


class ManualEngine(AutogradEngine):
    """Engine that computes the gradient of a plain MLP with :class:`ManualBackprop`."""

    def __init__(self, backprop: ManualBackprop, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backprop = backprop

    def train_mode(self) -> None:
        """Do nothing, because a plain MLP has the same outputs in train mode and in eval mode."""

    def backward_chunk(
        self, inputs: Tensor, labels: Tensor, batch_length: int, *, is_first_chunk: bool
    ) -> Tensor:
        """Add the gradient of one chunk of a batch; return the log-probabilities of the chunk."""
        return self.backprop.backward(inputs, labels, batch_length, is_first_chunk=is_first_chunk)


class ShardedEngine:
    """Engine that computes the gradient of a batch as the sum of the gradients of its parts.

    The parts are distributed over the processes of a group.

    Args:
        part_engine: engine that computes the gradient of one part.
        partition: division of a batch into parts.
        seed: for each part, random operations such as dropout are seeded with this seed, the number
            of the update and the index of the part.
    """

    def __init__(self, part_engine: AutogradEngine, partition: Partition, seed: int) -> None:
        self.part_engine, self.partition, self.seed = part_engine, partition, seed
        self._gradient_sum = GradientSum(partition, part_engine.parameters)

    def train_mode(self) -> None:
        """Switch dropout and BatchNorm to train mode."""
        self.part_engine.train_mode()

    def backward(self, ids: Tensor, step: int, *, second_gradient: bool = False) -> None:
        """Set the gradient of every parameter; see :meth:`AutogradEngine.backward`."""
        part_engine, group = self.part_engine, self.partition.group
        metrics = None if second_gradient else part_engine.metrics
        forgetting = None if metrics is None else metrics.forgetting
        parts = ids.tensor_split(self.partition.n_parts)
        missed = torch.zeros(
            0 if forgetting is None else len(part_engine.labels), device=group.device
        )

        def compute_part_gradient(part: int) -> Tensor:
            seed = np.random.SeedSequence((self.seed, step, part))
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
            sums = torch.zeros(2, dtype=torch.float64, device=group.device)
            if len(parts[part]) or part_engine.norm_group is not None:
                outputs = part_engine.accumulate_gradients(
                    parts[part], len(ids), max_part_length=len(parts[0])
                )
                if metrics is not None:
                    for logits, labels, rows in outputs:
                        chunk_sums, chunk_missed = metrics.sums_and_missed(logits, labels)
                        sums += chunk_sums
                        if forgetting is not None:
                            missed[rows] = chunk_missed.float()
            return sums

        with (
            frozen_running_statistics(part_engine.model)
            if second_gradient
            else contextlib.nullcontext()
        ):
            sums = self._gradient_sum(compute_part_gradient)
        if metrics is not None:
            metrics.add_sums(sums, len(ids))
        if forgetting is not None:
            forgetting.update(ids, group.all_reduce(missed[ids]) > 0)


class GradientSum:
    """Callable that sums gradients over all parts of a batch and all processes.

    Args:
        partition: division of a batch into parts.
        parameters: parameters whose gradients are summed.
    """

    def __init__(self, partition: Partition, parameters: Sequence[nn.Parameter]) -> None:
        self.partition, self.parameters = partition, parameters
        self._length = sum(p.numel() for p in parameters) + 2 + len(parameters)
        self._has_gradient: list[bool] | None = None

    def __call__(self, compute_part_gradient: Callable[[int], Tensor]) -> Tensor:
        """Set the gradient of every parameter to its sum over all parts (collective call).

        Args:
            compute_part_gradient: called with the index of each part of this process. It sets the
                gradient of every parameter to the gradient of that part. It returns two numbers to
                be summed over all parts, such as the loss of the part, float64 (2,).

        Returns:
            The sums of the two numbers, (2,).
        """
        if self.partition.n_parts == 1 and not self.partition.ordered:
            zero_grad(self.parameters)
            return compute_part_gradient(0)
        vectors = []
        for part in self.partition.local_parts:
            zero_grad(self.parameters)
            vectors.append(self._concatenate(compute_part_gradient(part)))
        zero_grad(self.parameters)
        first = self.parameters[0].detach()
        total = self.partition.sum_parts(vectors, zero=first.new_zeros(self._length))
        if self._has_gradient is None:
            self._has_gradient = (total[-len(self.parameters) :] > 0).tolist()
        start = 0
        for parameter, has_gradient in zip(self.parameters, self._has_gradient, strict=True):
            gradient = total[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = match_memory_format(gradient, parameter) if has_gradient else None
            start += parameter.numel()
        return total[start : start + 2]

    def _concatenate(self, sums: Tensor) -> Tensor:
        """Concatenate all gradients, ``sums``, and 1 (has a gradient) or 0 for each parameter."""
        gradients = [p.grad for p in self.parameters]
        pieces = [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        dtype = self.parameters[0].dtype
        flags = [g is not None for g in gradients]
        return torch.cat(
            [*pieces, sums.to(dtype), torch.tensor(flags, dtype=dtype, device=sums.device)]
        )


def zero_grad(parameters: Sequence[nn.Parameter]) -> None:
    """Set the gradients of all parameters to None."""
    for parameter in parameters:
        parameter.grad = None


@contextlib.contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Context manager in which BatchNorm does not update its running statistics."""
    norms = batch_norm_layers(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
