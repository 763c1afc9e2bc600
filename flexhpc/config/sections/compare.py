"""The ``compare`` section: comparisons of the EMCs of a sweep."""

from __future__ import annotations

from typing import Any

from flexhpc.config.sections.base import Section


class Compare(Section):
    """A comparison of EMCs in the results and the report; a list of such sections defines several.
    Comparisons do not change EMCs and are not part of a point's id.

    Two points form a pair if they have equal values of all swept keys except `by`. The ratio of
    their EMCs is averaged over all pairs, separately for each value of the keys `within`.
    """

    by: str
    """The swept key whose values are compared, such as `training.optimizer`."""
    baseline: Any = None
    """The value with which the others are compared; by default the first one."""
    within: list[str] | None = None
    """Swept keys, for each of whose values a separate comparison is made; by default the swept keys
    of `data`, such as `data.labels`."""
