"""Custom models and data sets: import, hashes, time limits and errors."""

from __future__ import annotations

import importlib
import json
import linecache
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flexhpc.config import freeze, load_points
from flexhpc.config.sections.custom import CustomData, CustomModel
from flexhpc.custom import code as custom_code
from flexhpc.custom.code import find_code
from flexhpc.custom.object_hash import object_hash
from flexhpc.custom.time_limit import TimeLimit, time_limit_as_point_error
from flexhpc.data.arrays import array_source
from flexhpc.data.custom import convert_samples
from flexhpc.data.load import load_samples
from flexhpc.errors import InputError, PointError
from flexhpc.launch.prepare import prepare_run, write_run_folder
from flexhpc.models.custom import build_custom
from tests.conftest import Cli
from tests.custom.conftest import (
    DATA,
    LAYERS,
    SPEC,
    assert_failures,
    make_network,
    modification_times,
)
from tests.sweeps import results_by_point


def point_ids(folder: Path, *overrides: str) -> list[str]:
    return [point.id for point in load_points(folder / "custom.yaml", overrides)[1]]


def test_id_depends_on_imported_source_or_version(folder: Path) -> None:
    before, versioned = point_ids(folder), point_ids(folder, "model.version=2")
    (folder / "other.py").write_text("x = 1\n")
    assert point_ids(folder) == before
    (folder / "layers.py").write_text(LAYERS.replace("Tanh", "GELU"))
    edited = point_ids(folder)
    assert not set(edited) & set(before)
    assert point_ids(folder, "model.version=2") == versioned
    assert point_ids(folder, "model.version=3") != versioned
    (folder / "layers.py").write_text(LAYERS)
    assert point_ids(folder) == before
    assert point_ids(folder, "model.kwargs.width=4") == [before[1]]
    (folder / "samples.py").write_text(DATA + "\n")
    assert not set(point_ids(folder)) & set(before)


def write_models(folder: Path, *models: str) -> None:
    """Write the spec with a grid of models instead of widths."""
    spec = SPEC.replace('  model: {family: "nets:Net"}\n', "")
    spec = spec.replace("model.kwargs.width: [2, 4, 8]", f"model: [{', '.join(models)}]")
    (folder / "custom.yaml").write_text(spec)


def test_version_of_one_point_does_not_change_other_ids(folder: Path) -> None:
    plain = "{family: 'nets:Net', kwargs: {width: 2}}"
    write_models(folder, plain, "{family: 'nets:Net', kwargs: {width: 2}, version: 1}")
    frozen = folder / "frozen.yaml"
    frozen.write_text(freeze(*load_points(folder / "custom.yaml")))
    assert [point.id for point in load_points(frozen)[1]] == point_ids(folder)


def test_frozen_spec_keeps_ids_and_folder_of_the_code(folder: Path, tmp_path: Path) -> None:
    frozen = tmp_path / "elsewhere" / "sweep.yaml"
    frozen.parent.mkdir()
    frozen.write_text(freeze(*load_points(folder / "custom.yaml")))
    before = point_ids(folder)
    (folder / "nets.py").write_text("edited")
    points = load_points(frozen)[1]
    assert [point.id for point in points] == before
    assert points[0].model.folder == str(folder)


