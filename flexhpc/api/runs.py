"""Results of runs as objects and data frames, and the comparison of two EMCs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.analysis.effect import chance_text
from flexhpc.analysis.results import budget_value, emc_at_budget, results_row
from flexhpc.analysis.tables import Column, columns_html, results_html
from flexhpc.analysis.text import doubling_text, emc_text
from flexhpc.errors import InputError, PointError
from flexhpc.search import EmcInterval, Estimate
from flexhpc.search.budget_curve import MAX_FACTOR, NO_OTHER_BUDGET
from flexhpc.search.fit_curve import FitCurve, estimand_level, posterior
from flexhpc.store import Masks, RunFolder, read_masks
from flexhpc.store.status import PointStatus, StatusReader, open_run

if TYPE_CHECKING:
    import pandas as pd

    from flexhpc.analysis.figures.chart import Chart, Style
    from flexhpc.analysis.figures.emc import Quantity

_DRAWS, _RATIO_DRAWS = 1_000, 20_000
_NO_RESULT = "nothing has been measured yet"


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """Results of one point.

    Attributes:
        run: run folder in which the point is stored.
        status: status of the point, with its record and its estimate.
        masks_in_memory: masks of the probes if the run folder was temporary and has been removed;
            None otherwise.
    """

    run: RunFolder
    status: PointStatus
    masks_in_memory: Masks | None = None

    @property
    def estimate(self) -> Estimate:
        """The final or current estimate.

        Raises:
            PointError: the point has no estimate yet, or failed without one.
        """
        if self.status.estimate is None:
            raise PointError(self.status.message or _NO_RESULT)
        return self.status.estimate

    @property
    def emc(self) -> float:
        """Effective model complexity (samples).

        This is a lower bound if :attr:`censored` is ``right``, and 0 if it is ``left``.
        """
        return self.estimate.emc

    @property
    def interval(self) -> tuple[float, float | None]:
        """Credible interval of the EMC (samples).

        The upper end is None if the EMC is right-censored.
        """
        return self.estimate.emc_lo, self.estimate.emc_hi

    @property
    def level(self) -> float:
        """Probability covered by the interval."""
        return self.estimate.level

    @property
    def censored(self) -> str:
        """``none``, ``right`` (only a lower bound is known) or ``left`` (only an upper bound)."""
        return self.estimate.censored

    @property
    def doubling(self) -> tuple[float, float, float] | None:
        """Predicted EMC at twice the budget, divided by the EMC: lower end, median and upper end.

        None while the search is running, if the EMC is censored, or if the EMC at other budgets is
        unknown; see docs/reading.md.
        """
        return self.estimate.doubling

    def at_budget(self, budget: float) -> EmcInterval:
        """Estimate the EMC at another budget from the times at which training runs fitted.

        Args:
            budget: the other budget, in the unit of the spec's budget. If it is larger than the
                budget of the point, the result is a prediction.

        Raises:
            PointError: the point has no estimate yet, or the EMC at this budget is unknown.
            ValueError: ``budget`` is not positive, or is more than twice the budget of the point.
        """
        estimate, spec_budget = self.estimate, budget_value(self.status)
        if not self.status.point.training.determines_other_budgets:
            raise PointError(NO_OTHER_BUDGET)
        if not 0 < budget <= MAX_FACTOR * spec_budget:
            raise ValueError(
                f"budget: must be above 0 and at most {MAX_FACTOR * spec_budget:g}, which is "
                f"{MAX_FACTOR:g} times the budget of the point ({budget})"
            )
        if (interval := emc_at_budget(self.status, budget)) is None:
            raise PointError(
                f"EMC {emc_text(estimate)}: the EMC at budget {budget:g} is unknown, because no "
                "training run fitted, or this budget is smaller than the budget of the first stage"
            )
        return interval

    @property
    def ended_by(self) -> str:
        """Reason why the search ended, such as ``tolerance``; empty while the search is running.

        docs/search.md lists the reasons.
        """
        return self.estimate.ended_by or ""

    @property
    def params(self) -> int:
        """Number of trainable parameters; 0 if a custom trainer has no network."""
        assert self.status.record is not None
        return self.status.record.header.params

    @property
    def swept(self) -> dict[str, Any]:
        """Values of the swept keys at this point."""
        return dict(self.status.point.swept)

    @property
    def probes(self) -> pd.DataFrame:
        """One row per probe, in the order in which the probes ended.

        With ``until: saturation``, a continued training run has one row per stage. Its epochs,
        steps, cost and seconds are totals since the start of the training run.
        """
        import pandas as pd

        probes = self.status.record.probes if self.status.record else []
        return pd.DataFrame(
            {
                "n": probe.n, "repeat": probe.repeat, "stage": probe.stage,
                "verdict": probe.verdict, "n_errors": probe.n_errors,
                "train_accuracy": probe.train_accuracy, "loss": probe.loss,
                "epochs": probe.epochs, "steps": probe.steps, "cost": probe.cost,
                "seconds": probe.seconds, **probe.tuned, **probe.metrics,
            }
            for probe in probes
        )  # fmt: skip

    @property
    def masks(self) -> Masks:
        """Masks of the samples that each probe drew and fitted, in the order of :attr:`probes`."""
        return self.masks_in_memory or read_masks(self.run.point_file(self.status.point.id))

    @property
    def fit_curve(self) -> FitCurve:
        """Posterior of P(fit) as a function of n."""
        assert self.status.record is not None
        return posterior(self.status.history, self.status.record.header.n_limit)

    def draws(self, size: int = _DRAWS, seed: int = 0) -> NDArray[np.float64]:
        """Draw values of the EMC (in samples) from its posterior, float64 (size,).

        If the EMC is censored, draws beyond the bound are determined by the prior. If the estimand
        is ``last_fit``, values of ``n50`` are drawn.
        """
        curve = self.fit_curve
        cells = np.random.default_rng(seed).choice(len(curve.weight), size, p=curve.weight)
        return curve.n_at_fit_probability(estimand_level(self.estimate.estimand))[cells]

    def plot(self) -> Chart:
        """Plot every training run and the fit curve.

        Returns:
            A chart that notebooks display; ``save("fit.pdf")`` writes it to a file.

        Raises:
            PointError: no probe has finished.
        """
        from flexhpc.analysis.figures.point import fit_chart

        if not self.status.probes:
            raise PointError(self.status.message or _NO_RESULT)
        return fit_chart(self.status)

    def _repr_html_(self) -> str:
        """Return the results and the plot for notebooks."""
        plot = self.plot().html() if self.status.probes else ""
        return results_html([self.status]) + plot

    def __repr__(self) -> str:
        if self.status.estimate is None:
            return f"<{self.status.point.label or 'a point'}: {self.status.state}>"
        label = f"{self.status.point.label}: " if self.status.point.label else ""
        text = f"{label}EMC {emc_text(self.estimate)}"
        if (budget := self.status.point.training.budget) is not None:
            text += f" at {budget_value(self.status):,} {budget[0].replace('_', ' ')}"
        if doubling := doubling_text(self.estimate, with_interval=True):
            text += f"; twice the budget: {doubling}"
        return f"<{text}; {self.status.training_runs} training runs>"


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Results of a sweep.

    Attributes:
        folder: the run folder.
        measurements: results of each point, in the order of the sweep.
    """

    folder: RunFolder
    measurements: list[Measurement]

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """Path of the run folder."""
        return self.folder.path

    @property
    def results(self) -> pd.DataFrame:
        """The results table, one row per point; see docs/reading.md and docs/concepts.md."""
        import pandas as pd

        return pd.DataFrame([results_row(m.status) for m in self.measurements])

    def compare(
        self, by: str, *, baseline: Any = None, within: Sequence[str] | None = None,
        decide: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """Compare the EMCs at each value of a key with the EMCs at a baseline value.

        The command ``flexhpc compare`` makes the same comparison.

        Args:
            by: swept key whose values are compared, for example ``training.optimizer``.
            baseline: the value to compare with; by default the first value of the key.
            within: grouping keys; a separate comparison is made for each combination of their
                values. By default, the swept data keys are used.
            decide: whether to apply the rule of ``compare.decide`` with default settings. If the
                spec sets ``decide`` for this key, the settings of the spec are always applied.

        Returns:
            One row per comparison: ratio, its interval, the probability that the ratio is above 1,
            and the verdict.

        Raises:
            InputError: a key or the baseline value occurs in no point, or ``within`` is not a list
                of keys or contains ``by``.
        """
        import pandas as pd

        from flexhpc.analysis.comparison import compare_points, requested_comparisons
        from flexhpc.config.sections.compare import Compare, Decide

        if isinstance(within, str):
            raise InputError(f"within: must be a list of keys, such as [{within!r}]")
        keys = None if within is None else list(within)
        in_spec = requested_comparisons(self.folder.spec.read_text())
        rules = (c.decide for c in in_spec if c.by == by and c.decide)
        rule = next(rules, Decide() if decide else None)
        compare = Compare(by=by, baseline=baseline, within=keys, decide=rule)
        compared = compare_points([m.status for m in self], [compare])
        return pd.DataFrame([effect.as_row() for effect in compared.effects])

    def samples(self, by: Sequence[str] = ()) -> pd.DataFrame:
        """Return one row per sample: how often it was drawn and missed, and its hardness.

        docs/comparing.md describes the columns.

        Args:
            by: grouping keys. Samples are scored separately for each combination of their values.

        Raises:
            InputError: no training run has finished yet, or a key of ``by`` occurs in no point.
        """
        from flexhpc.analysis.samples import data_frame_of, sample_scores

        return data_frame_of(sample_scores(((self.folder, m.status) for m in self), by))

    def plot(
        self, x: str | None = None, y: Quantity = "emc", *, facet: str | None = None,
        size: tuple[float, float] = (3.3, 2.5), style: Style = "light",
    ) -> Chart:  # fmt: skip
        """Plot all points for a publication, as the command ``flexhpc figure`` does.

        Args:
            x: swept key on the x axis, or ``params`` (the number of parameters). If the values of
                the key are not numbers, each value is a row. By default, as in the report.
            y: ``emc``, ``emc_per_param`` or ``doubling`` (the EMC at twice the budget, divided by
                the EMC).
            facet: swept key; each of its values has its own facet. By default, as in the report.
            size: width and height, including axes and legend (inches).
            style: ``light`` or ``dark``.

        Returns:
            A chart that notebooks display; ``save("figure.pdf")`` writes it to a file.

        Raises:
            InputError: an argument is invalid.
            PointError: no point has a value of ``y``.
        """
        from flexhpc.analysis.figures.publication import publication_figure

        statuses = [m.status for m in self]
        return publication_figure(statuses, x=x, y=y, facet=facet, size=size, style=style)

    def report(self) -> Path:
        """Write the HTML report; return the path of its page."""
        from flexhpc.analysis.report import report_runs

        return report_runs([(self.folder, [m.status for m in self])], self.folder.report)

    def __len__(self) -> int:
        return len(self.measurements)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __getitem__(self, index: int) -> Measurement:
        return self.measurements[index]

    def _repr_html_(self) -> str:
        """Return the results and the plot for notebooks."""
        plot = self.plot().html() if any(m.status.estimate for m in self) else ""
        return f"<div>{escape(str(self.path))}</div>{results_html([m.status for m in self])}{plot}"

    def __repr__(self) -> str:
        return "\n".join([f"<run {self.path}>", *(f"  {m!r}" for m in self.measurements)])


def load(path: str | Path) -> Run:
    """Load a finished or unfinished run without changing it.

    Raises:
        InputError: the path is not a run folder.
    """
    folder, _, points = open_run(Path(path))
    return make_run(folder, StatusReader(folder, points).read())


def make_run(folder: RunFolder, statuses: list[PointStatus]) -> Run:
    """Create a :class:`Run` from a run folder and the statuses of its points."""
    measurements = [Measurement(run=folder, status=status) for status in statuses]
    return Run(folder=folder, measurements=measurements)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ratio of two EMCs with its credible interval.

    Attributes:
        ratio: posterior median of the ratio of the EMCs.
        low, high: ends of the interval of the ratio; an end is None if it is unknown because an EMC
            is censored.
        level: probability covered by the interval.
        chance: posterior probability that the first EMC is larger; None if both ends are unknown.
    """

    ratio: float
    low: float | None
    high: float | None
    level: float
    chance: float | None

    def _repr_html_(self) -> str:
        """Return the comparison as a table for notebooks."""
        chance = "" if self.chance is None else chance_text(self.chance)
        columns = [Column("EMC ratio", [self._ratio_text]), Column("P(larger)", [chance])]
        return columns_html(columns)

    def __str__(self) -> str:
        larger = "" if self.chance is None else f", P(larger) {chance_text(self.chance)}"
        return f"ratio {self._ratio_text}{larger}"

    @property
    def _ratio_text(self) -> str:
        ends = ["?" if end is None else f"{end:.2f}" for end in (self.low, self.high)]
        return f"{self.ratio:.2f} [{ends[0]}, {ends[1]}]"


def compare(a: Measurement, b: Measurement, *, level: float = 0.9) -> Comparison:
    """Compare two EMCs by independent draws from their posteriors.

    If the interval of the ratio excludes 1, the EMCs differ for these training recipes and seeds.
    See docs/recipe.md for what else affects an EMC.

    Args:
        a, b: measurements. The ratio is the EMC of ``a`` divided by the EMC of ``b``.
        level: probability covered by the interval, between 0 and 1.

    Raises:
        PointError: ``a`` or ``b`` has no estimate yet.
        ValueError: ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: must be between 0 and 1 ({level})")
    ratios = a.draws(_RATIO_DRAWS, seed=0) / b.draws(_RATIO_DRAWS, seed=1)
    low, middle, high = np.quantile(ratios, [(1 - level) / 2, 0.5, (1 + level) / 2])
    open_above = a.censored == "right" or b.censored == "left"
    open_below = a.censored == "left" or b.censored == "right"
    return Comparison(
        ratio=float(middle),
        low=None if open_below else float(low),
        high=None if open_above else float(high),
        level=level,
        chance=None if open_above and open_below else float((ratios > 1).mean()),
    )
