from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from flexhpc.config import Point, freeze, load_points, load_sweep, request_hash
from flexhpc.config.sections.model import Mlp
from flexhpc.config.variants import DEFAULT_VARIANT, variant_union
from flexhpc.errors import InputError
from tests.conftest import REPOSITORY

BASE = """\
name: x
seed: 7
fixed:
  data: {source: digits}
  model: {family: mlp, width: 8}
  training: {optimizer: sgd, lr: 1e-2}
"""

WITH_BUDGET = BASE.replace("lr: 1e-2", "lr: 1e-2, epochs: 500")
NO_MODEL = BASE.replace("  model: {family: mlp, width: 8}\n", "")


def points(tmp_path: Path, text: str, *overrides: str) -> list[Point]:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return load_points(path, overrides)[1]


def freeze_spec(tmp_path: Path, spec: str | Path, *overrides: str) -> list[Point]:
    """Freeze a spec; check that the frozen spec has the same points, and return them.

    Writes the spec to ``spec.yaml`` if it is text, and the frozen spec to ``frozen.yaml``.
    """
    path, frozen = tmp_path / "spec.yaml", tmp_path / "frozen.yaml"
    if isinstance(spec, Path):
        path = spec
    else:
        path.write_text(spec)
    sweep, before = load_points(path, overrides)
    frozen.write_text(freeze(sweep, before))
    frozen_sweep, after = load_points(frozen)
    assert request_hash(frozen_sweep) == request_hash(sweep)
    assert after == before
    return before


def test_grid_is_a_product_and_zip_varies_keys_together(tmp_path: Path) -> None:
    text = BASE + (
        "grid:\n  model.width: [2, 4]\n  seed: [0, 1]\n"
        "zip:\n  - {training.optimizer: [sgd, adam], training.lr: [0.05, 0.001]}\n"
    )
    expanded = points(tmp_path, text)
    assert len(expanded) == 8
    assert [p.index for p in expanded] == list(range(8))
    first = [(p.model.width, p.seed, p.training.optimizer, p.training.lr) for p in expanded[:3]]
    assert first == [(2, 0, "sgd", 0.05), (2, 0, "adam", 0.001), (2, 1, "sgd", 0.05)]
    assert len({p.id for p in expanded}) == 8


def test_id_does_not_depend_on_the_form_of_the_spec(tmp_path: Path) -> None:
    fixed = points(tmp_path, BASE)[0]
    swept = points(tmp_path, BASE + "grid: {model.width: [4, 8]}\n")[1]
    text = BASE.replace("width: 8", "width: 8, depth: 2, activation: relu")
    with_defaults = points(tmp_path, text.replace("name: x", "name: y"))[0]
    assert fixed.id == swept.id == with_defaults.id
    timm = "model={{family: 'timm:resnet18', kwargs: {{{}}}}}"
    orders = ("stem_width: 8, drop_rate: 0.1", "drop_rate: 0.1, stem_width: 8")
    ids = {points(tmp_path, NO_MODEL, timm.format(order))[0].id for order in orders}
    assert len(ids) == 1


@pytest.mark.parametrize(
    "override",
    [
        "search.tolerance=0.1", "search.max_cost=9", "search.start=9", "search.at_once=3",
        "data.inputs=original", "data.test_fraction=0", "training.label_smoothing=0",
        "training.unconverged=report", "training.gates.gradient.tolerance=0.1",
        "training.gates.curvature=off", "model.subspace=null", "training.gates.curvature=null",
        "data.inputs=null", "training.gates.plateau.patience=null", "training.sam=null",
    ],
)  # fmt: skip
def test_id_does_not_depend_on_precision_and_defaults(override: str, tmp_path: Path) -> None:
    assert points(tmp_path, WITH_BUDGET, override)[0].id == points(tmp_path, WITH_BUDGET)[0].id


