"""The ``evaluate`` section: measurement of generalization, in addition to the EMC."""

from __future__ import annotations

from flexhpc.config.sections.base import Count, Problems, Section


class Evaluate(Section):
    """Evaluation of how well each point's model generalizes. The evaluation does not change EMCs
    and is not part of a point's id.

    The model of each point is trained once more, on `n` samples or on the full training set, and
    its accuracy and calibration on the test set are recorded. If this training run interpolates
    (train accuracy 1), the gap between train and test accuracy measures generalization. The results
    show which of these training runs interpolate. Points with random labels, random tokens, or
    `gaussian` or `permuted_each` inputs are skipped, because generalization is impossible for them.
    """

    n: Count | None = None
    """Number of training samples of the evaluation. They are a random subset, which is fixed for
    each seed. `data.n_max` does not limit this number."""
    full: bool = False
    """Whether to train on the full training set instead of `n` samples."""
    steps: Count | None = None
    """Budget of the evaluation in parameter updates; by default the budget of the probes."""
    epochs: Count | None = None
    """Budget of the evaluation in passes over its training samples, instead of `steps`."""

    @property
    def enabled(self) -> bool:
        """Whether an evaluation is requested."""
        return self.full or self.n is not None

    @property
    def size_key(self) -> str:
        """The key that sets the number of training samples: ``full`` or ``n``."""
        return "full" if self.n is None else "n"

    @property
    def settings(self) -> dict[str, int]:
        """The values of ``n``, ``steps`` and ``epochs`` that are set. They are stored with the
        results."""
        return self.model_dump(include={"n", "steps", "epochs"}, exclude_none=True)

    def combination_problems(self) -> Problems:
        budgets = [key for key in ("steps", "epochs") if getattr(self, key) is not None]
        if self.full and self.n is not None:
            yield "n", "cannot be combined with full; remove one of them"
        if len(budgets) > 1:
            yield "epochs", "cannot be combined with steps; remove one of them"
        if not self.enabled:
            for key in budgets:
                yield key, "has no effect without n or full: true; give one of them"
