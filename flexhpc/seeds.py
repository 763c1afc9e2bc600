"""Independent random streams, all derived from the one ``seed`` of a point.

Streams are separated by numpy's ``SeedSequence`` spawn keys, so that changing the subset never
changes the initialisation, and adding a probe never changes another probe.
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


def derive(seed: int, stream: str, *key: int) -> int:
    """Return a 63-bit seed for ``stream``, independent of every other stream and key."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_STREAMS[stream], *key))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, kw_only=True)
class ProbeSeeds:
    """The seeds of one probe; they depend on (seed, n, repeat) and on nothing else."""

    init: int
    subset: int
    labels: int
    order: int

    @classmethod
    def of(cls, seed: int, n: int, repeat: int, *, nested: bool) -> ProbeSeeds:
        """Derive the seeds of repeat number ``repeat`` at ``n`` samples.

        With ``nested`` the subset seed is one per (seed, repeat), so that subsets of growing n are
        prefixes of one permutation.
        """
        subset_key = (0, repeat) if nested else (n, repeat)
        return cls(
            init=derive(seed, "init", n, repeat),
            subset=derive(seed, "subset", *subset_key),
            labels=derive(seed, "labels"),
            order=derive(seed, "order", n, repeat),
        )
