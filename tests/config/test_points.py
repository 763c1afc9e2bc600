from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from flexhpc.config import checked, freeze, load, request_hash
from flexhpc.config.identity import canonical_json
from flexhpc.config.sections.model import Mlp
from flexhpc.config.variants import DEFAULT_VARIANT, choice
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

NO_MODEL = BASE.replace("  model: {family: mlp, width: 8}\n", "")


def points(tmp_path: Path, text: str, *overrides: str) -> list:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return checked(path, overrides)[1]


def frozen_again(tmp_path: Path, spec: str | Path, *overrides: str) -> tuple[list, list]:
    """Return the points of a spec and those of its frozen form; both make the same request."""
    path, frozen = tmp_path / "spec.yaml", tmp_path / "frozen.yaml"
    if isinstance(spec, Path):
        path = spec
    else:
        path.write_text(spec)
    sweep, before = checked(path, overrides)
    frozen.write_text(freeze(sweep, before))
    again, after = checked(frozen)
    assert request_hash(again) == request_hash(sweep)
    return before, after


def test_grid_is_a_product_and_zip_moves_together(tmp_path: Path) -> None:
    text = BASE + (
        "grid:\n  model.width: [2, 4]\n  seed: [0, 1]\n"
        "zip:\n  - {training.optimizer: [sgd, adam], training.lr: [0.05, 0.001]}\n"
    )
    found = points(tmp_path, text)
    assert len(found) == 8
    assert [p.index for p in found] == list(range(8))
    first = [(p.model.width, p.seed, p.training.optimizer, p.training.lr) for p in found[:3]]
    assert first == [(2, 0, "sgd", 0.05), (2, 0, "adam", 0.001), (2, 1, "sgd", 0.05)]
    assert len({p.id for p in found}) == 8


def test_an_id_does_not_depend_on_how_it_was_asked_for(tmp_path: Path) -> None:
    fixed = points(tmp_path, BASE)[0]
    swept = points(tmp_path, BASE + "grid: {model.width: [4, 8]}\n")[1]
    text = BASE.replace("width: 8", "width: 8, depth: 2, activation: relu")
    spelled = points(tmp_path, text.replace("name: x", "name: y"))[0]
    assert fixed.id == swept.id == spelled.id


def test_an_id_depends_on_what_can_change_the_result(tmp_path: Path) -> None:
    base = points(tmp_path, BASE)[0].id
    for same in (
        "search.tolerance=0.1", "search.max_cost=9", "search.start=9", "search.at_once=3",
        "data.inputs=original", "data.test_fraction=0", "training.label_smoothing=0",
        "training.unconverged=report", "training.gates.gradient.tolerance=0.1",
        "training.gates.curvature=off", "model.subspace=null", "training.gates.curvature=null",
        "data.inputs=null", "training.gates.plateau.patience=null", "training.sam=null",
    ):  # fmt: skip
        assert points(tmp_path, BASE, same)[0].id == base, same
    for change in (
        "seed=8", "data.labels=random", "model.depth=3", "training.lr=0.02", "training.epochs=7",
        "training.precision=fp64", "search.policy=growth", "data.n_max=99",
        "data.inputs=gaussian", "data.test_fraction=0.1", "training.label_smoothing=0.1",
        "training.gates.gradient.tolerance=0.2", "training.gates.curvature=report",
        "training.warmup=5", "training.clip_norm=1.0", "search.eps=[[0.1]]", "search.estimand=n90",
        "model.low_rank.rank=2", "model.quantised.bits=2", "model.init=he", "data.standardise=set",
        "training.lr={tune: [1e-3, 1e-2]}", "training.batches=tail", "model.gain=2.0",
        "training.gates.stability=off", "training.gates.plateau.share=0.3",
    ):  # fmt: skip
        assert points(tmp_path, BASE, change)[0].id != base, change
    growth = ("search.policy=growth", "search.start=9")
    assert points(tmp_path, BASE, *growth)[0].id != points(tmp_path, BASE, growth[0])[0].id


def test_an_id_does_not_depend_on_where_the_data_lies(tmp_path: Path) -> None:
    for source, key in (("mnist", "root"), ("table, target: y, path: /a.csv", "path")):
        text = BASE.replace("source: digits", f"source: {source}")
        ids = {points(tmp_path, text, *o)[0].id for o in ((), (f"data.{key}=/b",))}
        assert len(ids) == 1


def test_an_id_depends_on_the_case_of_a_value(tmp_path: Path) -> None:
    timm = 'model={{"family": "timm:resnet18", "kwargs": {{"global_pool": "{}"}}}}'
    ids = {points(tmp_path, NO_MODEL, timm.format(pool))[0].id for pool in ("avg", "AVG")}
    assert len(ids) == 2


def test_known_id_is_stable(tmp_path: Path) -> None:
    """Changing this id would measure every finished sweep again."""
    assert points(tmp_path, BASE, "search.policy=bisection")[0].id == "5cfb8aeaf997e8fd"
    assert points(tmp_path, BASE)[0].id == "5412cd565fec63d2"


