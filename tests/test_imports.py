"""Imports during which the garbage collector waits."""

from __future__ import annotations

import gc

import pytest

from flexhpc.imports import quick_imports


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_before_afterwards(on: bool) -> None:
    was_on = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with quick_imports():
            assert not gc.isenabled()
        assert gc.isenabled() == on
        with pytest.raises(ZeroDivisionError), quick_imports():
            _ = 1 / 0
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()