def test_id_depends_on_settings_that_can_change_the_result(tmp_path: Path) -> None:
    changes = (
        "seed=8", "data.labels=random", "model.depth=3", "training.lr=0.02", "training.epochs=7",
        "training.precision=fp64", "search.policy=growth", "data.n_max=99",
        "data.inputs=gaussian", "data.test_fraction=0.1", "training.label_smoothing=0.1",
        "training.gates.gradient.tolerance=0.2", "training.gates.curvature=report",
        "training.warmup=5", "training.clip_norm=1.0", "search.eps=[[0.1]]", "search.estimand=n90",
        "model.low_rank.rank=2", "model.quantised.bits=2", "model.init=he", "data.standardise=set",
        "training.lr={tune: [1e-3, 1e-2]}", "training.batches=tail", "model.gain=2.0",
        "training.gates.stability=off", "training.gates.plateau.share=0.3",
    )  # fmt: skip
    requests = [(), *((change,) for change in changes), ("search.policy=growth", "search.start=9")]
    ids = {points(tmp_path, WITH_BUDGET, *overrides)[0].id: overrides for overrides in requests}
    assert sorted(ids.values()) == sorted(requests), "an omitted change has the id of another one"


def test_id_does_not_depend_on_the_location_of_the_data(tmp_path: Path) -> None:
    for source, key in (("mnist", "root"), ("table, target: y, path: /a.csv", "path")):
        text = BASE.replace("source: digits", f"source: {source}")
        moved = points(tmp_path, text, f"data.{key}=/b")[0]
        assert moved.id == points(tmp_path, text)[0].id


def test_id_depends_on_the_case_of_a_value(tmp_path: Path) -> None:
    timm = 'model={{"family": "timm:resnet18", "kwargs": {{"global_pool": "{}"}}}}'
    ids = {points(tmp_path, NO_MODEL, timm.format(pool))[0].id for pool in ("avg", "AVG")}
    assert len(ids) == 2


def test_ids_equal_those_of_earlier_commits(tmp_path: Path) -> None:
    """If ids change, all finished sweeps are measured again."""
    assert points(tmp_path, WITH_BUDGET, "search.policy=bisection")[0].id == "5cfb8aeaf997e8fd"
    assert points(tmp_path, WITH_BUDGET)[0].id == "5412cd565fec63d2"


def test_frozen_spec_of_a_different_version_is_rejected(tmp_path: Path) -> None:
    freeze_spec(tmp_path, BASE)
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(frozen.read_text().replace("version: 1\n", "version: 2\n"))
    with pytest.raises(InputError, match=r"frozen: unsupported version \(2\)"):
        load_points(frozen)


def test_tuned_values_are_arms_of_one_point(tmp_path: Path) -> None:
    (point,) = points(
        tmp_path, BASE, "training.lr={tune: [1e-3, 1e-1]}", "model.gain={tune: [1, 2]}"
    )
    assert len(point.arms) == 10
    assert [a.values["training.lr"] for a in point.arms[:5]] == [1e-3, 3.2e-3, 1e-2, 3.2e-2, 0.1]
    for number, arm in enumerate(point.arms):
        at = point.at_arm(number)
        assert (at.id, at.training.lr) == (point.id, arm.values["training.lr"])
        assert at.model.gain == arm.values["model.gain"]
        assert "model.gain" in arm.edges
        assert ("training.lr" in arm.edges) == (arm.values["training.lr"] in (1e-3, 0.1))
    assert '"lr":{"tune":[0.001,0.0032,0.01,0.032,0.1]}' in point.canonical
    text = BASE + "tune: {training.lr: [1e-3, 1e-1], model.gain: [1, 2]}\n"
    assert points(tmp_path, text)[0].id == point.id
    assert len(points(tmp_path, text, "training.lr=0.1")[0].arms) == 2
    (listed,) = points(tmp_path, BASE, "training.lr={tune: [1e-3, 2e-3, 5e-2]}")
    assert [a.values["training.lr"] for a in listed.arms] == [1e-3, 2e-3, 5e-2]
    assert [a.edges for a in listed.arms] == [("training.lr",), (), ("training.lr",)]
    distances = [b[0] - a[0] for a, b in itertools.pairwise(point.arm_coordinates[0:5])]
    assert max(distances) < 1.1


def test_grid_may_contain_tuned_and_fixed_values(tmp_path: Path) -> None:
    text = BASE + "grid: {training.lr: [1e-3, {tune: [1e-3, 1e-2]}]}\n"
    fixed, tuned = freeze_spec(tmp_path, text)
    assert (len(fixed.arms), len(tuned.arms)) == (1, 3)
    assert fixed.arms[0].values == {}


