"""Print the table of docs/search.md that compares Bayesian search and bisection.

Usage: python -m bench.search.side_by_side RUN
RUN is a run of sweeps/fashion_width.yaml, or of any sweep that measures each network once by
`bayes` and several times by `bisection`, without censored points.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flexhpc.analysis.text import emc_text
from flexhpc.search import Estimate
from flexhpc.store.status import StatusReader, open_run

DEVIATIONS = 1.645
"""Half-width of an interval at level 0.9, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Estimates of both policies for one network."""

    name: str
    bayes: Estimate
    bisections: list[Estimate]

    @property
    def cost(self) -> float:
        """Mean cost of a bisection (sample passes)."""
        return float(np.mean([e.cost for e in self.bisections]))

    @property
    def scatter(self) -> float:
        """Standard deviation of log EMC between bisections."""
        return float(np.std([np.log(e.emc) for e in self.bisections], ddof=1))

    @property
    def held(self) -> int:
        """Number of bisections whose interval contains the Bayesian estimate."""
        emc = self.bayes.emc
        return sum(e.emc_lo <= emc <= (e.emc_hi or np.inf) for e in self.bisections)

    @property
    def of_repeated(self) -> float:
        """Cost divided by that of bisections repeated until their mean is as certain."""
        assert self.bayes.emc_hi is not None
        deviation = np.log(self.bayes.emc_hi / self.bayes.emc_lo) / 2 / DEVIATIONS
        return float(self.bayes.cost / ((self.scatter / deviation) ** 2 * self.cost))


def networks(run: Path) -> list[Network]:
    """Return the networks of a run, in the order of its points."""
    folder, _, points = open_run(run)
    estimates: dict[str, dict[str, list[Estimate]]] = defaultdict(lambda: defaultdict(list))
    for status in StatusReader(folder, points).read():
        assert status.estimate is not None, f"{status.point.label} is not measured"
        swept = status.point.swept
        name = " ".join(f"{k}={v}" for k, v in swept.items() if k not in ("search", "seed"))
        estimates[name][status.point.search.policy].append(status.estimate)
    return [
        Network(name=name, bayes=by["bayes"][0], bisections=by["bisection"])
        for name, by in estimates.items()
    ]


def row(network: Network) -> str:
    """Return a network's row of the table."""
    emc = sorted(e.emc for e in network.bisections)
    return (
        f"| {network.name} | {emc_text(network.bayes)} | {network.bayes.probes}, "
        f"{network.bayes.cost / 1e6:.1f}e6 | {', '.join(map(str, emc))} | {np.median(emc):.0f} | "
        f"{network.cost / 1e6:.1f}e6 | {network.held} of {len(emc)} |"
    )


def main() -> None:
    compared = networks(Path(sys.argv[1]))
    print("| network | `bayes`: EMC | probes, cost | bisections: EMC | median | cost of one |"
          " intervals that hold it |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    print("\n".join(map(row, compared)))
    scatter = np.sqrt(np.mean([network.scatter**2 for network in compared]))
    ratios = [network.bayes.cost / network.cost for network in compared]
    repeated = [network.of_repeated for network in compared]
    print(
        f"\nscatter of one bisection: {scatter:.0%}\n"
        f"cost of bayes in bisections: {min(ratios):.1f} to {max(ratios):.1f}, median "
        f"{np.median(ratios):.1f}\n"
        f"of bisections repeated until their mean is as certain: {min(repeated):.2f} to "
        f"{max(repeated):.2f}, median {np.median(repeated):.2f}"
    )


if __name__ == "__main__":
    main()
