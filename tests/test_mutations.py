"""The mutations of tests/mutations.py apply to the current code."""

from __future__ import annotations

import pytest

from tests.conftest import REPOSITORY
from tests.faults.kinds import KINDS
from tests.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_applies_to_one_line(mutation: Mutation) -> None:
    assert (REPOSITORY / "flexhpc" / mutation.file).read_text().count(mutation.original) == 1
    assert all((REPOSITORY / test).exists() for test in mutation.tests)
    assert mutation.faults or mutation.tests
    assert KINDS.keys() >= set(mutation.faults)
