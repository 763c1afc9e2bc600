"""Compute the gradient of the mean loss over a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexhpc.config.sections.training import Training
from flexhpc.errors import BatchOfOne
from flexhpc.training.device_inputs import DeviceInputs, chunk_size
from flexhpc.training.epoch_metrics import EpochMetrics
from flexhpc.training.group import Partition
from flexhpc.training.losses import cross_entropy
from flexhpc.training.manual_backprop import ManualBackprop
from flexhpc.training.memory_format import match_memory_format
from flexhpc.training.sync_norm import batch_norm_layers, synced_batch_norm

_CHUNK = 512
Outputs = list[tuple[Tensor, Tensor, Tensor]]
"""For each chunk of a batch: logits (or log-probabilities), labels and sample indices."""


class Engine:
    """Engine that computes the gradient of the mean loss over a batch.

    The gradient is computed by autograd or, for a plain MLP, by :class:`ManualBackprop`, which
    avoids the overhead of autograd. If several processes train together or ``training.shards`` is
    set, each batch is split into parts, the parts are distributed over the processes, and their
    gradients are summed.

    A full batch is processed in chunks, unless the model has BatchNorm, which needs the statistics
    of the whole batch.

    Args:
        training: training procedure.
        model: model to train, on its device.
        inputs, labels: all samples of the probe; labels are int64 (n,) or (n, length).
        partition: division of a batch into parts.
        precision: context manager for forward passes, such as ``torch.autocast``.
        backprop: computes the gradient of a plain MLP; None to use autograd.
        metrics: metrics that every batch updates; None unless ``training.curves`` is ``batches``.
        seed: for each part of a divided batch, random operations such as dropout are seeded with
            this seed, the number of the update and the index of the part. It is also the seed of
            the start vector of Lanczos' method.
    """

    def __init__(
        self, training: Training, model: nn.Module, inputs: DeviceInputs, labels: Tensor,
        partition: Partition, *, precision: contextlib.AbstractContextManager[Any],
        backprop: ManualBackprop | None, metrics: EpochMetrics | None, seed: int,
    ) -> None:  # fmt: skip
        self.model, self.inputs, self.labels, self.partition = model, inputs, labels, partition
        self.precision, self.backprop, self.metrics, self.seed = precision, backprop, metrics, seed
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        has_batch_norm = bool(batch_norm_layers(model))
        self._norm_group = partition.group if has_batch_norm and partition.group.size > 1 else None
        in_chunks = training.full_batch and not has_batch_norm
        self._chunk = chunk_size(inputs.shape[1:], _CHUNK) if in_chunks else None
        self._label_smoothing = training.label_smoothing
        self._gradient_sum = GradientSum(partition, self.parameters)

    def backward(self, ids: Tensor, step: int, *, second_gradient: bool = False) -> None:
        """Set the gradient of every parameter to the gradient of the mean loss over a batch.

        Args:
            ids: indices of the samples of the batch, int64 (m,).
            step: number of the update.
            second_gradient: whether this is the second gradient of an update with SAM. If so, the
                metrics of the epoch are not updated again.
        """
        metrics = None if second_gradient else self.metrics
        if self.partition.is_divided:
            self._backward_parts(ids, step, metrics)
            return
        zero_grad(self.parameters)
        outputs = self._accumulate_gradients(ids, batch_length=len(ids), max_part_length=len(ids))
        if metrics is not None:
            for logits, labels, rows in outputs:
                metrics.add(logits, labels, rows)

    def _backward_parts(self, ids: Tensor, step: int, metrics: EpochMetrics | None) -> None:
        """Set the gradient of a batch that is divided into parts, each with its own random state.

        This is a collective call: each process of the group computes some of the parts.
        """
        group = self.partition.group
        forgetting = None if metrics is None else metrics.forgetting
        parts = ids.tensor_split(self.partition.n_parts)
        missed = torch.zeros(0 if forgetting is None else len(self.labels), device=group.device)

        def compute_part_gradient(part: int) -> Tensor:
            seed = np.random.SeedSequence((self.seed, step, part))
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
            sums = torch.zeros(2, dtype=torch.float64, device=group.device)
            if len(parts[part]) or self._norm_group is not None:
                outputs = self._accumulate_gradients(
                    parts[part], batch_length=len(ids), max_part_length=len(parts[0])
                )
                if metrics is not None:
                    for logits, labels, rows in outputs:
                        chunk_sums, chunk_missed = metrics.sums_and_missed(logits, labels)
                        sums += chunk_sums
                        if forgetting is not None:
                            missed[rows] = chunk_missed.float()
            return sums

        sums = self._gradient_sum(compute_part_gradient)
        if metrics is not None:
            metrics.add_sums(sums, len(ids))
        if forgetting is not None:
            forgetting.update(ids, group.all_reduce(missed[ids]) > 0)

    def _accumulate_gradients(
        self, ids: Tensor, *, batch_length: int, max_part_length: int
    ) -> Outputs:
        """Compute the gradient of ``(sum of losses) / batch_length``; store it in ``.grad``.

        ``.grad`` of every parameter is None before this call.

        Args:
            ids: indices of the samples, int64 (m,); m can be 0.
            batch_length: number of samples in the whole batch.
            max_part_length: number of samples in the largest part of the batch. It determines the
                number of chunks, which must be the same in all processes.
        """
        chunks = 1 if self._chunk is None else -(-max_part_length // self._chunk)
        outputs: Outputs = []
        for rows in ids.tensor_split(chunks) if chunks > 1 else (ids,):
            inputs, labels = self.inputs.batch(rows), self.labels[rows]
            if self.backprop is None:
                logits = self._backward_chunk(inputs, labels, batch_length)
            else:
                logits = self.backprop.backward(
                    inputs, labels, batch_length, is_first_chunk=not outputs
                )
            outputs.append((logits, labels, rows))
        return outputs

    def _backward_chunk(self, inputs: Tensor, labels: Tensor, batch_length: int) -> Tensor:
        """Add the gradient of one chunk of a batch to ``.grad``; return the logits of the chunk."""
        group = self._norm_group
        with self.precision:
            try:
                with contextlib.nullcontext() if group is None else synced_batch_norm(group):
                    logits: Tensor = self.model(inputs)
            except ValueError as error:
                if len(inputs) > 1:
                    raise
                raise BatchOfOne(
                    f"cannot train on a batch of one sample ({error}); if the network has "
                    "BatchNorm, increase search.start and batch_size"
                ) from None
            whole_batch = len(labels) == batch_length
            loss = cross_entropy(
                logits, labels, reduction="mean" if whole_batch else "sum",
                label_smoothing=self._label_smoothing,
            )  # fmt: skip
        (loss if whole_batch else loss / batch_length).backward()
        return logits.detach()


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
        if not self.partition.is_divided:
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
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        has_gradient = [p.grad is not None for p in self.parameters]
        dtype = self.parameters[0].dtype
        flags = torch.tensor(has_gradient, dtype=dtype, device=sums.device)
        return torch.cat([*(g.reshape(-1) for g in gradients), sums.to(dtype), flags])


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
