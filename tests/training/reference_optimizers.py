"""Slow reference implementations of the optimizers for a single tensor, in float64.

They are written from the papers, with other methods than the fast implementations: a preconditioner
is a dense matrix (a Kronecker product) that multiplies the flattened gradient, and Newton-Schulz is
a polynomial of the singular values. Each ``step`` returns the new weight and does not change the
previous one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unfold(tensor: Array, axis: int) -> Array:
    """Return the matrix whose rows are the slices along one axis."""
    return np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)


def multiply_axes(matrices: list[Array], tensor: Array) -> Array:
    """Multiply each axis of a tensor by a matrix: a Kronecker product times the flat tensor."""
    return (functools.reduce(np.kron, matrices) @ tensor.reshape(-1)).reshape(tensor.shape)


def power(matrix: Array, exponent: float) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


@dataclass
class Shampoo:
    """Gupta et al. 2018, algorithm 2: exponent -1/(2k) for a tensor of order k.

    Attributes:
        max_preconditioner_dim: longer axes use only the diagonal of their statistics.
        weight_decay: L2 penalty.
    """

    epsilon: float = 1e-6
    weight_decay: float = 0.0
    max_preconditioner_dim: float = math.inf
    statistics: list[Array] = field(default_factory=list)

    def step(self, weight: Array, gradient: Array, lr: float) -> Array:
        gradient = gradient + self.weight_decay * weight
        if not self.statistics:
            self.statistics = [self.epsilon * np.eye(size) for size in weight.shape]
        roots = []
        for axis, size in enumerate(weight.shape):
            rows = unfold(gradient, axis)
            self.statistics[axis] += rows @ rows.T
            statistic = self.statistics[axis]
            if size > self.max_preconditioner_dim:
                statistic = np.diag(np.diag(statistic))
            roots.append(power(statistic, -1 / (2 * weight.ndim)))
        return weight - lr * multiply_axes(roots, gradient)


def eigenvectors(matrix: Array) -> Array:
    """Return eigenvectors by decreasing eigenvalue.

    From torch, as in the library: every basis of the null space of the first gradient is valid.
    """
    return np.ascontiguousarray(torch.linalg.eigh(torch.from_numpy(matrix))[1].numpy()[:, ::-1])


@dataclass
class Soap:
    """Vyas et al. 2024, algorithms 3 and 4.

    As in their code, the first update does not change the weights, the axes are rotated every
    ``rotate_every`` updates, and vectors (order 1) are not rotated.
    """

    beta1: float = 0.95
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    rotate_every: int = 10
    updates: int = -1
    statistics: list[Array] = field(default_factory=list)
    axes: list[Array] = field(default_factory=list)
    mean: Array = field(default_factory=lambda: np.zeros(()))
    square: Array = field(default_factory=lambda: np.zeros(()))

    def step(self, weight: Array, gradient: Array, lr: float) -> Array:
        self.updates += 1
        if self.updates == 0:
            self.mean, self.square = np.zeros_like(weight), np.zeros_like(weight)
            self.statistics = [np.zeros((size, size)) for size in weight.shape]
            self._update_statistics(gradient)
            self.axes = [
                eigenvectors(statistic) if weight.ndim > 1 else np.eye(len(statistic))
                for statistic in self.statistics
            ]
            return weight
        inverse = [matrix.T for matrix in self.axes]
        rotated = multiply_axes(inverse, gradient)
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * rotated**2
        mean = multiply_axes(inverse, self.mean) / (1 - self.beta1**self.updates)
        root = np.sqrt(self.square) / math.sqrt(1 - self.beta2**self.updates)
        # The code of the paper adds epsilon before the bias correction.
        root += self.epsilon / math.sqrt(1 - self.beta2**self.updates)
        weight = weight - lr * multiply_axes(self.axes, mean / root)
        weight = weight * (1 - lr * self.weight_decay)
        self._update_statistics(gradient)
        if self.updates % self.rotate_every == 0 and weight.ndim > 1:
            self._rotate()
        return weight

    def _update_statistics(self, gradient: Array) -> None:
        for axis, statistic in enumerate(self.statistics):
            rows = unfold(gradient, axis)
            statistic *= self.beta2
            statistic += (1 - self.beta2) * rows @ rows.T

    def _rotate(self) -> None:
        """Make one power iteration, with the axes sorted by their eigenvalues."""
        for axis, (statistic, old) in enumerate(zip(self.statistics, self.axes, strict=True)):
            order = np.argsort(-np.einsum("ij,ik,kj->j", old, statistic, old), kind="stable")
            self.axes[axis] = np.linalg.qr(statistic @ old[:, order])[0]
            self.square = np.take(self.square, order, axis=axis)


@dataclass
class AdamW:
    """Loshchilov and Hutter 2019, algorithm 2."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-10
    weight_decay: float = 0.0
    updates: int = 0
    mean: Array | float = 0.0
    square: Array | float = 0.0

    def step(self, weight: Array, gradient: Array, lr: float) -> Array:
        self.updates += 1
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * gradient**2
        mean = self.mean / (1 - self.beta1**self.updates)
        root = np.sqrt(self.square / (1 - self.beta2**self.updates))
        return weight * (1 - lr * self.weight_decay) - lr * mean / (root + self.epsilon)


@dataclass
class Muon:
    """Jordan et al. 2024: five Newton-Schulz steps on Nesterov momentum.

    A kernel is reshaped to a matrix (output channels, rest).
    """

    momentum: float = 0.95
    weight_decay: float = 0.0
    buffer: Array | float = 0.0

    def step(self, weight: Array, gradient: Array, lr: float) -> Array:
        self.buffer = self.momentum * self.buffer + gradient
        matrix = (gradient + self.momentum * self.buffer).reshape(len(weight), -1)
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        values = values / np.linalg.norm(values)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        rows, columns = matrix.shape
        update = (left * values) @ right * math.sqrt(max(1, rows / columns))
        return weight * (1 - lr * self.weight_decay) - lr * update.reshape(weight.shape)
