"""Logits of a trained network, and its predictions on samples outside its training subset."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flexhpc.config import Point
from flexhpc.data import Samples, TestSet, draw_subset
from flexhpc.data.dataset import Ints
from flexhpc.seeds import derive_seed
from flexhpc.training.device_inputs import chunk_size

_BATCH_SIZE = 512


def logits_of(
    network: nn.Module, samples: Samples | TestSet, ids: Ints, device: torch.device
) -> Tensor:
    """Return a network's logits for the samples with the ids ``ids``, float64 (len(ids), classes).

    The logits are on the CPU. The network is set to eval mode.
    """
    network.eval()
    dtype = next(network.parameters()).dtype
    logits = []
    with torch.no_grad():
        batch_size = chunk_size(samples.inputs.rows.shape[1:], _BATCH_SIZE)
        for batch in np.array_split(ids, -(-len(ids) // batch_size)):
            inputs = torch.from_numpy(samples.select_inputs(batch)).to(device, dtype)
            logits.append(network(inputs).double().cpu())
    return torch.cat(logits)


class UnseenPredictions:
    """Predictions of a trained network on a random set of samples.

    All probes of a point use the same set. A probe's unseen samples are the samples of the set that
    are not in its training subset.

    Args:
        point: the point; its ``record.unseen`` is the size of the set.
        samples: data of the point.
        device: device of the network.
    """

    def __init__(self, point: Point, samples: Samples, device: torch.device) -> None:
        count = min(point.record.unseen or 0, len(samples.pool))
        self._samples, self._device = samples, device
        self._ids = samples.pool[:0]
        if count:
            self._ids = draw_subset(samples.pool, count, derive_seed(point.seed, "unseen"))
        self._correct = np.zeros(count, dtype=np.bool_)

    def record_predictions(self, network: nn.Module) -> dict[str, float]:
        """Record which samples of the random set a network predicts correctly.

        This method is an ``on_train_end`` callback. It returns an empty dict because it computes no
        metrics.
        """
        if len(self._ids):
            scores = logits_of(network, self._samples, self._ids, self._device)
            self._correct = scores.argmax(dim=1).numpy() == self._samples.labels[self._ids]
        return {}

    def predictions_outside(self, subset: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the recorded predictions, except those for the samples in ``subset``.

        Args:
            subset: global ids of the samples in the training subset, int64 (n,).

        Returns:
            The sorted ids of the k remaining samples, int64 (k,), and whether each of these samples
            was predicted correctly, bool (k,).
        """
        outside = ~np.isin(self._ids, subset)
        return self._ids[outside], self._correct[outside]
