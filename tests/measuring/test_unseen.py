"""``record.unseen``: what a probe got right of samples that it did not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flexhpc
from flexhpc.config import checked, freeze
from flexhpc.errors import InputError
from tests.conftest import Cli

SPEC = """\
name: seen
fixed:
  data: {source: digits}
  model: {family: mlp, width: 32, depth: 1}
  training: {optimizer: adam, lr: 1e-2, epochs: 30}
  search: {policy: bisection, start: 256, tolerance: 0.5}
record: {unseen: 300}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "seen.yaml"
    path.write_text(SPEC)
    return path


@pytest.mark.sweeps
def test_every_probe_is_asked_for_one_set(spec: Path, cli: Cli, untracked: Path) -> None:
    """Except for samples of its subset. Labels that can be learnt are mostly right.

    Nothing else is changed.
    """
    plain = spec.with_name("plain.yaml")
    plain.write_text(SPEC.replace("record: {unseen: 300}\n", "").replace("seen", "plain"))
    assert checked(plain)[1][0].id == checked(spec)[1][0].id
    runs = []
    for path in (spec, plain):
        cli("sweep", path, "--profile", untracked)
        runs.append(flexhpc.load(path.parent / "runs" / path.stem)[0])
    masks = runs[0].masks
    asked, right, drawn = masks.unseen(), masks.unseen_fitted(), masks.drawn()
    assert not (right & ~asked).any()
    whole = asked.any(axis=0)
    assert whole.sum() <= 300
    np.testing.assert_array_equal(asked, whole & ~drawn)
    some = asked.any(axis=1)  # all but a probe of the whole set
    assert some.any()
    assert (right.sum(axis=1)[some] > 0.5 * asked.sum(axis=1)[some]).all()
    assert not runs[1].masks.unseen().any()
    seen, without = (
        (run.emc, run.probes.n_errors.tolist(), run.masks.fit.tobytes()) for run in runs
    )
    assert seen == without


def test_a_frozen_spec_keeps_it_and_wrong_ones_are_said(spec: Path) -> None:
    sweep, points = checked(spec)
    frozen = spec.with_name("frozen.yaml")
    frozen.write_text(freeze(sweep, points))
    assert checked(frozen)[1][0].record.unseen == 300
    assert checked(spec, ["record.unseen=20"])[1][0].record.unseen == 20
    for change, message in (
        ("record.unseen=0", "record.unseen: must be at least 1"),
        ("record.unseen=5000", "5000 is more than the 1797 training samples of digits"),
        ("record.masks=1", "record.masks: unknown key; use one of unseen, forgetting"),
    ):
        with pytest.raises(InputError, match=message):
            checked(spec, [change])
