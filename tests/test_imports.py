"""Imports without garbage collection."""

from __future__ import annotations

import gc

import pytest

from flexhpc.imports import imports_without_gc


@pytest.mark.parametrize("enabled", [True, False])
def test_the_state_of_the_garbage_collector_is_restored(enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with imports_without_gc():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ZeroDivisionError), imports_without_gc():
            _ = 1 / 0
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
