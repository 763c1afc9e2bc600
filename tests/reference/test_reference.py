"""flexhpc's EMCs against those of plain PyTorch loops."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact

from tests.conftest import REPOSITORY
from tests.reference.agreement import by_counts, n50, p_value, search
from tests.reference.data import missing, read
from tests.reference.recipes import SEEDS, Count, count, counts_of, recipes
from tests.reference.table import HEAD, row

CHEAP = "mlp_adam_digits"
LEAST_P = 0.005
CURVE = [Count(n=n, fitted=fitted, of=8) for n, fitted in ((80, 8), (100, 6), (125, 2), (160, 0))]


def test_the_plain_loops_do_not_import_flexhpc() -> None:
    code = "import sys, tests.reference.recipes; print('flexhpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "False", done.stderr


def test_stored_counts_match_the_recipes() -> None:
    for recipe in recipes().values():
        counts = counts_of(recipe)
        assert tuple(c.n for c in counts) == recipe.n == tuple(sorted(recipe.n))
        assert all(c.of == SEEDS for c in counts)
        assert counts[0].fitted >= 6
        assert counts[-1].fitted <= 2


def test_the_recipes_cover_families_optimizers_and_labels() -> None:
    def used(name: str, key: str) -> set[str]:
        sections = [recipe.sections[name] for recipe in recipes().values()]
        return {section[key] for section in sections if key in section}

    assert used("model", "family") >= {"linear", "mlp", "cnn", "vit", "resnet", "mixer"}
    assert used("training", "optimizer") >= {
        "sgd", "gd", "adam", "adamw", "shampoo", "soap", "muon",
    }  # fmt: skip
    assert used("data", "labels") >= {"random", "corrupted"}
    assert len(recipes()) >= 12


def test_a_cheap_recipe_agrees_with_its_stored_counts() -> None:
    """With different seeds: both counts may have the same probability."""
    recipe = recipes()[CHEAP]
    for stored in (counts_of(recipe)[0], counts_of(recipe)[-1]):
        again = count(recipe, stored.n, range(4))
        table = [[c.fitted, c.of - c.fitted] for c in (stored, again)]
        assert fisher_exact(np.array(table)).pvalue > 0.01


def test_the_fraction_of_corrupted_labels() -> None:
    clean = read({"source": "digits"})
    dirty = read({"source": "digits", "labels": "corrupted", "corruption": 0.3})
    wrong = (clean.labels != dirty.labels).sum()
    assert wrong == round(0.3 * len(clean.labels))
    assert Counter(clean.labels.tolist()).keys() == Counter(dirty.labels.tolist()).keys()
    assert torch.equal(clean.inputs, dirty.inputs)


def test_the_check_accepts_counts_of_the_curve_only() -> None:
    curve = by_counts(CURVE, 2000)
    assert n50(curve)[1] == pytest.approx(111, rel=0.05)
    assert p_value(curve, CURVE) > 0.3
    for factor in (0.6, 1.6):
        moved = [Count(n=round(c.n * factor), fitted=c.fitted, of=c.of) for c in CURVE]
        assert p_value(curve, moved) < LEAST_P


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_the_search_agrees_with_the_plain_loop(name: str) -> None:
    recipe = recipes()[name]
    if path := missing(recipe.sections["data"]):
        pytest.skip(f"{path} not found")
    counts, measured = counts_of(recipe), search(recipe)
    assert p_value(measured.curve, counts) >= LEAST_P, f"{HEAD}\n{row(recipe, counts, measured)}"
