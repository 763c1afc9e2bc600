"""The ``compare`` section: which EMCs of a sweep are compared."""

from __future__ import annotations

from typing import Any

from flexhpc.config.sections.base import Section


class Compare(Section):
    """Which EMCs the results and the report compare; a list of these compares by several keys.
    Comparisons change no EMC and are not part of a point's id.

    Two points form a pair if they have equal values of all swept keys except `by`. The ratio of
    their EMCs is averaged over sizes, for any seeds, separately for each value of the keys
    `within`.
    """

    by: str
    """The swept key whose values are compared, such as `training.optimizer`."""
    baseline: Any = None
    """The value that the others are compared with; by default the first one."""
    within: list[str] | None = None
    """Swept keys; a separate comparison is made for each of their values. The default is the swept
    keys of `data`, such as `data.labels`."""
