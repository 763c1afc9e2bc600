"""The ``evaluate`` section: what is measured of a point beside its EMC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flexhpc.config.sections.base import Count, Section


class Evaluate(Section):
    """What is measured of a point beside its EMC. It changes no EMC, and so no point's id.

    Each point's model is trained once more, on `n` samples or on all, and its accuracy and
    calibration on the test set are recorded. At interpolation (train accuracy 1) the gap between
    train and test accuracy tells of generalization; the results say which trainings got there.
    Points whose labels are random or whose inputs are noise, which nothing generalizes from, are
    left out.
    """

    n: Count | None = None
    """Samples of that training: a random subset, fixed for each seed. `data.n_max` does not cap
    it."""
    full: bool = False
    """Trains on the full training set, instead of `n` samples."""
    steps: Count | None = None
    """Budget of that training in parameter updates, instead of the budget of the probes."""
    epochs: Count | None = None
    """Budget of that training in passes over its samples, instead of the budget of the probes."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to train."""
        return self.full or self.n is not None

    @property
    def size_key(self) -> str:
        """The key that says on how many samples."""
        return "full" if self.n is None else "n"

    @property
    def asked(self) -> dict[str, int]:
        """Size and budget where they are given here, as they are kept with what was found."""
        return self.model_dump(include={"n", "steps", "epochs"}, exclude_none=True)

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        full, n = values.get("full"), values.get("n")
        budgets = [key for key in ("steps", "epochs") if values.get(key) is not None]
        if full and n is not None:
            yield "n", "full and n are two sizes; keep one of them"
        if len(budgets) > 1:
            yield "epochs", "steps and epochs are two budgets; keep one of them"
        if not full and n is None:
            for key in budgets:
                yield key, "has no effect without n or full: true; give one of them"
