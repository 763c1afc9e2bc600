"""Every registered variant and figure."""

from __future__ import annotations

from importlib import import_module

import pytest

from flexhpc.analysis.figures import figures_of_report
from flexhpc.config.variants import KEYS, variants


@pytest.mark.parametrize("section", KEYS)
def test_every_implementation_exists(section: str) -> None:
    for name, cls in variants(section).items():
        module, _, attribute = cls.import_path.partition(":")
        if module:  # custom models, data sets and trainers have no implementation in flexhpc
            assert hasattr(import_module(module), attribute), name


def test_every_figure_has_files_of_its_own() -> None:
    names = ["ratios", "ratios_over_budget", *(figure.name for figure in figures_of_report())]
    assert len(set(names)) == len(names)
    assert not any("." in name for name in names)
