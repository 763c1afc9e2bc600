"""The mutations still fit the code: see tests/mutations.py, which tries them."""

from __future__ import annotations

import pytest

from tests.conftest import REPOSITORY
from tests.faults.kinds import KINDS
from tests.mutations import FAULTS, MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", [*MUTATIONS, *FAULTS], ids=lambda mutation: mutation.name)
def test_its_line_is_there_once(mutation: Mutation) -> None:
    assert (REPOSITORY / "flexhpc" / mutation.file).read_text().count(mutation.right) == 1
    for what in mutation.tests:
        assert what in KINDS or (REPOSITORY / what).exists()
