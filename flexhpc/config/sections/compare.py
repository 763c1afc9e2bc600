"""The ``compare`` section: which EMCs of a sweep are compared."""

from __future__ import annotations

from typing import Any

from flexhpc.config.sections.base import Section


class Compare(Section):
    """Which EMCs the results and the report compare; a list of these compares by several keys. It
    changes no EMC, and so no point's id.

    Points that are equal in all that is swept but `by` are a pair; the ratio of their EMCs is
    averaged over sizes, for any seeds, apart for each value of the keys `within`.
    """

    by: str
    """The swept key whose values are compared, as `training.optimizer`."""
    baseline: Any = None
    """The value that the others are compared with; by default the first one."""
    within: list[str] | None = None
    """Swept keys whose values are compared apart; by default those of `data`, as `data.labels`."""