def test_a_frozen_spec_of_another_version_is_refused(tmp_path: Path) -> None:
    frozen_again(tmp_path, BASE)
    frozen = tmp_path / "frozen.yaml"
    newer = frozen.read_text().replace("frozen:\n  version: 1\n", "frozen:\n  version: 2\n")
    frozen.write_text(newer)
    with pytest.raises(InputError, match=r"frozen: unsupported version \(2\)"):
        checked(frozen)


def test_a_tuned_key_makes_arms_of_one_point(tmp_path: Path) -> None:
    (point,) = points(
        tmp_path, BASE, "training.lr={tune: [1e-3, 1e-1]}", "model.gain={tune: [1, 2]}"
    )
    assert len(point.arms) == 10
    assert [a.values["training.lr"] for a in point.arms[:5]] == [1e-3, 3.2e-3, 1e-2, 3.2e-2, 0.1]
    for number, arm in enumerate(point.arms):
        at = point.at(number)
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
    apart = [b[0] - a[0] for a, b in itertools.pairwise(point.coordinates[0:5])]
    assert max(apart) < 1.1


def test_each_point_of_a_grid_tunes_what_it_says(tmp_path: Path) -> None:
    text = BASE + "grid: {training.lr: [1e-3, {tune: [1e-3, 1e-2]}]}\n"
    (plain, tuned), again = frozen_again(tmp_path, text)
    assert (len(plain.arms), len(tuned.arms)) == (1, 3)
    assert plain.arms[0].values == {}
    assert [p.id for p in again] == [plain.id, tuned.id]


def test_overrides_replace_axes(tmp_path: Path) -> None:
    text = BASE + "grid: {model.width: [2, 4], seed: [0, 1]}\n"
    assert len(points(tmp_path, text, "seed=5")) == 2
    assert {p.seed for p in points(tmp_path, text, "seed=5")} == {5}
    widths = points(tmp_path, text, "model.width=[1,2,3]", "seed=0")
    assert [p.model.width for p in widths] == [1, 2, 3]
    zipped = BASE + "zip:\n  - {model.width: [2, 4], model.depth: [1, 2]}\n"
    assert [p.model.depth for p in points(tmp_path, zipped, "model.depth=3")] == [3, 3]
    assert [p.model.depth for p in points(tmp_path, zipped, "model.depth=[3,4]")] == [3, 4]
    assert len(points(tmp_path, zipped, "model.depth=3", "model.width=3")) == 1


def test_null_leaves_a_key_out(tmp_path: Path) -> None:
    text = BASE + "zip:\n  - {training.optimizer: [sgd, adam], training.momentum: [0.5, null]}\n"
    sgd, adam = points(tmp_path, text)
    assert sgd.training.momentum == 0.5
    assert not hasattr(adam.training, "momentum")
    full = BASE.replace("width: 8", "width: 8, subspace: {dims: 5, projection: sparse}")
    (dense,) = points(tmp_path, full, "model.subspace.projection=null")
    assert dense.model.subspace.projection == "dense"


def test_a_whole_section_can_be_swept(tmp_path: Path) -> None:
    text = NO_MODEL + "grid:\n  model: [{family: linear}, {family: cnn, width: 4}]\n"
    assert [p.model.family for p in points(tmp_path, text)] == ["linear", "cnn"]


def test_timm_keyword_arguments_can_be_swept(tmp_path: Path) -> None:
    text = BASE.replace("{family: mlp, width: 8}", "{family: 'timm:resnet18'}")
    found = points(tmp_path, text + "grid: {model.kwargs.stem_width: [8, 16]}\n")
    assert [p.model.kwargs for p in found] == [{"stem_width": 8}, {"stem_width": 16}]


def test_a_frozen_spec_gives_the_same_points_whatever_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = NO_MODEL + (
        "grid:\n  model: [{family: mlp, width: 3}, {family: linear}]\n"
        "zip:\n  - {training.steps: [null, 9], training.gates: [{plateau: off}, null]}\n"
    )
    before, after = frozen_again(tmp_path, text)
    assert [p.id for p in after] == [p.id for p in before]
    path, frozen = tmp_path / "spec.yaml", tmp_path / "frozen.yaml"
    monkeypatch.setattr(Mlp.model_fields["depth"], "default", 77)
    Mlp.model_rebuild(force=True)
    choice.cache_clear()
    try:
        assert [p.canonical for p in checked(frozen)[1]] == [p.canonical for p in before]
        assert any('"depth":77' in p.canonical for p in checked(path)[1])
    finally:
        monkeypatch.undo()
        Mlp.model_rebuild(force=True)
        choice.cache_clear()


@pytest.mark.parametrize("change", ["training.epochs=3", "training.steps=3", "model.depth=0"])
def test_a_frozen_spec_is_never_refused_for_its_own_defaults(tmp_path: Path, change: str) -> None:
    before, after = frozen_again(tmp_path, BASE, change)
    assert after == before


