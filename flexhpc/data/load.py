"""From the ``data`` section of a point to the samples that its probes draw from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flexhpc.data.cifar import load_cifar
from flexhpc.data.dataset import Array, Dataset, Ints, fingerprint, moments, row_hashes
from flexhpc.data.idx import load_mnist
from flexhpc.data.image_folder import load_image_folder
from flexhpc.data.labelling import conflicting, draw_labels
from flexhpc.data.synthetic import load_digits, make_gaussian
from flexhpc.spec.sections import Data, Gaussian, ImageFolder, ImageSet


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the probes of one point draw from.

    Attributes:
        dataset: the whole training set.
        labels: the point's labels, int64 (n,).
        mean, deviation: for standardisation, over the whole training set.
        pool: global sample ids that may be drawn (conflicts dropped if so asked).
        n_limit: largest n that can be tried.
        conflicts: groups of identical inputs with different labels.
        unfittable: samples that no model can fit together with their twins.
        fingerprint: identifies the data set's content.
    """

    dataset: Dataset
    labels: Ints
    mean: Array
    deviation: Array
    pool: Ints
    n_limit: int
    conflicts: int
    unfittable: int
    fingerprint: str

    def standardised(self, ids: Ints) -> Array:
        """Return the inputs of some samples, standardised, float32 (len(ids), ...)."""
        inputs = self.dataset.inputs[ids].astype(np.float32)
        if not self.dataset.standardise:
            return inputs
        return (inputs - self.mean) / self.deviation


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    dataset: Dataset
    hashes: NDArray[np.void]
    mean: Array
    deviation: Array
    fingerprint: str


def load_samples(data: Data, seed: int) -> Samples:
    """Load the data of a point. The last data sets stay in memory for the worker's next points.

    Raises:
        PointError: the data is missing, unreadable or has the wrong shape.
    """
    source = data.model_copy(update={"labels": "original", "n_max": None, "subset": "fresh"})
    loaded = _load(source, seed if isinstance(data, Gaussian) else 0)
    labels = draw_labels(loaded.dataset, data.labels, seed)
    groups, losers = conflicting(loaded.hashes, labels)
    pool = np.arange(len(loaded.dataset), dtype=np.int64)
    if data.conflicts == "drop":
        pool = np.setdiff1d(pool, losers, assume_unique=True)
    return Samples(
        dataset=loaded.dataset,
        labels=labels,
        mean=loaded.mean,
        deviation=loaded.deviation,
        pool=pool,
        n_limit=min(len(pool), data.n_max or len(pool)),
        conflicts=groups,
        unfittable=len(losers),
        fingerprint=loaded.fingerprint,
    )


@lru_cache(maxsize=2)
def _load(data: Data, seed: int) -> _Loaded:
    dataset = _read(data, seed)
    hashes = row_hashes(dataset.inputs)
    mean, deviation = moments(dataset)
    return _Loaded(
        dataset=dataset,
        hashes=hashes,
        mean=mean,
        deviation=deviation,
        fingerprint=fingerprint(dataset, hashes),
    )


def _read(data: Data, seed: int) -> Dataset:
    if isinstance(data, Gaussian):
        return make_gaussian(data.dims, data.classes, data.size, seed)
    if isinstance(data, ImageFolder):
        return load_image_folder(data.root)
    if isinstance(data, ImageSet):
        load = load_cifar if data.source.startswith("cifar") else load_mnist
        return load(data.source, data.root)
    return load_digits()
