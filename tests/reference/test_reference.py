"""flexhpc's EMCs against plain PyTorch loops of the same recipes that share no line with it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from tests.conftest import REPOSITORY
from tests.reference.agreement import by_counts, n50, p_value, search
from tests.reference.data import needed, read
from tests.reference.loops import batch_sizes
from tests.reference.recipes import Count, counts_of, recipes
from tests.reference.record import SEEDS, count
from tests.reference.table import HEAD, row

CHEAP = "mlp_adam_digits"
LEAST_P = 0.005
CURVE = [Count(n=n, fitted=fitted, of=8) for n, fitted in ((80, 8), (100, 6), (125, 2), (160, 0))]


def test_the_plain_loops_use_nothing_of_flexhpc() -> None:
    told = "import sys, tests.reference.record; print('flexhpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", recipes())
def test_stored_counts_are_of_the_recipe_and_go_from_all_to_none(name: str) -> None:
    recipe = recipes()[name]
    counts = counts_of(recipe)
    assert tuple(c.n for c in counts) == recipe.n == tuple(sorted(recipe.n))
    assert all(c.of == SEEDS for c in counts)
    assert counts[0].fitted >= 6
    assert counts[-1].fitted <= 2


def test_the_recipes_cover_families_optimizers_and_labels() -> None:
    def used(section: str, key: str) -> set[str]:
        words = [recipe.words[section] for recipe in recipes().values()]
        return {some[key] for some in words if key in some}

    assert used("model", "family") >= {"linear", "mlp", "cnn", "vit", "resnet", "mixer"}
    assert used("training", "optimizer") >= {
        "sgd", "gd", "adam", "adamw", "shampoo", "soap", "muon",
    }  # fmt: skip
    assert used("data", "labels") >= {"random", "corrupted"}
    assert len(recipes()) >= 12


@given(n=st.integers(1, 5000), most=st.integers(1, 300))
def test_batches_are_as_few_as_can_be_and_near_equal(n: int, most: int) -> None:
    sizes = batch_sizes(n, most)
    assert sum(sizes) == n
    assert max(sizes) <= most
    assert len(sizes) == -(-n // most)
    assert max(sizes) - min(sizes) <= 1


def test_a_cheap_recipe_still_has_the_stored_counts() -> None:
    """With seeds of its own: at each n the two counts may be of one chance."""
    recipe = recipes()[CHEAP]
    for stored in (counts_of(recipe)[0], counts_of(recipe)[-1]):
        again = count(recipe, stored.n, range(4))
        table = [[c.fitted, c.of - c.fitted] for c in (stored, again)]
        assert fisher_exact(np.array(table)).pvalue > 0.01


def test_corrupted_labels_are_wrong_as_often_as_said() -> None:
    clean = read({"source": "digits"})
    dirty = read({"source": "digits", "labels": "corrupted", "corruption": 0.3})
    wrong = (clean.labels != dirty.labels).sum()
    assert wrong == round(0.3 * len(clean.labels))
    assert Counter(clean.labels.tolist()).keys() == Counter(dirty.labels.tolist()).keys()
    assert torch.equal(clean.inputs, dirty.inputs)


def test_the_check_accepts_counts_of_the_curve_and_refuses_those_of_others() -> None:
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
    place = needed(recipe.words["data"])
    if place is not None and not place.exists():
        pytest.skip(f"no {place}")
    counts, found = counts_of(recipe), search(recipe)
    assert p_value(found.curve, counts) >= LEAST_P, f"{HEAD}\n{row(recipe, counts, found)}"