def test_a_frozen_spec_keeps_the_variants_it_was_given_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = frozen_again(tmp_path, "name: x\nfixed: {model: {family: linear}}\n")
    assert (before[0].search.policy, before[0].training.epochs) == ("bayes", 500)
    monkeypatch.setitem(DEFAULT_VARIANT, "search", "growth")
    monkeypatch.setitem(DEFAULT_VARIANT, "training", "sgd")
    assert checked(tmp_path / "spec.yaml")[1][0].search.policy == "growth"
    assert checked(tmp_path / "frozen.yaml")[1] == before


@pytest.mark.parametrize("text", ["1e3", "0x10", "null", "true", "~", ".inf", "5e2", "01", "a: b"])
def test_text_that_looks_like_something_else_survives_freezing(tmp_path: Path, text: str) -> None:
    spec = f"name: x\nfixed:\n  data: {{source: image_folder, root: '{text}'}}\n"
    before, after = frozen_again(tmp_path, spec + "  model: {family: linear}\n")
    assert before == after
    assert after[0].data.root == text


def test_freezing_keeps_the_order_of_points(tmp_path: Path) -> None:
    text = BASE + (
        "zip:\n  - {training.lr: [0.1, 0.2], training.momentum: [0.3, 0.4]}\n"
        "  - {model.width: [2, 3]}\n"
    )
    before, after = frozen_again(tmp_path, text)
    assert [p.id for p in before] == [p.id for p in after]


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    first = {"a": {"b": [{"c": 1.5, "d": "é"}], "e": None}, "f": 2}
    assert canonical_json(first) == canonical_json(
        {"f": 2, "a": {"e": None, "b": [{"d": "é", "c": 1.5}]}}
    )


SWEEPS = sorted((REPOSITORY / "sweeps").rglob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_frozen_sweep_asks_for_the_same_points(path: Path, tmp_path: Path) -> None:
    before, after = frozen_again(tmp_path, path)
    assert [p.id for p in after] == [p.id for p in before]
    assert [p.evaluate for p in after] == [p.evaluate for p in before]


def test_defaults_of_a_frozen_part_are_for_those_that_have_it(tmp_path: Path) -> None:
    text = "name: x\nseed: 7\nfixed:\n  data: {source: digits}\n" + (
        "grid:\n"
        "  model: [{family: mlp, width: 8}, {family: mlp, width: 8, subspace: {dims: 5}}]\n"
        "  training:\n"
        "    - {optimizer: sgd}\n"
        "    - {optimizer: sgd, sam: {}}\n"
        "    - {optimizer: sgd, gradient_evaluations: 9000}\n"
        "    - {optimizer: sgd, until: convergence}\n"
        "    - {optimizer: sgd, steps: 10}\n"
    )
    before, after = frozen_again(tmp_path, text)
    assert len(before) == 10
    assert [p.id for p in after] == [p.id for p in before]


def test_a_key_of_a_gate_keeps_the_mode_that_its_short_form_gave(tmp_path: Path) -> None:
    text = BASE.replace("lr: 1e-2", "gates: {plateau: reject, curvature: report}")
    (point,) = points(tmp_path, text, "training.gates.plateau.patience=20")
    assert point.training.gates.plateau.mode == "reject"
    assert point.training.gates.plateau.patience == 20
    swept = points(tmp_path, text + "grid:\n  training.gates.curvature.products: [5, 9]\n")
    gates = [p.training.gates.curvature for p in swept]
    assert [(g.mode, g.products) for g in gates] == [("report", 5), ("report", 9)]


def test_changing_a_frozen_spec_is_checked_like_any_other(tmp_path: Path) -> None:
    frozen_again(tmp_path, BASE.replace("lr: 1e-2", "lr: 1e-2, epochs: 5"))
    frozen = tmp_path / "frozen.yaml"
    for override in (
        "training.steps=5", "data.corruption=0.5", "model.width=null", "data.merge=random"
    ):  # fmt: skip
        with pytest.raises(InputError):
            checked(frozen, [override])
    assert checked(frozen, ["training.lr=0.5"])[1][0].training.lr == 0.5


def test_an_evaluation_is_no_part_of_an_id_and_survives_freezing(tmp_path: Path) -> None:
    text = BASE.replace("source: digits", "source: mnist")
    (plain,) = points(tmp_path, text)
    assert (plain.evaluate, plain.evaluation) == (None, None)
    asked = {
        "full: true": {},
        "full: true, epochs: 9": {"epochs": 9},
        "n: 5": {"n": 5},
        "n: 5, full: false, steps: 7": {"n": 5, "steps": 7},
    }
    requests = set()
    for spelled, evaluation in asked.items():
        before, after = frozen_again(tmp_path, f"{text}evaluate: {{{spelled}}}\n")
        assert [p.id for p in before] == [plain.id]
        assert before[0].evaluation == after[0].evaluation == evaluation
        assert before[0].evaluate == after[0].evaluate
        requests.add(request_hash(load(tmp_path / "spec.yaml")))
    assert len(requests) == len(asked), "another evaluation is another request"
    (changed,) = points(
        tmp_path, f"{text}evaluate: {{n: 5, steps: 7}}\n", "evaluate.n=null",
        "evaluate.full=true", "evaluate.steps=null", "evaluate.epochs=3",
    )  # fmt: skip
    assert changed.evaluation == {"epochs": 3}
