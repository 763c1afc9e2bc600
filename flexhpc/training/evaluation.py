"""Evaluation of a model on all samples of a probe, in eval mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flexhpc.training.device_inputs import chunk_size
from flexhpc.training.engine import Engine, GradientSum
from flexhpc.training.epoch_metrics import MAX_SUSPECTS, EpochMetrics
from flexhpc.training.losses import cross_entropy, has_finite_logits, missed_samples

_EVALUATION_CHUNK = 4_096
_BACKWARD_CHUNK = 512
_FORWARD_CHUNK = 128
"""Chunk size on the CPU. The activations of more samples would not fit into the cache of a core."""
_MAX_N_WITHOUT_SUSPECTS = 128
"""For n up to this value, evaluating recently missed samples (suspects) first saves no time."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of an evaluation of all samples.

    Attributes:
        correct: whether each sample is classified correctly with finite logits, bool (n,).
        errors: number of missed samples.
        loss: mean loss, without regularisers.
    """

    correct: Tensor
    errors: int
    loss: float


class Norms(NamedTuple):
    """Euclidean norms over all trainable parameters together, and the loss.

    Attributes:
        gradient: norm of the gradient of the mean loss.
        parameters: norm of the parameters.
        loss: mean loss over all samples, without regularisers.
    """

    gradient: float
    parameters: float
    loss: float


class Evaluator:
    """Evaluator of a model on all samples of a probe.

    If several processes train together, every method is a collective call.

    Args:
        engine: engine that trains the model. If it has ``backprop``, the ``logits`` method of
            ``backprop`` is called instead of the model.
        prompt: see :class:`ProbeData`.
    """

    def __init__(self, engine: Engine, prompt: int) -> None:
        self.model, self.inputs, self.labels = engine.model, engine.inputs, engine.labels
        self.engine, self.partition, self.group = engine, engine.partition, engine.partition.group
        self.n, self.prompt = len(self.labels), prompt
        self._evaluation_chunk = chunk_size(self.inputs.shape[1:], _EVALUATION_CHUNK)
        self._backward_chunk = chunk_size(self.inputs.shape[1:], _BACKWARD_CHUNK)
        self._suspects = torch.zeros(0, dtype=torch.int64, device=self.group.device)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Evaluate the model on all samples."""
        self._set_eval_mode()
        parts = torch.arange(self.n).tensor_split(self.partition.n_parts)
        losses = torch.zeros(len(parts), dtype=torch.float64, device=self.group.device)
        fitted = torch.zeros(self.n, dtype=torch.uint8, device=self.group.device)
        for number in self.partition.local_parts:
            chunks = parts[number].split(self._evaluation_chunk) if len(parts[number]) else ()
            for ids in chunks:
                rows = slice(int(ids[0]), int(ids[-1]) + 1)  # indexing with a tensor would copy
                with self.engine.precision:
                    logits, labels = self._forward(self.inputs[rows]), self.labels[rows]
                    losses[number] += cross_entropy(logits, labels, reduction="sum").double()
                    missed = missed_samples(logits, labels, self.prompt)
                    fitted[rows] = ~missed & has_finite_logits(logits)
        correct = self.group.all_reduce(fitted).bool()
        total = sum(self.group.all_reduce(losses).tolist())
        return Evaluation(correct=correct, errors=self.n - int(correct.sum()), loss=total / self.n)

    def evaluate_unless_missed(self, metrics: EpochMetrics | None) -> Evaluation | None:
        """Return the evaluation of all samples, or None if a suspect is still missed.

        Suspects are a few samples that were missed late in the epoch or in the last evaluation.
        They are evaluated before the other samples, except if n is small.

        Args:
            metrics: metrics of the epoch; None if they are not computed during training.
        """
        suspects = self._suspects
        recent = None if metrics is None else metrics.recently_missed()
        if recent is not None:
            suspects = torch.cat([recent, suspects[: MAX_SUSPECTS - len(recent)]])
        if self.n > _MAX_N_WITHOUT_SUSPECTS and len(suspects):
            self._set_eval_mode()
            with torch.no_grad(), self.engine.precision:
                logits = self._forward(self.inputs[suspects])
                missed = missed_samples(logits, self.labels[suspects], self.prompt).any()
            if self.group.size > 1:
                missed = self.group.all_reduce(missed.float().reshape(1))
            if bool(missed > 0):
                return None
        evaluation = self.evaluate()
        self._suspects = (~evaluation.correct).nonzero().flatten()[:MAX_SUSPECTS]
        return evaluation

    def _set_eval_mode(self) -> None:
        if self.engine.backprop is None:
            self.model.eval()

    def _forward(self, inputs: Tensor) -> Tensor:
        if self.engine.backprop is not None:
            return self.engine.backprop.logits(inputs)
        forward: Callable[[Tensor], Tensor] = self.model
        if self.group.device.type != "cpu":
            return forward(inputs)
        return torch.cat([forward(chunk) for chunk in inputs.split(_FORWARD_CHUNK)])

    def norms_and_loss(self) -> Norms:
        """Compute the norms of the gradient and the parameters, and the loss over all samples."""
        self._set_eval_mode()
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase) and not module.dropout:
                module.train()  # cuDNN computes no gradients of an RNN in eval mode
        parts = torch.arange(self.n, device=self.group.device).tensor_split(self.partition.n_parts)

        def compute_part_gradient(part: int) -> Tensor:
            sums = torch.zeros(2, dtype=torch.float64, device=self.group.device)
            for ids in parts[part].split(self._backward_chunk):
                if len(ids):
                    logits = self.model(self.inputs[ids])
                    loss = cross_entropy(logits, self.labels[ids], reduction="sum")
                    (loss / self.n).backward()
                    sums[0] += loss.detach()
            return sums

        parameters = self.engine.parameters
        loss_sum = float(GradientSum(self.partition, parameters)(compute_part_gradient)[0])
        gradients = [p.grad for p in parameters if p.grad is not None]
        return Norms(
            gradient=_joint_norm(gradients),
            parameters=_joint_norm(parameters),
            loss=loss_sum / self.n,
        )


def _joint_norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))
