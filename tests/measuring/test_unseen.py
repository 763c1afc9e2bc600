"""``record.unseen``: predictions of a probe for samples outside of its subset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flexhpc
from flexhpc.config import freeze, load_points
from flexhpc.errors import InputError
from tests.conftest import Cli

SPEC = """\
name: unseen
fixed:
  data: {source: digits}
  model: {family: mlp, width: 32, depth: 1}
  training: {optimizer: adam, lr: 1e-2, epochs: 30}
  search: {policy: bisection, start: 256, tolerance: 0.5}
record: {unseen: 300}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "unseen.yaml"
    path.write_text(SPEC)
    return path


@pytest.mark.full_budget
@pytest.mark.sweeps
def test_every_probe_is_evaluated_on_the_same_unseen_samples(
    spec: Path, cli: Cli, profile: Path
) -> None:
    """The recording changes no other result."""
    plain = spec.with_name("plain.yaml")
    plain.write_text(SPEC.replace("record: {unseen: 300}\n", "").replace("unseen", "plain"))
    assert load_points(plain)[1][0].id == load_points(spec)[1][0].id
    runs = []
    for path in (spec, plain):
        cli("sweep", path, "--profile", profile)
        runs.append(flexhpc.load(path.parent / "runs" / path.stem)[0])
    masks = runs[0].masks
    unseen, correct = masks.evaluated_outside_subset(), masks.correct_outside_subset()
    drawn = masks.in_subset()
    assert not (correct & ~unseen).any()
    evaluated = unseen.any(axis=0)
    assert evaluated.sum() <= 300
    np.testing.assert_array_equal(unseen, evaluated & ~drawn)
    probes = unseen.any(axis=1)  # without probes of all samples
    assert probes.any()
    assert (correct.sum(axis=1)[probes] > 0.5 * unseen.sum(axis=1)[probes]).all()
    assert not runs[1].masks.evaluated_outside_subset().any()
    recorded, without = (
        (run.emc, run.probes.n_errors.tolist(), run.masks.fit.tobytes()) for run in runs
    )
    assert recorded == without


def test_frozen_spec_keeps_unseen_and_invalid_values_are_rejected(spec: Path) -> None:
    sweep, points = load_points(spec)
    frozen = spec.with_name("frozen.yaml")
    frozen.write_text(freeze(sweep, points))
    assert load_points(frozen)[1][0].record.unseen == 300
    assert load_points(spec, ["record.unseen=20"])[1][0].record.unseen == 20
    for change, message in (
        ("record.unseen=0", "record.unseen: must be at least 1"),
        ("record.unseen=5000", "5000 is more than the 1797 training samples of digits"),
        ("record.masks=1", "record.masks: unknown key; use one of unseen, forgetting"),
    ):
        with pytest.raises(InputError, match=message):
            load_points(spec, [change])
