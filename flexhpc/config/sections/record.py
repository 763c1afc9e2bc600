"""The ``record`` section: what else is kept of every probe."""

from __future__ import annotations

from flexhpc.config.sections.base import Count, Section


class Record(Section):
    """What else is kept of every probe. It changes no EMC, and so no point's id; probes that were
    recorded without it stay so."""

    unseen: Count | None = None
    """Samples of a set, random but fixed for each seed, of which every probe also stores which it
    got right of those outside its subset: what memorization scores compare with (Feldman and Zhang
    2020, arXiv 2008.03703)."""
    forgetting: bool = False
    """Whether every probe also stores how often each sample of its subset was forgotten: missed
    when it was trained on, where it was right the time before (Toneva et al. 2019, arXiv
    1812.05159)."""