def test_a_run_of_renamed_code_is_rejected_with_the_name_of_its_module(folder: Path) -> None:
    spec, runs = folder / "custom.yaml", folder / "runs"
    prepared = prepare_run(spec, [], runs)
    write_run_folder(prepared, "launch", None)
    damaged = prepared.run.point_file(prepared.points[0].id)  # may contain probes
    damaged.parent.mkdir(parents=True)
    damaged.touch()
    (folder / "nets.py").rename(folder / "renamed.py")
    message = f"no point in common; nets:Net: no module named nets in {folder} or on"
    with pytest.raises(InputError, match=re.escape(message)):
        prepare_run(spec, ["model.family='renamed:Net'"], runs)


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "no module": ("model.family='nowhere:Net'", "no module named nowhere in "),
        "no name": ("model.family='nets:'", "must have the form module:name, not"),
        "code": ("model={family: 'nets:Net', code: abc}", "code: is set by flexhpc; remove it"),
        "kwargs": ("model.kwargs.depth=.inf", "kwargs.depth: must be a finite number"),
        "Python object": ("model.family='python:Net'", "is an object of another Python process"),
        "optimizer": ("training.optimizer='nets:Net'", "is custom code; use trainer: nets:Net"),
    }.values(),
)  # fmt: skip
def test_invalid_keys_are_rejected(change: str, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_points(folder / "custom.yaml", [change])


def test_modules_are_found_and_hashed_with_their_imports(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "deep" / "inner"
    package.mkdir(parents=True)
    (folder / "deep" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import part\nfrom ..sibling import x\n")
    (package / "part.py").write_text("y = 1\n")
    (folder / "deep" / "sibling.py").write_text("x = 1\n")
    first = find_code("deep.inner:part", folder)
    for file in ("inner/part.py", "sibling.py", "__init__.py"):
        path = folder / "deep" / file
        text = path.read_text()
        path.write_text(text + "z = 2\n")
        assert find_code("deep.inner:part", folder).hash != first.hash, file
        path.write_text(text)
    assert find_code("deep.inner:part", folder) == first
    installed = find_code("torch.nn:Linear", folder)
    assert installed.folder == ""
    assert installed.hash == find_code("torch.nn:Conv2d", None).hash
    assert installed.hash != find_code("numpy:zeros", None).hash
    on_path = folder / "on_the_path"
    on_path.mkdir()
    (on_path / "user_module.py").write_text("import layers\n")
    monkeypatch.syspath_prepend(str(on_path))
    code = find_code("user_module:x", folder)
    assert code.folder == str(on_path)
    (on_path / "layers.py").touch()
    with_import = find_code("user_module:x", folder)
    assert with_import.hash != code.hash
    assert find_code("user_module:x", on_path) == with_import, "as a worker finds it"
    with pytest.raises(LookupError, match=r"no module named deep\.nothing"):
        find_code("deep.nothing:x", folder)


@pytest.mark.sweeps
def test_edited_code_is_measured_again_and_reverted_code_is_not(
    folder: Path, cli: Cli, profile: Path
) -> None:
    sweep = ("sweep", folder / "custom.yaml", "--profile", profile)
    run = folder / "runs" / "custom"
    cli(*sweep)
    first = results_by_point(run)
    assert len(first) == 3
    rows = json.loads(cli("results", "runs/custom", "--format", "json").stdout)
    assert [row["params"] for row in rows] == [68 * width + 3 for width in (2, 4, 8)]
    (folder / "layers.py").write_text(LAYERS.replace("Tanh", "ReLU"))
    assert "nets:Net was edited after this run was started" in cli(*sweep).stdout
    assert not set(first) & set(results_by_point(run))
    (folder / "layers.py").write_text(LAYERS)
    times = modification_times(run)
    cli(*sweep)
    assert results_by_point(run) == first
    assert modification_times(run) == times


NETWORK = """\
import sys, time
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, inputs):
        if self.training:
            {statement}
        return self.head(inputs.flatten(1))
"""
EXITS_IN_TRAINING = NETWORK.format(statement="sys.exit(5)")
BROKEN = {
    "def Net():\n    raise ValueError('no\\nidea')\n": r"raised ValueError: no idea .*:2",
    "import sys\ndef Net():\n    sys.exit(3)\n": "raised SystemExit: 3",
    "1 / 0\n": "importing MODULE raised ZeroDivisionError",
    "def Net(:\n": "importing MODULE raised SyntaxError",
    "x = 1\n": "MODULE has no attribute Net",
    "def Net():\n    return 3\n": "returned a int, not a torch.nn.Module",
    "from torch import nn\ndef Net():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n":
        r"returns outputs of shape \(7,\), not 3 logits",
    "from torch import nn\ndef Net():\n    return nn.Linear(5, 3)\n":
        r"does not accept samples of shape \(1, 8, 8\)",
    EXITS_IN_TRAINING: "SystemExit: 5",
    "import time\ndef Net():\n    time.sleep(100)\n":
        "model.family: MODULE:Net exceeded its time limit",
    NETWORK.format(statement="time.sleep(100)"):
        "MODULE:Net: a forward pass exceeded its time limit",
}  # fmt: skip
"""Source of a module with a network -> message; MODULE is the name of the module."""


def test_time_limit_ends_if_a_forward_pass_exits(folder: Path) -> None:
    """SystemExit in a forward pass skips the forward hooks."""
    (folder / "quits.py").write_text(EXITS_IN_TRAINING)
    code = find_code("quits:Net", folder)
    model = CustomModel(family="quits:Net", seconds=8, folder=code.folder, code=code.hash)
    net = build_custom(model, (64,), 3)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(PointError, match="raised SystemExit: 5"):
        custom_code.call_custom_code("a probe", lambda: net(torch.zeros(2, 64)))
    assert signal.getsignal(signal.SIGALRM) is before


def test_time_limit_is_reentrant() -> None:
    """If the forward pass of a network calls itself, the limit of the outer call applies."""
    limit, before = TimeLimit(30, "x"), signal.getsignal(signal.SIGALRM)
    with time_limit_as_point_error():
        with limit, limit:
            assert signal.getsignal(signal.SIGALRM) is not before
        assert signal.getsignal(signal.SIGALRM) is before
        limit.__enter__()
        limit.__enter__()
        limit.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGALRM) is before
    with (
        pytest.raises(PointError, match="x exceeded its time limit"),
        time_limit_as_point_error(),
        TimeLimit(0.05, "x"),
    ):
        time.sleep(5)
    assert signal.getsignal(signal.SIGALRM) is before


def test_edited_module_is_not_imported_into_the_same_process(folder: Path) -> None:
    """The process can still train points of the imported source."""
    (folder / "once.py").write_text("def x(): return 1\n")
    first = find_code("once:x", folder)
    assert custom_code.import_object("once:x", first, key="k")() == 1
    (folder / "once.py").write_text("def x(): return 2\n")
    assert custom_code.import_object("once:x", first, key="k")() == 1
    with pytest.raises(PointError, match="once was edited after this Python process imported it"):
        custom_code.import_object("once:x", find_code("once:x", folder), key="k")
    (folder / "twice.py").write_text("def x(): return 1\n")
    stale = find_code("twice:x", folder)
    (folder / "twice.py").write_text("def x(): return 2\n")
    with pytest.raises(PointError, match="has changed since the sweep was started"):
        custom_code.import_object("twice:x", stale, key="k")
    pinned = custom_code.Code(folder=stale.folder, hash="")
    assert custom_code.import_object("twice:x", pinned, key="k")() == 2
    current = find_code("twice:x", folder)
    assert custom_code.import_object("twice:x", current, key="k")() == 2


def test_models_are_checked_with_the_classes_of_each_point(folder: Path, cli: Cli) -> None:
    """Both points use one image set; only the first one merges its classes."""
    (folder / "two.py").write_text(
        "from torch import nn\n"
        "def Net(classes):\n"
        "    assert classes == 2, f'{classes} classes'\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))\n"
    )
    merged = "[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]"
    (folder / "two.yaml").write_text(
        "name: two\n"
        'fixed: {data: {source: mnist}, model: {family: "two:Net"}}\n'
        f"grid: {{data.class_map: [{merged}, null]}}\n"
    )
    assert "10 classes" in cli("validate", "two.yaml", check=2).stderr


def test_time_limit_of_a_custom_data_set(folder: Path) -> None:
    (folder / "slow.py").write_text("import time\ndef load():\n    time.sleep(100)\n")
    code = find_code("slow:load", folder)
    data = CustomData(source="slow:load", seconds=0.1, folder=code.folder, code=code.hash)
    with pytest.raises(PointError, match="slow:load exceeded its time limit"):
        load_samples(data, 0)


UNUSABLE = (
    ("model.family='nets:Gone'", "model.family: module nets has no attribute Gone"),
    ("model.kwargs={depth: 3}", "raised TypeError: .*depth"),
    ("data.source='samples:gone'", "data.source: module samples has no attribute gone"),
    ("data={source: table, path: gone.csv, target: x}", "gone.csv"),
    ("data={source: image_folder, root: gone}", "gone"),
    ("data={source: arrays, path: nets.py}", r"nets\.py: cannot be read as an \.npz file"),
    ("model={family: 'timm:resnet_gone'}", "resnet_gone"),
    ("model={family: 'timm:vit_tiny_patch16_224'}", r"samples of shape \(1, 8, 8\)"),
)


def test_validate_loads_data_and_model_unless_disabled(folder: Path, cli: Cli) -> None:
    spec = folder / "custom.yaml"
    spec.write_text(SPEC.replace("grid:\n  model.kwargs.width: [2, 4, 8]\n", ""))
    assert ": valid" in cli("validate", "custom.yaml").stdout
    for change, message in UNUSABLE:
        result = cli("validate", "custom.yaml", "--set", change, check=2)
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("custom.yaml: ")]
        assert re.search(message, line)
        assert ": valid" in cli("validate", "custom.yaml", "--no-load", "--set", change).stdout


@pytest.mark.sweeps
def test_broken_code_fails_only_its_point(folder: Path, cli: Cli, profile: Path) -> None:
    messages = {}
    for number, (source, message) in enumerate(BROKEN.items()):
        (folder / f"broken{number}.py").write_text(source)
        messages[f"broken{number}:Net"] = message.replace("MODULE", f"broken{number}")
    names = [*messages, "nets:plain", "nets:forks"]
    write_models(folder, *[f"{{family: '{name}', seconds: 8}}" for name in names])
    cli("sweep", folder / "custom.yaml", "--profile", profile, check=1)
    assert_failures(cli, messages.values(), done=2)


@pytest.mark.parametrize(
    ("samples", "message"),
    {
        "None": (None, "returned a NoneType, not"),
        "lengths": ((np.zeros((5, 3)), np.zeros(4, int)), "do not match"),
        "no classes": ((np.zeros((5, 3)), np.linspace(0, 1, 5)), "labels must be whole numbers"),
        "objects": ((np.array([[object()]] * 5), np.zeros(5, int)), "array of objects"),
        "infinite": ((np.diag([0, 0, np.inf]), np.zeros(3, int)),
                     "x: row 2, column 2 of the inputs is inf, not a finite"),
        "nan": ((np.diag([0, np.nan, 0]), np.zeros(3, int)), "row 1, column 1 of the .* nan"),
        "test": ((np.eye(2), np.arange(2), np.full((2, 2), 1e99), np.arange(2)),
                 "x, test set: row 0, column 0 of the inputs is 1e\\+99"),
        "image": ((np.full((5, 1, 3, 3), np.nan), np.zeros(5, int)),
                  r"row 0, pixel \(0, 0, 0\) of the inputs is nan"),
        "dimensions": ((np.zeros((5, 1, 1, 1, 2)), np.zeros(5, int)), "neither vectors"),
        "one sample": ((np.zeros((1, 3)), np.zeros(1, int)), "too few"),
        "new class": ((np.zeros((5, 3)), np.arange(5), np.zeros((2, 3)), np.array([0, 9])),
                      "test label 9 does not occur in the training set"),
    }.values(),
)  # fmt: skip
def test_invalid_samples_are_rejected(samples: object, message: str) -> None:
    with pytest.raises(PointError, match=message):
        array_source("x", convert_samples("x", samples))


def test_tensors_and_images_are_converted() -> None:
    source = array_source(
        "x", convert_samples("x", (torch.zeros(6, 3, dtype=torch.float64), list("abcabc")))
    )
    assert (source.classes, source.train.shape) == (3, (3,))
    assert source.train.dtype == np.dtype("float32")
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.open_test() is None
    images = np.zeros((4, 5, 5), np.uint8)
    source = array_source("x", convert_samples("x", (images, [7, 9, 7, 9], images[:2], [9, 7])))
    assert source.train.shape == (1, 5, 5)
    assert source.train.dtype == np.dtype("uint8")
    assert source.open_test().labels.tolist() == [1, 0]


def test_hash_of_a_lambda_is_of_its_source_and_references() -> None:
    pair = [lambda: make_network(3), lambda: make_network(4)]
    again = lambda: make_network(  # noqa: E731
        3
    )
    assert object_hash(pair[0]) == object_hash(again) != object_hash(pair[1])

    def closures(width: int, array: object = None) -> tuple[object, object]:
        return (lambda: make_network(width)), (lambda: array)

    assert object_hash(closures(3)[0]) == object_hash(closures(3)[0])
    assert object_hash(closures(3)[0]) != object_hash(closures(4)[0])
    assert object_hash(closures(3, np.zeros(2))[1]) is None

    class Base(nn.Module):
        pass

    class Derived(Base):
        layers = make_network(3)

    assert len({object_hash(lambda: Base()), object_hash(lambda: Derived()), None}) == 3


def test_code_without_a_file_has_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if linecache contains another source, as with `python -c` from Python 3.13 on."""
    other = ["def typed(): return 2\n"]
    monkeypatch.setitem(linecache.cache, "<string>", (len(other[0]), None, other, "<string>"))
    scope: dict[str, object] = {}
    exec("def typed(): return 1", scope)
    assert object_hash(scope["typed"]) is None


@pytest.mark.parametrize("parent", ["flexhpc", "flexhpc/flexhpc", "site-packages/project"])
def test_user_code_in_folder_named_like_a_package_is_hashed(
    parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User code may be in a checkout of flexhpc, whose folder is named flexhpc."""
    folder = tmp_path / parent
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    hashes = set()
    for value in (1, 2):
        (folder / "user_helper.py").write_text(f"def width():\n    return {value} * 8\n")
        (folder / "user_nets.py").write_text(
            "from user_helper import width\n\ndef build():\n    return width()\n"
        )
        for name in ("user_helper", "user_nets"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        linecache.clearcache()
        importlib.invalidate_caches()
        hashes.add(object_hash(importlib.import_module("user_nets").build))
    assert len(hashes) == 2
    assert None not in hashes


def test_installed_code_is_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "lib" / "site-packages"
    for module in (torch, re, custom_code):
        assert custom_code.is_installed(Path(module.__file__))
    assert not custom_code.is_installed(packages / "nets.py")
    monkeypatch.syspath_prepend(str(packages))
    assert custom_code.is_installed(packages / "nets.py")


def test_error_of_user_code_names_its_line() -> None:
    """Also if its path starts with the path of the package: flexhpc_nets.py next to flexhpc/."""
    path = f"{custom_code.FLEXHPC_FOLDER}_nets.py"
    code = compile("def build():\n    return 1 / 0\n", path, "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)
    with pytest.raises(PointError, match=r"ZeroDivisionError: .*_nets\.py:2\)"):
        custom_code.call_custom_code("model", scope["build"])


def test_entry_point_is_equivalent_to_its_import_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "plugin-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: plugin\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[flexhpc.models]\nnice = nets:Net\nmlp = nets:Net\n[flexhpc.data]\ngood = samples:load\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    custom_code.entry_point_targets.cache_clear()
    try:
        plain = point_ids(folder)
        assert point_ids(folder, "model.family=nice", "data.source=good") == plain
        with pytest.raises(InputError, match=r"model\.kwargs: has no effect with family: mlp"):
            load_points(folder / "custom.yaml", ["model.family=mlp"])
        with pytest.raises(InputError, match=r"mixer, .*, nice; did you mean nice"):
            load_points(folder / "custom.yaml", ["model.family=nicer"])
    finally:
        custom_code.entry_point_targets.cache_clear()


def test_all_errors_of_a_section_are_reported_at_once(tmp_path: Path) -> None:
    """Also if the variant is unknown or its code is not found."""
    spec = tmp_path / "many.yaml"
    spec.write_text("""\
name: many
fixed:
  data: {source: "nowhere:load", labels: rand, n_max: -1, colour: grey}
  model: {family: mlpp, width: -3, banana: 1, detph: 2}
  training: {trainer: "nowhere:fit", lr: 0.1, epochs: 0}
  search: {policy: bays, start: 0}
""")
    with pytest.raises(InputError) as caught:
        load_points(spec)
    message = str(caught.value)
    for expected in (
        "data.source: nowhere:load: no module named", "data.labels: ", "data.n_max: must be",
        "data.colour: has no effect", "model.family: ", "model.width: must be at least 1",
        "model.banana: unknown key", "model.detph: unknown key", "did you mean depth?",
        "training.trainer: nowhere:fit: no module named", "training.lr: has no effect",
        "training.epochs: must be at least 1", "search.policy: ", "search.start: must be at least",
    ):  # fmt: skip
        assert message.count(expected) == 1, expected
    assert message.count("\n") == 12
