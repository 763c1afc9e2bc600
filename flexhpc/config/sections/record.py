"""The ``record`` section: additional measurements that are stored with every probe."""

from __future__ import annotations

from flexhpc.config.sections.base import Count, Section


class Record(Section):
    """Additional measurements that are stored with every probe. They do not change EMCs and are not
    part of a point's id. Existing probes that lack these measurements are not repeated."""

    unseen: Count | None = None
    """Number of samples in a random set, which is fixed for each seed. For every sample of this set
    outside its own subset, a probe also stores whether it classifies the sample correctly.
    Memorization scores (Feldman and Zhang 2020, arXiv 2008.03703) are computed from these
    results."""
    forgetting: bool = False
    """Whether every probe also stores how often each sample of its subset was forgotten, that is,
    misclassified in training after its previous prediction was correct (Toneva et al. 2019, arXiv
    1812.05159)."""
