"""Invalid specs: exit status 2 and messages with file, line and key, without a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.command import run_flexhpc

HEAD = "name: x\nfixed:\n"
GOOD = {
    "data": "{source: digits}",
    "model": "{family: mlp, width: 8}",
    "training": "{optimizer: adam, epochs: 500}",
    "search": "{policy: bisection}",
}


def spec(rest: str = "", **sections: str) -> str:
    """Return a valid spec with replaced sections; data, model, training, search: lines 3 to 6."""
    lines = "".join(f"  {name}: {sections.get(name, text)}\n" for name, text in GOOD.items())
    return HEAD + lines + rest


BAD = {
    "no name": ("fixed: {}\n", ":1: name: is required"),
    "name is a number": (spec().replace("name: x", "name: 3"), ":1: name: must be text, not 3; quote it"),
    "unknown key at the top level": (spec("grdi: {}\n"), ":7: grdi: unknown key; use one of seed, name, fixed, grid, zip, tune, evaluate, record, compare; did you mean grid?"),
    "duplicate key": (spec("name: y\n"), ":7: name: duplicate key (first defined on line 1)"),
    "duplicate nested key": (spec(model="{family: mlp, width: 8, width: x}"), ":4: fixed.model.width: duplicate key (first defined on line 4)"),
    "seed in fixed": (spec().replace("fixed:\n", "fixed:\n  seed: 3\n"), ":3: fixed.seed: belongs at the top level"),
    "unknown section": (spec().replace("fixed:\n", "fixed:\n  modl: {}\n"), ":3: fixed.modl"),
    "section is a list": (spec(model="[1]"), ":4: fixed.model: must be a mapping"),
    "fixed is text": ("name: x\nfixed: hello\n", ":2: fixed: must be a mapping"),
    "seed is negative": (spec("seed: -1\n"), ":7: seed: must be at least 0, not -1"),
    "seed is a fraction": (spec("grid:\n  seed: [0, 1.5]\n"), ":8: seed: must be a whole number"),
    "unknown source": (spec(data="{source: minst}"), ":3: data.source: \"minst\" is not one of"),
    "root of digits": (spec(data="{source: digits, root: /x}"), ":3: data.root: has no effect"),
    "folder without root": (spec(data="{source: image_folder}"), ":3: data.root: is required"),
    "n_max beyond data": (spec(data="{source: digits, n_max: 9999}"), ":3: data.n_max: 9999 is more"),
    "start beyond data": (spec(search="{policy: growth, start: 9999}"), ":6: search.start: 9999 is more than the 1797"),
    "start beyond n_max": (spec(data="{source: mnist, n_max: 90}", search="{start: 99}"), ":6: search.start: must be at most data.n_max (90), not 99"),
    "no model": ("name: x\nfixed:\n  data: {source: digits}\n", ":2: model.family: is required"),
    "corrupted labels without corruption": (spec(data="{source: digits, labels: corrupted}"), ":3: data.corruption: is required"),
    "corruption without corrupted labels": (spec(data="{source: digits, corruption: 0.2}"), ":3: data.corruption: has no effect"),
    "random merge without classes": (spec(data="{source: digits, merge: random}"), ":3: data.classes: is required"),
    "merge of random labels": (spec(data="{source: digits, labels: random, merge: random, classes: 2}"), ":3: data.merge: has no effect"),
    "classes without merge": (spec(data="{source: digits, classes: 5}"), ":3: data.classes: has no effect without merge"),
    "coarse with classes": (spec(data="{source: cifar100, merge: coarse, classes: 5}"), ":3: data.classes: has no effect"),
    "coarse labels of digits": (spec(data="{source: digits, merge: coarse}"), ":3: data.merge: digits has no super-classes"),
    "merge into more classes": (spec(data="{source: digits, merge: random, classes: 11}"), ":3: data.classes: 11 is more"),
    "short class map": (spec(data="{source: digits, class_map: [0, 1]}"), ":3: data.class_map: must have one entry for each of the 10"),
    "class map with a gap": (spec(data="{source: mnist, class_map: [0, 2]}"), ":3: data.class_map: must contain the classes 0, 1"),
    "class map and merge": (spec(data="{source: mnist, class_map: [0, 1], classes: 2, merge: random}"), ":3: data.class_map: cannot be combined with merge or classes"),
    "permuted synthetic inputs": (spec(data="{source: gaussian, inputs: permuted}"), ":3: data.inputs: has no effect"),
    "side of a table": (spec(data="{source: adult, side: 8}"), ":3: data.side: has no effect"),
    "target as input": (spec(data="{source: table, path: x.csv, target: y, categorical: [y]}"), ":3: data.categorical: contains the target"),
    "categorical column dropped": (spec(data="{source: table, path: x.csv, target: y, categorical: [a], drop: [a]}"), ":3: data.drop: contains a"),
    "empty test set": (spec(data="{source: digits, test_fraction: 0.0001}"), ":3: data.test_fraction: holds out less than one"),
    "table with cnn": (spec(data="{source: covtype}", model="{family: cnn, width: 4}"), ":4: model.family: cnn requires images"),
    "width and match_params": (spec(model="{family: mlp, width: 8, match_params: 900}"), ":4: model.match_params: cannot be combined with width"),
    "scale without scaling": (spec(model="{family: mlp, width: 8, scale: 2}"), ":4: model.scaling: is required with scale;"),
    "scaling without scale": (spec(model="{family: mlp, width: 8, scaling: width}"), ":4: model.scale: is required with scaling;"),
    "scaling and match_params": (spec(model="{family: mlp, match_params: 900, scaling: width, scale: 2}"), ":4: model.scaling: cannot be combined with match_params"),
    "vit_shape scaling of mlp": (spec(model="{family: mlp, width: 8, scaling: vit_shape, scale: 2}"), ":4: model.scaling: vit_shape is for vit only"),
    "compound scaling of vectors": (spec(data="{source: gaussian}", model="{family: mlp, width: 8, scaling: compound, scale: 2}"), ":4: model.scaling: compound also resizes images"),
    "even kernel": (spec(model="{family: cnn, width: 8, kernel: 4}"), ":4: model.kernel: must be odd, not 4; use 5"),
    "two reparameterizations": (spec(model="{family: mlp, width: 8, subspace: {dims: 9}, low_rank: {rank: 2}}"), ":4: model.low_rank: cannot be combined with subspace"),
    "subspace without dims": (spec(model="{family: mlp, width: 8, subspace: {projection: dense}}"), ":4: model.subspace.dims: is required"),
    "muon with subspace": (spec(model="{family: mlp, width: 8, subspace: {dims: 9}}", training="{optimizer: muon}"), ":5: training.optimizer: requires weight matrices"),
    "three budgets": (spec(training="{optimizer: sgd, epochs: 5, gradient_evaluations: 9, until: convergence}"), ":5: training.until: cannot be combined with epochs"),
    "unknown key with the name of a type": (spec(model="{family: mlp, width: 8, int: 3}"), ":4: model.int: unknown key"),
    "list of learning rates": (spec(training="{optimizer: sgd, learning_rate: [0.1, 0.2]}"), ":5: training.learning_rate: unknown key; use one of"),
    "synonym of a key": (spec(training="{optimizer: sgd, learning_rate: 0.1}"), "; did you mean lr?\n"),
    "list under fixed": (spec(model="{family: mlp, width: [8, 16]}"), ":4: model.width: must be a whole number, not [8, 16]; to sweep this key, list its values under grid"),
    "tabs": ("name: x\nfixed:\n\tseed: 3\n", "cannot start any token; indent with spaces instead of tabs"),
    "steps is text": (spec(training="{optimizer: sgd, steps: x}"), ':5: training.steps: must be a whole number, not "x"\n'),
    "growth is text": (spec(search="{policy: growth, growth: x}"), ':6: search.growth: must be a number, not "x"\n'),
    "decision without seeds": (spec("grid:\n  model.width: [4, 8]\ncompare: {by: model.width, decide: {}}\n"), ":9: compare.decide: requires two or more seeds in grid"),
    "decision with one seed": (spec("grid:\n  model.width: [4, 8]\n  seed: [0]\ncompare: {by: model.width, decide: {}}\n"), ":10: compare.decide: requires two"),
    "fewer seeds than listed": (spec("grid:\n  model.width: [4, 8]\n  seed: [0, 1, 2]\ncompare: {by: model.width, decide: {max_seeds: 2}}\n"), ":10: compare.decide.max_seeds: must be at least the number of seeds in grid (3)"),
    "decision between seeds": (spec("grid:\n  seed: [0, 1, 2]\ncompare: {by: seed, decide: {}}\n"), ":9: compare.decide: requires two"),
    "comparison without pairs": (spec("zip:\n  - {model.width: [4, 8], data.labels: [original, random]}\ngrid:\n  seed: [0, 1]\ncompare: {by: model.width, decide: {}}\n"), ":11: compare.by: model.width gives no pairs, because no other value has the same data.labels as 4; move data.labels from zip to grid\n"),
    "sizes in common with no other value": (spec("zip:\n  - {model.width: [4, 8, 9, 12], model.activation: [relu, relu, tanh, tanh]}\ngrid:\n  seed: [0, 1]\ncompare: {by: model.activation, decide: {}}\n"), ":11: compare.by: model.activation gives no pairs, because no other value has the same model.width as relu; move"),
    "margin of a decision": (spec("grid:\n  seed: [0, 1]\ncompare: {by: seed, decide: {margin: 2}}\n"), ":9: compare.decide.margin: must be below 1, not 2"),
    "repeated comparison": (spec("grid:\n  model.width: [4, 8]\n  seed: [0, 1]\ncompare:\n  - {by: model.width}\n  - {by: model.width, baseline: 4, decide: {}}\n"), ":12: compare.by: repeats the comparison of an earlier entry; remove one of them"),
    "comparison without by": (spec("compare:\n  - {baseline: 3}\n"), ":8: compare.by: is required\n"),
    "tuned values in descending order": (spec(training="{optimizer: sgd, lr: {tune: [0.2, 0.1]}}"), ":5: training.lr: tune takes ascending numbers"),
    "one tuned value": (spec(training="{optimizer: sgd, lr: {tune: [0.2]}}"), ":5: training.lr: tune takes ascending numbers"),
    "tuned value is zero": (spec(training="{optimizer: sgd, lr: {tune: [0, 0.2]}}"), ":5: training.lr: tune takes ascending numbers"),
    "tuned values are text": (spec(training="{optimizer: sgd, lr: {tune: [low, high]}}"), ":5: training.lr: tune takes ascending numbers"),
    "key next to tune": (spec(training="{optimizer: sgd, lr: {tune: [0.1, 0.2], steps: 3}}"), ":5: training.lr: tune takes ascending numbers"),
    "tuned value out of range": (spec(training="{optimizer: sgd, momentum: {tune: [0.5, 1.5]}}"), ":5: training.momentum: must be below 1"),
    "tuned value is a fraction": (spec(training="{optimizer: sgd, batch_size: {tune: [8, 16.5]}}"), ":5: training.batch_size: tune takes whole numbers"),
    "tuned budget": (spec(training="{optimizer: sgd, epochs: {tune: [10, 20]}}"), ":5: training.epochs: cannot be tuned"),
    "tuned width": (spec(model="{family: mlp, width: {tune: [10, 20]}}"), ":4: model.width: cannot be tuned"),
    "tuned data": (spec(data="{source: digits, n_max: {tune: [10, 20]}}"), ":3: data.n_max: cannot be tuned"),
    "tuned with bisection": (spec(training="{optimizer: sgd, lr: {tune: [0.1, 0.2]}}", search="{policy: bisection}"), ":5: training.lr: cannot be tuned with search.policy: bisection; use bayes"),
    "tuned with eps": (spec(training="{optimizer: sgd, lr: {tune: [0.1, 0.2]}}", search="{policy: bayes, eps: [0.1]}"), ":5: training.lr: cannot be tuned with search.eps"),
    "tuned key without section": (spec() + "tune: {lr: [0.1, 0.2]}\n", ":7: tune.lr: must be the dotted path of a key in fixed"),
    "tuned and swept": (spec() + "tune: {training.lr: [0.1, 0.2]}\ngrid: {training.lr: [0.1, 0.2]}\n", ":8: training.lr: is already set by training.lr on line 7"),
    "too many arms": (spec(training="{optimizer: sgd, lr: {tune: [1e-6, 1]}, weight_decay: {tune: [1e-6, 1]}}"), ":5: training.lr: 169 combinations of tuned values; use at most 64"),
    "mup with vit": (spec(model="{family: vit, width: 12, init: mup}"), ":4: model.init: mup is implemented for mlp and cnn only"),
    "mup with muon": (spec(model="{family: mlp, width: 12, init: mup}", training="{optimizer: muon}"), ":4: model.init: mup is not implemented for training.optimizer: muon; use one of the optimizers sgd, gd, adam, adamw"),
    "mup with subspace": (spec(model="{family: mlp, width: 12, init: mup, subspace: {dims: 5}}"), ":4: model.init: mup sets a learning rate per layer"),
    "base_width without mup": (spec(model="{family: mlp, width: 12, init: he, base_width: 5}"), ":4: model.base_width: has no effect without init: mup"),
    "gain of linear": (spec(model="{family: linear, gain: 2}"), ":4: model.gain: has no effect with family: linear"),
    "patience and share": (spec(training="{optimizer: sgd, gates: {plateau: {patience: 9, share: 0.5}}}"), ":5: training.gates.plateau.share: has no effect with patience"),
    "pixel standardisation of vectors": (spec(data="{source: gaussian, standardise: pixel}", model="{family: linear}"), ":3: data.standardise: pixel is for images only"),
    "convergence without plateau": (spec(training="{optimizer: sgd, until: convergence, gates: {plateau: off}}"), ":5: training.until: convergence requires the plateau gate"),
    "schedule with extend": (spec(training="{optimizer: sgd, epochs: 9, unconverged: extend, schedule: wsd}"), ":5: training.unconverged: extend cannot be combined with schedule: wsd"),
    "until with extend": (spec(training="{optimizer: sgd, until: convergence, unconverged: extend}"), ":5: training.unconverged: has no effect with until"),
    "saturation with cosine": (spec(training="{optimizer: sgd, until: saturation, schedule: cosine}"), ":5: training.until: saturation cannot be combined with schedule: cosine; use wsd"),
    "saturation with extend": (spec(training="{optimizer: sgd, until: saturation, unconverged: extend}"), ":5: training.until: saturation cannot be combined with unconverged: extend"),
    "saturation with growth": (spec(training="{optimizer: sgd, until: saturation}", search="{policy: growth}"), ":5: training.until: saturation cannot be combined with search.policy: growth; use bayes"),
    "saturation with eps": (spec(training="{optimizer: sgd, until: saturation}", search="{policy: bayes, eps: [0.1]}"), ":5: training.until: saturation cannot be combined with search.eps"),
    "no budget with growth": (spec(training="{optimizer: sgd}", search="{policy: growth}"), ":5: training.steps: a budget, such as steps: 1000, is required with search.policy: growth"),
    "no budget with cosine": (spec(training="{optimizer: sgd, schedule: cosine}"), ":5: training.steps: a budget, such as steps: 1000, is required with schedule: cosine"),
    "small max_budget": (spec(training="{optimizer: sgd, until: saturation, steps: 90, max_budget: 100}"), ":5: training.max_budget: must be at least twice the first budget (steps: 90), not 100"),
    "max_budget without saturation": (spec(training="{optimizer: sgd, steps: 9, max_budget: 100}"), ":5: training.max_budget: has no effect without until: saturation"),
    "warmup longer than the first budget": (spec(training="{optimizer: sgd, until: saturation, warmup: 1000}"), ":5: training.warmup: must be below steps (1000)"),
    "saturation with two budgets": (spec(training="{optimizer: sgd, until: saturation, steps: 9, epochs: 9}"), ":5: training.steps: cannot be combined with epochs"),
    "extend_to without extend": (spec(training="{optimizer: sgd, extend_to: 3.0}"), ":5: training.extend_to: has no effect"),
    "warmup longer than the budget": (spec(training="{optimizer: sgd, steps: 9, warmup: 9}"), ":5: training.warmup: must be below steps (9)"),
    "curvature without mode": (spec(training="{optimizer: sgd, gates: {curvature: {products: 9}}}"), ":5: training.gates.curvature.products: has no effect with curvature: off"),
    "invalid estimand": (spec(search="{policy: bisection, estimand: n100}"), ":6: search.estimand: must match ^n[1-9][0-9]?$, not \"n100\""),
    "duplicate eps": (spec(search="{policy: bisection, eps: [0.1, 0.1000001]}"), ":6: search.eps: contains two values that are equal when rounded"),
    "eps with growth": (spec(search="{policy: growth, eps: [0.1]}"), ":6: search.eps: has no effect"),
    "evaluation of random labels": (spec("evaluate: {full: true}\n", data="{source: mnist, labels: random}"), ":7: evaluate.full: has no effect"),
    "evaluation of random labels by n": (spec("evaluate:\n  steps: 9\n  n: 5\n", data="{source: mnist, labels: random}"), ":9: evaluate.n: has no effect"),
    "two sizes of an evaluation": (spec("evaluate:\n  full: true\n  n: 5\n", data="{source: mnist}"), ":9: evaluate.n: cannot be combined with full; remove one of them"),
    "two budgets of an evaluation": (spec("evaluate: {n: 5, steps: 9, epochs: 9}\n", data="{source: mnist}"), ":7: evaluate.epochs: cannot be combined with steps; remove one of them"),
    "budget without evaluation": (spec("evaluate:\n  steps: 9\n", data="{source: mnist}"), ":8: evaluate.steps: has no effect without n or full: true"),
    "budget with full: false": (spec("evaluate: {full: false, epochs: 9}\n", data="{source: mnist}"), ":7: evaluate.epochs: has no effect without n or full: true"),
    "evaluation on too many samples": (spec("evaluate:\n  n: 60001\n", data="{source: mnist}"), ":8: evaluate.n: 60001 is more than the 60000 training samples of mnist"),
    "evaluation on held-out samples": (spec("evaluate: {n: 1600}\n", data="{source: digits, test_fraction: 0.2}"), ":7: evaluate.n: 1600 is more than the 1438 training samples of digits"),
    "evaluation without test set": (spec("evaluate: {n: 5}\n"), ":7: evaluate.n: digits has no test set; give data.test_fraction"),
    "warmup longer than the evaluation": (spec("evaluate: {n: 5, steps: 9}\n", data="{source: mnist}", training="{optimizer: sgd, warmup: 9}"), ":7: evaluate.steps: must be above training.warmup (9 updates)"),
    "unknown family": (spec(model="{family: mpl, width: 3}"), ":4: model.family: \"mpl\""),
    "family is a list": (spec(model="{family: [mlp]}"), ":4: model.family"),
    "no width": (spec(model="{family: mlp}"), ":4: model.width: is required"),
    "width is a fraction": (spec(model="{family: mlp, width: 8.5}"), ":4: model.width: must be a whole"),
    "width is a boolean": (spec(model="{family: mlp, width: true}"), ":4: model.width: must be a whole"),
    "heads of mlp": (spec(model="{family: mlp, width: 8, heads: 2}"), ":4: model.heads: has no effect"),
    "misspelled key": (spec(model="{family: mlp, widht: 8}"), "did you mean width?"),
    "unknown activation": (spec(model="{family: mlp, width: 8, activation: rleu}"), "mean relu?"),
    "width not divisible by heads": (spec(model="{family: vit, width: 10, heads: 3, patch: 4}"), ":4: model.width: 10 is not a multiple"),
    "patch does not divide image": (spec(model="{family: vit, width: 12, patch: 3}"), ":4: model.patch: 3 does not divide"),
    "odd width of resnet": (spec(model="{family: resnet, width: 9}"), ":4: model.width: must be a multiple of 2"),
    "shards with batch norm": (spec(model="{family: resnet, width: 8}", training="{optimizer: sgd, shards: 2}"), ":5: training.shards: cannot be combined with batch normalisation"),
    "invalid timm name": (spec(model="{family: 'timm:a b'}"), ":4: model.family: must match ^timm:[A-Za-z0-9_.]+$, not \"timm:a b\""),
    "unknown optimizer and invalid rate": (spec(training="{optimizer: adma, lr: -1}"), ":5: training.lr: must be above 0"),
    "momentum with adam": (spec(training="{optimizer: adam, momentum: 0.9}"), ":5: training.momentum: has no effect"),
    "lr is infinite": (spec(training="{optimizer: adam, lr: .inf}"), ":5: training.lr: must be a finite"),
    "lr is text": (spec(training="{optimizer: adam, lr: '1e-3'}"), ":5: training.lr: must be a number"),
    "two budgets": (spec(training="{optimizer: adam, epochs: 3, steps: 5}"), ":5: training.steps: cannot be combined with epochs"),
    "unknown gate": (spec(training="{optimizer: adam, gates: {plato: off}}"), "mean plateau?"),
    "invalid gate mode": (spec(training="{optimizer: adam, gates: {plateau: on}}"), ":5: training.gates.plateau.mode"),
    "patience longer than the budget": (spec(training="{optimizer: adam, epochs: 10, gates: {plateau: {patience: 20}}}"), "must be below the budget (10 epochs), not 20"),
    "unknown policy": (spec(search="{policy: bisect}"), ":6: search.policy: \"bisect\""),
    "tolerance with growth": (spec(search="{policy: growth, tolerance: 0.1}"), ":6: search.tolerance: has no effect"),
    "unknown key in grid": (spec("grid:\n  model.widht: [1]\n"), ":8: model.widht: unknown key"),
    "grid key without section": (spec("grid:\n  foo.bar: [1]\n"), ":8: foo.bar: is not a key of fixed"),
    "grid is a list": (spec("grid: [1]\n"), ":7: grid: must be a mapping"),
    "grid value is no list": (spec("grid:\n  model.width: 8\n"), ":8: model.width: must be a list"),
    "empty grid value": (spec("grid:\n  model.width: []\n"), ":8: model.width: must not be empty"),
    "duplicate grid value": (spec("grid:\n  model.width: [8, 8]\n"), ":8: model.width: contains a value twice"),
    "invalid swept value": (spec("grid:\n  model.width:\n    - 8\n    - x\n"), ":10: model.width: must be a whole"),
    "zip is a mapping": (spec("zip: {}\n"), ":7: zip: must be a list"),
    "zip of unequal lengths": (spec("zip:\n  - {model.width: [1, 2], model.depth: [1]}\n"), ":8: zip.0: keys that are swept together need lists of equal length (model.width: 2, model.depth: 1)"),
    "key in grid and zip": (spec("grid: {model.width: [1]}\nzip:\n  - {model.width: [2]}\n"), "is already set by model.width on line"),
    "section and its key in grid": (spec("grid:\n  model.width: [1]\n  model: [{family: linear}]\n"), "is already set by model.width on line"),
    "two consecutive dots": (spec("grid:\n  model..width: [1]\n"), "must be the dotted path of a key"),
    "duplicate id": (spec("grid:\n  data.root: [a, b]\n", data="{source: mnist}"), ":8: data.root: points that differ only in this key have the same id"),
    "fixed key of a swept section": (spec("grid:\n  model: [{family: linear}]\n"), ":4: model.width: has no effect"),
    "swept section is text": (spec("grid:\n  search: [growth]\n").replace("  search: {policy: bisection}\n", ""), "must be a mapping of keys"),
    "patience of a disabled gate": (spec(training="{optimizer: adam, gates: {plateau: {mode: off, patience: 5}}}"), "has no effect with plateau: off"),
    "checkpoint of timm": (spec(model="{family: 'timm:resnet18', kwargs: {checkpoint_path: /etc/passwd}}"), ":4: model.kwargs.checkpoint_path: loads pretrained weights"),
    "pretrained weights": (spec(model="{family: 'timm:resnet18', kwargs: {pretrained: true}}"), ":4: model.kwargs.pretrained: loads pretrained weights"),
    "infinite kwargs": (spec(model="{family: 'timm:resnet18', kwargs: {drop_rate: .nan}}"), ":4: model.kwargs.drop_rate: must be a finite"),
    "edited frozen section": (spec("frozen: 5\n"), ":7: frozen: is written by flexhpc and must not be edited"),
    "not yaml": ("name: [\n", "bad.yaml:1: not valid YAML"),
}  # fmt: skip


def rejected(folder: Path, *arguments: str) -> list[str]:
    """Return the error messages of a command that exits with status 2."""
    done = run_flexhpc(folder, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def validation_errors(folder: Path, text: str, *options: str) -> list[str]:
    (folder / "bad.yaml").write_text(text)
    return rejected(folder, "validate", "bad.yaml", *options)


@pytest.mark.parametrize("kind", BAD)
def test_invalid_spec_is_rejected(kind: str, tmp_path: Path) -> None:
    text, expected = BAD[kind]
    lines = validation_errors(tmp_path, text)
    assert expected in "".join(f"{line}\n" for line in lines)
    assert all(re.match(r"bad\.yaml:\d+: ", line) for line in lines), lines
    single = ("synonym of a key", "steps is text", "growth is text", "no width")
    if kind in (*single, "duplicate nested key"):
        assert len(lines) == 1, "one error gives one message"


def test_all_errors_are_reported_at_once_in_order_of_lines(tmp_path: Path) -> None:
    text = spec(
        "grid:\n  model.depth: [1, -1]\nextra: 1\n",
        data="{source: digits, labels: maybe}",
        model="{family: mlp, width: x, heads: 3}",
        training="{optimizer: adam, lr: -1, epochs: 1, steps: 1}",
        search="{policy: growth, growth: 0.5, tolerance: 1}",
    )
    numbers = [int(line.split(":")[1]) for line in validation_errors(tmp_path, text)]
    assert numbers == [3, 4, 4, 5, 5, 6, 6, 8, 9]


def test_invalid_overrides_are_rejected(tmp_path: Path) -> None:
    expected = {
        "model.widht=3": "--set model.widht=3: model.widht: ",
        "width": "must have the form key=value",
        "=3": "must have the form key=value",
        "model.width=[1": "not valid YAML",
        "model.width=0": "--set model.width=0: model.width: must be at least 1",
        "search={policy: bayes, start: 0}": "start: 0}: search.start: must be at least 1",
        "name=a/b": "must consist of letters",
    }
    for override, message in expected.items():
        assert message in "\n".join(validation_errors(tmp_path, spec(), "--set", override))
    overrides = ["--set", "foo", "--set", "model.width=[", "--set", "=3"]
    assert len(validation_errors(tmp_path, spec(), *overrides)) == 3, "all errors at once"


def test_invalid_profile_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("cluster: pbs\nworkers: 0\nwrokers: 2\n")
    (tmp_path / "good.yaml").write_text(spec())
    lines = rejected(tmp_path, "plan", "good.yaml", "--profile", "p.yaml")
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]
