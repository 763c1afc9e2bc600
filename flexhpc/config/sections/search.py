"""The ``search`` section: how the next n is chosen, and what is estimated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import LATER, Count, Section, Since


def eps_name(eps: object) -> str:
    """Return how results call a training error: ``0.1``."""
    return f"{eps:g}" if isinstance(eps, int | float) else repr(eps)


class Search(Section):
    """How the next n is chosen, and what is estimated.

    ``does`` names a flexhpc.search.policy.Policy.
    """

    tunes: ClassVar[bool] = False
    """Whether it can search over several values of tuned keys."""

    if TYPE_CHECKING:  # a field of every variant, each with a default of its own
        estimand: str

    policy: str
    """Rule that chooses the next n."""
    start: Count = 64
    """First n that is tried (samples)."""
    max_cost: Count | None = None
    """Cap on the point's cost (sample passes): no further probe is planned beyond it."""


class Level(Search):
    """What all searches share that estimate where a given part of the trainings fits."""

    estimand: Annotated[str, Field(pattern=r"^n[1-9][0-9]?$")] = "n50"
    """What is estimated: `n50` is the n at which half of the trainings fit, `n90` that at which
    90 % do, and so on."""
    eps: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] | None = None
    """Also measures, from the same probes and as many more as it takes, the largest n that is
    trained to at most this training error (fractions, as [0.01, 0.1])."""

    @property
    def quantile(self) -> float:
        """Part of the trainings that fits at the n which is estimated."""
        return int(self.estimand.removeprefix("n")) / 100

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        given = values.get("eps")
        if isinstance(given, list) and len({eps_name(eps) for eps in given}) < len(given):
            yield "eps", "holds a value twice, to 6 digits; keep one"


class Bayes(Level):
    """Probe where it tells most for its cost, until the 90 % interval is narrow."""

    does: ClassVar[str] = "flexhpc.search.bayes:POLICY"
    tunes: ClassVar[bool] = True
    retired: ClassVar[frozenset[str]] = frozenset({"give_up", "neighbours"})

    policy: Literal["bayes"]
    tolerance: Annotated[float, Field(gt=0, le=10)] = 0.2
    """The search ends when the interval lies within plus and minus this, relative to its middle."""
    max_trainings: Annotated[
        Annotated[float, Field(ge=1, le=1e6)] | None, Since(version=2, before=None)
    ] = 60.0
    """Cap on the point's cost, in whole trainings: each probe counts by the part of its budget that
    it used. With less than it takes, the interval is wider. Twice as much where keys are tuned, and
    again for each of `eps`."""
    max_probes: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Cap on the point's probes, as often as there are training errors of `eps` and once more."""
    at_once: Annotated[int, Field(ge=1, le=8), LATER] = 1
    """Probes that are planned together and may run at once, on as many free workers, cores or GPUs
    (profile: `probes_at_once`): the answer comes sooner. Caps are looked at when all of them have
    ended."""


class Walk(Search):
    """What all searches share that decide n by n."""

    seeds_per_n: Annotated[int, Field(ge=1, le=1000)] = 1
    """Probes at one n; their majority decides, one more breaks a tie."""


class Bisection(Walk, Level):
    """Double until a failure, then bisect in log n."""

    does: ClassVar[str] = "flexhpc.search.bisection:POLICY"

    policy: Literal["bisection"]
    tolerance: Annotated[float, Field(gt=0, le=10)] = 0.05
    """Relative width of the bracket at which the search ends."""


class Growth(Walk):
    """The paper's rule: raise n until the first failure."""

    does: ClassVar[str] = "flexhpc.search.growth:POLICY"

    policy: Literal["growth"]
    growth: int | float = 1.25
    """A whole number is a step in samples, a number with a point a factor (write 2.0 to double)."""
    estimand: Literal["last_fit"] = "last_fit"
    """What is estimated: the last n before the first failure."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        growth = values.get("growth")
        if isinstance(growth, float) and not 1 < growth <= 1000:
            yield "growth", f"a factor must lie above 1, not {growth:g}"
        elif isinstance(growth, int) and not 1 <= growth <= 10**9:
            yield "growth", f"a step must be at least 1 sample, not {growth}"