def test_overrides_replace_axes(tmp_path: Path) -> None:
    text = BASE + "grid: {model.width: [2, 4], seed: [0, 1]}\n"
    assert [p.seed for p in points(tmp_path, text, "seed=5")] == [5, 5]
    widths = points(tmp_path, text, "model.width=[1,2,3]", "seed=0")
    assert [p.model.width for p in widths] == [1, 2, 3]
    zipped = BASE + "zip:\n  - {model.width: [2, 4], model.depth: [1, 2]}\n"
    assert [p.model.depth for p in points(tmp_path, zipped, "model.depth=3")] == [3, 3]
    assert [p.model.depth for p in points(tmp_path, zipped, "model.depth=[3,4]")] == [3, 4]
    assert len(points(tmp_path, zipped, "model.depth=3", "model.width=3")) == 1


def test_null_removes_a_key(tmp_path: Path) -> None:
    text = BASE + "zip:\n  - {training.optimizer: [sgd, adam], training.momentum: [0.5, null]}\n"
    sgd, adam = points(tmp_path, text)
    assert sgd.training.momentum == 0.5
    assert not hasattr(adam.training, "momentum")
    sparse = BASE.replace("width: 8", "width: 8, subspace: {dims: 5, projection: sparse}")
    (default,) = points(tmp_path, sparse, "model.subspace.projection=null")
    assert default.model.subspace.projection == "dense"


def test_whole_sections_and_timm_arguments_can_be_swept(tmp_path: Path) -> None:
    text = NO_MODEL + "grid:\n  model: [{family: linear}, {family: cnn, width: 4}]\n"
    assert [p.model.family for p in points(tmp_path, text)] == ["linear", "cnn"]
    text = BASE.replace("{family: mlp, width: 8}", "{family: 'timm:resnet18'}")
    swept = points(tmp_path, text + "grid: {model.kwargs.stem_width: [8, 16]}\n")
    assert [p.model.kwargs for p in swept] == [{"stem_width": 8}, {"stem_width": 16}]


def test_points_of_a_frozen_spec_do_not_depend_on_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = NO_MODEL + (
        "grid:\n  model: [{family: mlp, width: 3}, {family: linear}]\n"
        "zip:\n  - {training.steps: [null, 9], training.gates: [{plateau: off}, null]}\n"
    )
    before = freeze_spec(tmp_path, text)
    monkeypatch.setattr(Mlp.model_fields["depth"], "default", 77)
    Mlp.model_rebuild(force=True)
    variant_union.cache_clear()
    try:
        frozen = load_points(tmp_path / "frozen.yaml")[1]
        assert [p.canonical for p in frozen] == [p.canonical for p in before]
        assert any('"depth":77' in p.canonical for p in load_points(tmp_path / "spec.yaml")[1])
    finally:
        monkeypatch.undo()
        Mlp.model_rebuild(force=True)
        variant_union.cache_clear()


def test_frozen_spec_keeps_the_default_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = freeze_spec(tmp_path, "name: x\nfixed: {model: {family: linear}}\n")
    assert (before[0].search.policy, before[0].training.until) == ("bayes", "saturation")
    text = "name: x\nfixed: {model: {family: linear}, training: {epochs: 9}}\n"
    before = freeze_spec(tmp_path, text)
    assert (before[0].search.policy, before[0].training.until) == ("bayes", None)
    monkeypatch.setitem(DEFAULT_VARIANT, "search", "growth")
    monkeypatch.setitem(DEFAULT_VARIANT, "training", "sgd")
    assert load_points(tmp_path / "spec.yaml")[1][0].search.policy == "growth"
    assert load_points(tmp_path / "frozen.yaml")[1] == before


def test_unknown_default_of_a_frozen_spec_is_reported(tmp_path: Path) -> None:
    freeze_spec(tmp_path, BASE)
    edited = tmp_path / "edited.yaml"
    text = (tmp_path / "frozen.yaml").read_text()
    edited.write_text(re.sub(r"( +)label_smoothing:", r"\1oops: {a: 1}\n\1label_smoothing:", text))
    with pytest.raises(InputError, match=r"training\.oops: unknown key"):
        load_points(edited)


def test_default_budget_of_an_older_frozen_spec_is_kept(tmp_path: Path) -> None:
    freeze_spec(tmp_path, BASE)
    old = tmp_path / "old.yaml"
    old.write_text((tmp_path / "frozen.yaml").read_text().replace("until: saturation", "epochs: 9"))
    (point,) = freeze_spec(tmp_path, old, "data.n_max=500")
    assert (point.training.epochs, point.training.until) == (9, None)


