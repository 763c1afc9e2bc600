"""Measure the coverage of the Bayesian search's interval for a known EMC, with an exact solver.

Usage: python -m bench.perceptron_coverage [--runs N] [--dims D ...]
Cover (1965): n random labels in d dimensions are separable with probability 1/2 at n = 2 d. The
trainer is a linear program that finds a separating hyperplane if one exists. Prints JSON. Takes 15
minutes on two cores with the default of 200 runs each at d = 20, 50 and 200.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from flexhpc.config.sections.search import Bayes
from flexhpc.search import Estimate, ProbeResult, next_probes

START, N_LIMIT = 8, 5000
MARGIN = 1e-7
"""Margins up to this value are considered rounding errors."""
QUANTILES = (0.05, 0.5, 0.95)


def separable(inputs: NDArray[np.float64], labels: NDArray[np.float64]) -> bool:
    """Return whether a hyperplane through the origin separates the labels.

    Maximises the smallest margin over all weights with |w_i| <= 1. The maximum is 0 if the labels
    are not separable. This linear program is always feasible, and better scaled than a program that
    requires a margin of 1.

    Args:
        inputs: Shape (n, d).
        labels: +1 or -1, shape (n,).

    Raises:
        RuntimeError: The solver fails.
    """
    n, dims = inputs.shape
    rows = np.hstack([-labels[:, None] * inputs, np.ones((n, 1))])
    solution = linprog(
        np.append(np.zeros(dims), -1.0), A_ub=rows, b_ub=np.zeros(n),
        bounds=[(-1, 1)] * dims + [(0, None)], method="highs",
    )  # fmt: skip
    if solution.status != 0 or solution.fun is None:
        raise RuntimeError(f"linear program failed: {solution.message}")
    return bool(-solution.fun > MARGIN)


def search(dims: int, seed: int) -> Estimate:
    """Measure the EMC of a perceptron in ``dims`` dimensions once."""
    rng = np.random.default_rng([dims, seed])
    settings = Bayes(policy="bayes", start=START)
    history: list[ProbeResult] = []
    while isinstance(step := next_probes(settings, N_LIMIT, history), list):
        for n, repeat, *_ in step:
            fit = separable(rng.normal(size=(n, dims)), rng.choice([-1.0, 1.0], size=n))
            verdict = "fit" if fit else "not_fit"
            history.append(
                ProbeResult(n=n, repeat=repeat, verdict=verdict, n_errors=int(not fit), cost=n)
            )
    return step


def measure(dims: int, runs: int, pool: ProcessPoolExecutor) -> dict[str, object]:
    """Run searches; return the coverage and other statistics, with EMCs in units of 2 d."""
    estimates = list(pool.map(partial(search, dims), range(runs), chunksize=4))
    truth = 2 * dims
    emc = np.array([e.emc for e in estimates]) / truth
    quantiles = np.quantile(emc, QUANTILES).tolist()
    covered = [e.emc_lo <= truth and (e.emc_hi is None or truth <= e.emc_hi) for e in estimates]
    return {
        "dims": dims,
        "runs": runs,
        "coverage": float(np.mean(covered)),
        "emc_over_2d": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
        "rmse": float(np.sqrt(np.mean(np.log(emc) ** 2))),
        "bias": float(np.mean(np.log(emc))),
        "probes": float(np.mean([e.probes for e in estimates])),
        "censored": sum(e.censored != "none" for e in estimates),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 50, 200])
    arguments = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for dims in arguments.dims:
            rows.append(measure(dims, arguments.runs, pool))
            print(f"d = {dims}: done", file=sys.stderr, flush=True)
    print(json.dumps({"bench": "perceptron_coverage", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
