"""Imports during which the garbage collector waits."""

from __future__ import annotations

import gc

import pytest

from flexhpc.imports import imports_without_gc


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_before_afterwards(on: bool) -> None:
    was_on = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with imports_without_gc():
            assert not gc.isenabled()
        assert gc.isenabled() == on
        with pytest.raises(ZeroDivisionError), imports_without_gc():
            _ = 1 / 0
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()
