"""The ``search`` section: the rule that chooses the next n, and the quantity to estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import PRECISION, Count, Problems, Section

Cap = Annotated[float, Field(ge=1, le=1e6)]
COARSE_TOLERANCE = 0.5
"""Minimum tolerance of an estimate that is made more precise only if needed: the first estimate of
a point with ``compare.decide``, and the estimate at a budget that may be doubled further."""


def format_eps(eps: float) -> str:
    """Return a training error as it is written in the results, such as ``0.1``."""
    return f"{eps:g}"


class Search(Section):
    """Keys that all searches share.

    ``import_path`` names an instance of flexhpc.search.policy.Policy.
    """

    supports_tuning: ClassVar[bool] = False
    """Whether the policy supports tuned keys."""

    def with_coarse_tolerance(self) -> Search:
        """Return a copy in which a ``tolerance`` below ``COARSE_TOLERANCE`` is raised to it.

        Without such a tolerance, the section itself is returned.
        """
        tolerance = getattr(self, "tolerance", COARSE_TOLERANCE)
        if tolerance >= COARSE_TOLERANCE:
            return self
        return self.model_copy(update={"tolerance": COARSE_TOLERANCE})

    if TYPE_CHECKING:  # a field of every variant, each with its own default
        estimand: str

    policy: str
    """Rule that chooses the next n."""
    start: Annotated[Count, PRECISION] = 64
    """First n (number of samples) that the search tries."""
    max_cost: Annotated[Cap | None, PRECISION] = None
    """Maximum cost of the point in whole training runs; a probe that uses half of its budget counts
    as half a run. With `eps`, the maximum is multiplied by one plus the number of training
    errors."""


class QuantileSearch(Search):
    """Keys of all searches that estimate a quantile: the n at which a chosen fraction of the
    training runs fit."""

    estimand: Annotated[str, Field(pattern=r"^n[1-9][0-9]?$")] = "n50"
    """Estimand: `n50` is the n at which half of the training runs fit, `n90` the n at which 90 %
    fit, and so on."""
    eps: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] | None = None
    """Training errors (fractions, such as [0.01, 0.1]). For each of these errors, the search also
    estimates the largest n at which the training error is at most this value (`bayes`: in half of
    the training runs; `bisection`: on average). It runs additional probes if needed."""

    @property
    def quantile(self) -> float:
        """Fraction of the training runs that fit at the estimated n."""
        return int(self.estimand.removeprefix("n")) / 100

    def combination_problems(self) -> Problems:
        if self.eps is not None and len({format_eps(eps) for eps in self.eps}) < len(self.eps):
            yield "eps", "contains two values that are equal when rounded to 6 digits; remove one"


class Bayes(QuantileSearch):
    """Bayesian search: choose the probe with the highest expected information per cost, until the
    90 % interval of the estimate is within the tolerance."""

    import_path: ClassVar[str] = "flexhpc.search.bayes:POLICY"
    supports_tuning: ClassVar[bool] = True

    policy: Literal["bayes"]
    tolerance: Annotated[float, Field(gt=0, le=10), PRECISION] = 0.2
    """The search ends when both ends of the 90 % interval are within a factor of 1 + `tolerance` of
    its geometric mean."""
    max_cost: Annotated[Cap | None, PRECISION] = 60.0
    """Maximum cost of the point in whole training runs; a probe that uses half of its budget counts
    as half a run. If the search ends at this maximum, the interval is wider than `tolerance`
    requires. The maximum is multiplied by one plus the number of training errors in `eps`, and
    doubled if keys are tuned."""
    at_once: Annotated[int, Field(ge=1, le=8), PRECISION] = 1
    """Number of probes that are chosen together. The profile key `probes_at_once` limits how many
    of them run concurrently. `max_cost` is checked when all of them have ended."""


class MajoritySearch(Search):
    """Keys of all searches that test one n at a time."""

    seeds_per_n: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of probes at each n. The verdict of the majority decides; one more probe breaks a
    tie."""


class Bisection(MajoritySearch, QuantileSearch):
    """Double n until the first failure, then bisect in log n."""

    import_path: ClassVar[str] = "flexhpc.search.bisection:POLICY"

    policy: Literal["bisection"]
    tolerance: Annotated[float, Field(gt=0, le=10), PRECISION] = 0.05
    """The search ends when the smallest n that failed is at most 1 + `tolerance` times the largest
    n that fitted."""


class Growth(MajoritySearch):
    """Increase n until the first failure, as in arXiv 2406.11463."""

    import_path: ClassVar[str] = "flexhpc.search.growth:POLICY"

    policy: Literal["growth"]
    start: Count = 64
    """First n (number of samples) that the search tries. The EMC depends on `start`, because only
    an n that the search tries can be the EMC."""
    growth: Annotated[float, Field(gt=1, le=1000)] = 1.25
    """Factor by which n grows."""
    step: Count | None = None
    """Number of samples by which n grows, instead of the factor `growth`."""
    estimand: Literal["last_fit"] = "last_fit"
    """Estimand: the last n before the first failure."""

    def combination_problems(self) -> Problems:
        if {"growth", "step"} <= self.model_fields_set and self.step is not None:
            yield "step", "cannot be combined with growth; remove one of them"
