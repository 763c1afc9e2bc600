"""Compare the EMCs of flexhpc with the EMCs of plain PyTorch training loops."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact

from tests.conftest import REPOSITORY
from tests.reference.agreement import fit_curve_of, measure, n50, p_value
from tests.reference.data import missing_path, read
from tests.reference.recipes import SEEDS, Count, count, counts_of, recipes
from tests.reference.table import TABLE_HEAD, format_row

FAST_RECIPE = "mlp_adam_digits"
MIN_P = 0.005
CURVE = [
    Count(n=n, fitted=fitted, total=8) for n, fitted in ((80, 8), (100, 6), (125, 2), (160, 0))
]


def test_plain_loops_do_not_import_flexhpc() -> None:
    code = "import sys, tests.reference.recipes; print('flexhpc' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.stdout.strip() == "False", result.stderr


def test_stored_counts_match_the_recipes() -> None:
    for recipe in recipes().values():
        counts = counts_of(recipe)
        assert tuple(c.n for c in counts) == recipe.n == tuple(sorted(recipe.n))
        assert all(c.total == SEEDS for c in counts)
        assert counts[0].fitted >= 6
        assert counts[-1].fitted <= 2


def test_recipes_cover_families_optimizers_and_labels() -> None:
    def values(name: str, key: str) -> set[str]:
        sections = [recipe.sections[name] for recipe in recipes().values()]
        return {section[key] for section in sections if key in section}

    assert values("model", "family") >= {"linear", "mlp", "cnn", "vit", "resnet", "mixer"}
    optimizers = {"sgd", "gd", "adam", "adamw", "shampoo", "soap", "muon"}
    assert values("training", "optimizer") >= optimizers
    assert values("data", "labels") >= {"random", "corrupted"}
    assert len(recipes()) >= 12


def test_stored_counts_are_reproduced_with_different_seeds() -> None:
    """The two counts are compatible with one probability of a fit."""
    recipe = recipes()[FAST_RECIPE]
    for stored in (counts_of(recipe)[0], counts_of(recipe)[-1]):
        repeated = count(recipe, stored.n, range(4))
        table = [[c.fitted, c.total - c.fitted] for c in (stored, repeated)]
        assert fisher_exact(np.array(table)).pvalue > 0.01


def test_corruption_changes_that_fraction_of_the_labels() -> None:
    clean = read({"source": "digits"})
    corrupted = read({"source": "digits", "labels": "corrupted", "corruption": 0.3})
    wrong = (clean.labels != corrupted.labels).sum()
    assert wrong == round(0.3 * len(clean.labels))
    assert set(clean.labels.tolist()) == set(corrupted.labels.tolist())
    assert torch.equal(clean.inputs, corrupted.inputs)


def test_p_value_is_small_for_counts_of_a_different_curve() -> None:
    curve = fit_curve_of(CURVE, 2000)
    assert n50(curve)[1] == pytest.approx(111, rel=0.05)
    assert p_value(curve, CURVE) > 0.3
    for factor in (0.6, 1.6):
        shifted = [Count(n=round(c.n * factor), fitted=c.fitted, total=c.total) for c in CURVE]
        assert p_value(curve, shifted) < MIN_P


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_search_agrees_with_the_plain_loop(name: str) -> None:
    recipe = recipes()[name]
    if path := missing_path(recipe.sections["data"]):
        pytest.skip(f"{path} not found")
    counts, result = counts_of(recipe), measure(recipe)
    table = f"{TABLE_HEAD}\n{format_row(recipe, counts, result)}"
    assert p_value(result.curve, counts) >= MIN_P, table
