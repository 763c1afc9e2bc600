"""The ``compare`` section: comparisons of the EMCs of a sweep."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flexhpc.config.sections.base import Section


class Decide(Section):
    """When a comparison is decided. The sweep measures the listed points coarsely, then only what
    the undecided comparisons need: the same points to `search.tolerance`, then further seeds."""

    margin: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Two EMCs are the same if their ratio lies between 1 / (1 + margin) and 1 + margin."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Probability that any verdict of the comparison is wrong, although the sweep stops as soon as
    it has all verdicts."""
    max_seeds: Annotated[int, Field(ge=1, le=1000)] = 12
    """Maximum number of seeds, including the listed ones."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Maximum cost of the sweep in whole training runs; no round of points is started beyond it."""


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
    decide: Decide | None = None
    """Ends the sweep when all verdicts are known; by default every point is measured to
    `search.tolerance`."""
