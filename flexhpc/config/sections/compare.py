"""The ``compare`` section: comparisons of the EMCs of a sweep."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flexhpc.config.sections.base import Section


class Decide(Section):
    """Decides a comparison with as few measurements as possible. The sweep first makes a coarse
    measurement of each point that the spec lists. It then measures the points of undecided
    comparisons until `search.tolerance` is reached, and finally points with additional seeds."""

    margin: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Two EMCs count as equal if their ratio lies between 1 / (1 + margin) and 1 + margin."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Maximum probability that at least one verdict of the comparison is wrong. The tests account
    for optional stopping, because the sweep ends as soon as all verdicts are known."""
    max_seeds: Annotated[int, Field(ge=1, le=1000)] = 12
    """Maximum number of seeds, including the seeds that the spec lists."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Maximum cost of the sweep. The unit is one training run with the full budget. The coarse
    measurement of the points that the spec lists is not limited; further measurements are started
    only if the predicted total cost is at most this number."""


class Compare(Section):
    """A comparison of EMCs in the results and the report. The section may also be a list of
    comparisons. Comparisons do not change EMCs and are not part of a point's id.

    Two points form a pair if they have equal values of all swept keys except `by`. The ratio of
    their EMCs is averaged over all pairs, separately for each combination of values of the keys in
    `within`.
    """

    by: str
    """The swept key whose values are compared, such as `training.optimizer`."""
    baseline: Any = None
    """The value of `by` with which the other values are compared; by default the first value."""
    within: list[str] | None = None
    """Swept keys; a separate comparison is made for each combination of their values. By default,
    these are the swept keys of `data`, such as `data.labels`."""
    decide: Decide | None = None
    """Ends the sweep when all verdicts are known. Without this key, every point is measured until
    `search.tolerance` is reached."""
