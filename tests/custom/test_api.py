"""The Python interface (measure, sweep, load, compare) and the examples of docs/custom.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import flexhpc
from flexhpc.errors import InputError, PointError
from tests.barrier import wait_for
from tests.conftest import REPOSITORY, Cli
from tests.custom.conftest import make_network, modification_times

SAMPLES = (
    np.random.default_rng(0).normal(size=(300, 20)), np.random.default_rng(1).integers(0, 5, 300),
)  # fmt: skip
TRAINING = {"optimizer": "adamw", "lr": 1e-2, "steps": 200}


def measure(
    model: object = lambda: make_network(4), data: object = SAMPLES, **options: object
) -> flexhpc.Measurement:
    options = {"labels": "random", "training": TRAINING, "tolerance": 0.5, **options}
    return flexhpc.measure(model, data, **options)


@pytest.mark.sweeps
def test_measure_equals_a_recorded_measurement(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    result = measure()
    assert capfd.readouterr() == ("", "")
    assert result.interval[0] <= result.emc <= result.interval[1]
    assert (result.censored, result.params) == ("none", 20 * 4 + 4 + 4 * 5 + 5)
    assert len(result.probes) == result.masks.fitted().shape[0] == len(result.masks.n)
    fits = result.probes.verdict == "fit"
    np.testing.assert_array_equal(result.masks.fitted().sum(axis=1)[fits], result.probes.n[fits])
    low, high = np.quantile(result.draws(20_000), [0.05, 0.95])
    assert result.interval == pytest.approx((low, high), abs=1.5), "rounded outwards, from a grid"
    assert result.plot().spec["title"]["text"].endswith("model, arrays, random labels")
    result.plot().save(tmp_path / "fit.pdf")
    assert (tmp_path / "fit.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="unknown format"):
        result.plot().save(tmp_path / "fit.bmp")
    assert set(result.plot()._repr_mimebundle_()) == {"image/svg+xml", "image/png"}
    run = tmp_path / "run"
    recorded = measure(run=run)
    assert (recorded.emc, recorded.interval) == (result.emc, result.interval)
    times = modification_times(run)
    assert len(times) == 1
    assert measure(run=run).emc == recorded.emc
    assert modification_times(run) == times
    loaded = flexhpc.load(run)
    assert [measurement.emc for measurement in loaded] == [recorded.emc]
    assert loaded.results.emc.tolist() == [recorded.emc]
    assert "EMC" in repr(loaded[0])
    for html in (loaded._repr_html_(), loaded[0]._repr_html_()):
        assert f">{recorded.emc} [" in html
        assert '<img alt="chart" src="data:image/svg+xml;base64,' in html
    loaded.plot().save(tmp_path / "emc.svg")
    assert loaded.report().is_file()
    assert torch.get_num_threads() == threads


@pytest.mark.sweeps
def test_moved_run_folder_raises_a_point_error(tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "target"

    def move() -> None:
        wait_for(lambda: list(run.glob("points/*/*.h5")), "a point's file")
        run.rename(target)

    endless = {**TRAINING, "lr": 1e-6, "steps": 10**7, "gates": {"plateau": "off"}}
    mover = threading.Thread(target=move)
    mover.start()
    with pytest.raises(PointError, match="the run folder was moved or removed"):
        measure(run=run, training=endless)
    mover.join()
    assert not run.exists()


@pytest.mark.sweeps
def test_compare_returns_the_ratio_of_posteriors() -> None:
    """The interval is open if one EMC is a bound."""
    narrow = measure()
    wide = measure(lambda: make_network(16))
    comparison = flexhpc.compare(wide, narrow)
    assert f"<td>{comparison.ratio:.2f} [" in comparison._repr_html_()
    assert comparison.chance > 0.9
    assert comparison.low < comparison.ratio < comparison.high
    median_ratio = np.median(wide.draws()) / np.median(narrow.draws())
    assert comparison.ratio == pytest.approx(median_ratio, rel=0.1)
    inverse = flexhpc.compare(narrow, wide)
    assert inverse.ratio == pytest.approx(1 / comparison.ratio, rel=0.03)
    assert inverse.chance == pytest.approx(1 - comparison.chance, abs=0.03)
    equal = flexhpc.compare(narrow, narrow)
    assert (equal.ratio, equal.chance) == pytest.approx((1, 0.5), abs=0.03)
    bound = measure(lambda: make_network(16), (SAMPLES[0][:8], np.arange(8) % 5))
    assert bound.censored == "right"
    assert flexhpc.compare(bound, narrow).high is None
    assert flexhpc.compare(narrow, bound).low is None
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        flexhpc.compare(narrow, wide, level=2)


@pytest.mark.sweeps
def test_sweep_of_a_dictionary(
    folder: Path, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    fixed = {
        "data": {"source": "samples:load", "labels": "random"},
        "training": TRAINING, "search": {"policy": "bisection", "start": 16, "tolerance": 0.3},
    }  # fmt: skip
    spec = {"name": "sweep", "fixed": fixed, "grid": {"model": [{"family": "nets:Net"}]}}
    run = flexhpc.sweep(spec, profile=profile)
    assert len(run) == 1
    assert run[0].emc > 0
    assert run.path == folder / "runs" / "sweep"
    with pytest.raises(InputError, match=r"^model\.family: nowhere:Net: no module named"):
        flexhpc.sweep({**spec, "grid": {"model.family": ["nowhere:Net"]}})


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "network": ({"model": nn.Linear(3, 3)}, "must be a function that returns"),
        "optimizer": ({"training": {"optimizer": "adan"}}, "^training.optimizer: .*did you mean"),
        "data": ({"data": 3}, "returned a int, not \\(inputs, labels\\)"),
        "not YAML": ({"training": {"lr": object()}}, "the spec cannot be written as YAML"),
    }.values(),
)  # fmt: skip
def test_invalid_arguments_are_one_error_message(changes: dict[str, object], message: str) -> None:
    arguments = {"model": lambda: make_network(4), "data": SAMPLES, **changes}
    with pytest.raises(InputError, match=message):
        flexhpc.measure(**arguments)


def test_exception_of_a_model_is_raised_with_its_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken() -> nn.Module:
        raise ValueError("not today")

    with pytest.raises(PointError, match="raised ValueError: not today"):
        flexhpc.measure(broken, SAMPLES, labels="random")
    assert "Traceback" in capfd.readouterr().err


def test_import_does_not_import_torch_or_numpy() -> None:
    code = "import sys, flexhpc; assert not {'torch', 'numpy'} & set(sys.modules); dir(flexhpc)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.sweeps
def test_examples_in_docs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Run the Python examples in order, then the specs with the modules next to them."""
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "custom.md").read_text()
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", page, re.DOTALL)
    files = {
        text.splitlines()[0].removeprefix("# "): text
        for kind, text in blocks
        if kind == "python" and text.startswith("# ")
    }
    assert sorted(files) == ["my_data.py", "my_forest.py", "my_nets.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    scripts = [text for kind, text in blocks if kind == "python" and text not in files.values()]
    assert len(scripts) == 2
    scope: dict[str, object] = {"__name__": "page"}
    exec(scripts[0].replace("1000", "200"), scope)
    assert "EMC" in capsys.readouterr().out
    assert scope["result"].censored == "none"
    script = scripts[1].replace("[8, 16]", '[4, 6], "search.tolerance": [0.5]')
    script = script.replace("1000", "200").replace("}\n)\n", f"}}, profile={str(profile)!r})\n")
    exec(script, scope)
    assert len(scope["run"]) == 2
    for name, spec in zip(
        ("mine", "forest"), (text for kind, text in blocks if kind == "yaml"), strict=True
    ):
        (tmp_path / f"{name}.yaml").write_text(spec)
    options = ("--profile", profile, "--set", "search.tolerance=0.5")
    budget = ("--set", "training.steps=200")
    cli("sweep", "mine.yaml", *options, *budget, "--set", "model.kwargs.width=[4]")
    assert json.loads(cli("results", "runs/mine", "--format", "json").stdout)[0]["params"] == 109
    cli("sweep", "forest.yaml", *options)
    rows = json.loads(cli("results", "runs/forest", "--format", "json").stdout)
    assert 2 * rows[0]["emc"] < rows[1]["emc"]
    assert rows[0]["params"] is None
