"""Independent random streams, all derived from the ``seed`` of a point.

Streams are separated by the spawn keys of NumPy's ``SeedSequence``, so that changing the subset
does not change the initialisation, and adding a probe does not change other probes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STREAMS = {
    "init": 0,
    "subset": 1,
    "labels": 2,
    "order": 3,
    "inputs": 4,
    "evaluation": 5,
    "unseen": 6,
}


def derive_seed(seed: int, stream: str, *key: int) -> int:
    """Derive a 63-bit seed that is independent of the seeds of all other streams and keys.

    Args:
        seed: seed of the point.
        stream: name of the random stream, a key of ``_STREAMS``.
        key: further spawn keys, for example n and repeat.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_STREAMS[stream], *key))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class ProbeSeeds:
    """Seeds of one probe, derived from n, ``repeat``, ``nested`` and the seed of its point."""

    init: int
    subset: int
    labels: int
    order: int

    @classmethod
    def derive(cls, seed: int, n: int, repeat: int, *, nested: bool) -> ProbeSeeds:
        """Derive the seeds of one probe.

        Args:
            seed: seed of the point.
            n: number of samples in the subset.
            repeat: index of the training run among the training runs with the same n and arm.
            nested: if true, the subset seed does not depend on n, so that subsets of growing n are
                prefixes of one permutation.
        """
        subset_key = (0, repeat) if nested else (n, repeat)
        return cls(
            init=derive_seed(seed, "init", n, repeat),
            subset=derive_seed(seed, "subset", *subset_key),
            labels=derive_seed(seed, "labels"),
            order=derive_seed(seed, "order", n, repeat),
        )
