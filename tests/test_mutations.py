"""The mutations of tests/mutations.py apply to the current code."""

from __future__ import annotations

import pytest

from tests.conftest import REPOSITORY
from tests.faults.kinds import KINDS
from tests.mutations import FAULTS, MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", [*MUTATIONS, *FAULTS], ids=lambda mutation: mutation.name)
def test_a_mutation_applies_to_one_line(mutation: Mutation) -> None:
    assert (REPOSITORY / "flexhpc" / mutation.file).read_text().count(mutation.original) == 1
    for test in mutation.tests:
        assert test in KINDS or (REPOSITORY / test).exists()