@pytest.mark.parametrize("change", ["training.epochs=3", "training.steps=3", "model.depth=0"])
def test_frozen_spec_contains_overrides(tmp_path: Path, change: str) -> None:
    freeze_spec(tmp_path, BASE, change)


@pytest.mark.parametrize("text", ["1e3", "0x10", "null", "true", "~", ".inf", "5e2", "01", "a: b"])
def test_frozen_spec_quotes_text_that_resembles_other_types(tmp_path: Path, text: str) -> None:
    spec = f"name: x\nfixed:\n  data: {{source: image_folder, root: '{text}'}}\n"
    (point,) = freeze_spec(tmp_path, spec + "  model: {family: linear}\n")
    assert point.data.root == text


def test_frozen_spec_keeps_the_order_of_points(tmp_path: Path) -> None:
    two_zips = BASE + (
        "zip:\n  - {training.lr: [0.1, 0.2], training.momentum: [0.3, 0.4]}\n"
        "  - {model.width: [2, 3]}\n"
    )
    assert len(freeze_spec(tmp_path, two_zips)) == 4
    sections_with_different_keys = (
        "name: x\nseed: 7\nfixed:\n  data: {source: digits}\ngrid:\n"
        "  model: [{family: mlp, width: 8}, {family: mlp, width: 8, subspace: {dims: 5}}]\n"
        "  training:\n"
        "    - {optimizer: sgd}\n"
        "    - {optimizer: sgd, sam: {}}\n"
        "    - {optimizer: sgd, gradient_evaluations: 9000}\n"
        "    - {optimizer: sgd, until: convergence}\n"
        "    - {optimizer: sgd, steps: 10}\n"
    )
    assert len(freeze_spec(tmp_path, sections_with_different_keys)) == 10


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "sweeps").rglob("*.yaml")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)  # fmt: skip
def test_included_spec_can_be_frozen(path: Path, tmp_path: Path) -> None:
    freeze_spec(tmp_path, path)


def test_key_of_a_gate_does_not_change_its_mode(tmp_path: Path) -> None:
    text = BASE.replace("lr: 1e-2", "gates: {plateau: reject, curvature: report}")
    (point,) = points(tmp_path, text, "training.gates.plateau.patience=20")
    assert point.training.gates.plateau.mode == "reject"
    assert point.training.gates.plateau.patience == 20
    swept = points(tmp_path, text + "grid:\n  training.gates.curvature.products: [5, 9]\n")
    gates = [p.training.gates.curvature for p in swept]
    assert [(g.mode, g.products) for g in gates] == [("report", 5), ("report", 9)]


def test_overrides_of_a_frozen_spec_are_validated(tmp_path: Path) -> None:
    freeze_spec(tmp_path, BASE.replace("lr: 1e-2", "lr: 1e-2, epochs: 5"))
    frozen = tmp_path / "frozen.yaml"
    for override in (
        "training.steps=5", "data.corruption=0.5", "model.width=null", "data.merge=random"
    ):  # fmt: skip
        with pytest.raises(InputError):
            load_points(frozen, [override])
    assert load_points(frozen, ["training.lr=0.5"])[1][0].training.lr == 0.5


def test_evaluation_is_not_part_of_an_id_and_is_kept_in_a_frozen_spec(tmp_path: Path) -> None:
    text = BASE.replace("digits", "mnist")
    (plain,) = points(tmp_path, text)
    assert (plain.evaluate, plain.evaluation) == (None, None)
    evaluations = {
        "full: true": {},
        "full: true, epochs: 9": {"epochs": 9},
        "n: 5": {"n": 5},
        "n: 5, full: false, steps: 7": {"n": 5, "steps": 7},
    }
    requests = set()
    for section, settings in evaluations.items():
        (point,) = freeze_spec(tmp_path, f"{text}evaluate: {{{section}}}\n")
        assert (point.id, point.evaluation) == (plain.id, settings)
        requests.add(request_hash(load_sweep(tmp_path / "spec.yaml")))
    assert len(requests) == len(evaluations), "each evaluation is a different request"
    (changed,) = points(
        tmp_path, f"{text}evaluate: {{n: 5, steps: 7}}\n", "evaluate.n=null",
        "evaluate.full=true", "evaluate.steps=null", "evaluate.epochs=3",
    )  # fmt: skip
    assert changed.evaluation == {"epochs": 3}
