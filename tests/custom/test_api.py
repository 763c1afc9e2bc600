"""What Python is offered: measure, sweep, load, compare; and that the page about it is true."""

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


def made(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 5))


SAMPLES = (
    np.random.default_rng(0).normal(size=(300, 20)), np.random.default_rng(1).integers(0, 5, 300),
)  # fmt: skip
RECIPE = {"optimizer": "adamw", "lr": 1e-2, "steps": 200}


def measure(
    model: object = lambda: made(4), data: object = SAMPLES, **more: object
) -> flexhpc.Measurement:
    given = {"labels": "random", "training": RECIPE, "tolerance": 0.5, **more}
    return flexhpc.measure(model, data, **given)


@pytest.mark.sweeps
def test_measuring_from_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same with and without a record; the record is like any other, and is found again."""
    threads = torch.get_num_threads()
    alone = measure()
    assert capfd.readouterr() == ("", "")
    assert alone.interval[0] <= alone.emc <= alone.interval[1]
    assert (alone.censored, alone.params) == ("none", 20 * 4 + 4 + 4 * 5 + 5)
    assert len(alone.probes) == alone.masks.fitted().shape[0] == len(alone.masks.n)
    fits = alone.probes.verdict == "fit"
    np.testing.assert_array_equal(alone.masks.fitted().sum(axis=1)[fits], alone.probes.n[fits])
    low, high = np.quantile(alone.draws(20_000), [0.05, 0.95])
    assert alone.interval == pytest.approx((low, high), abs=1.5), "rounded outwards, from a grid"
    alone.plot().save(tmp_path / "fit.pdf")
    assert (tmp_path / "fit.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="unknown format"):
        alone.plot().save(tmp_path / "fit.bmp")
    assert set(alone.plot()._repr_mimebundle_()) == {"image/svg+xml", "image/png"}
    kept = measure(run=tmp_path / "mine")
    assert (kept.emc, kept.interval) == (alone.emc, alone.interval)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "mine").rglob("*.h5")}
    assert len(files) == 1
    again = measure(run=tmp_path / "mine")
    assert again.emc == kept.emc
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "mine").rglob("*.h5")}
    loaded = flexhpc.load(tmp_path / "mine")
    assert [one.emc for one in loaded] == [kept.emc]
    assert loaded.results.emc.tolist() == [kept.emc]
    assert "EMC" in repr(loaded[0])
    assert loaded.report().is_file()
    assert torch.get_num_threads() == threads


@pytest.mark.sweeps
def test_a_record_that_is_moved_meanwhile_is_no_ctrl_c(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"

    def move() -> None:
        wait_for(lambda: list(run.glob("points/*/*.h5")), "a point's file")
        run.rename(elsewhere)

    endless = {**RECIPE, "lr": 1e-6, "steps": 10**7, "gates": {"plateau": "off"}}
    mover = threading.Thread(target=move)
    mover.start()
    with pytest.raises(PointError, match="the run folder was moved or removed"):
        measure(run=run, training=endless)
    mover.join()
    assert not run.exists()


@pytest.mark.sweeps
def test_comparing_two_measurements() -> None:
    """The ratio of what the posteriors say; open where an EMC is a bound."""
    narrow = measure()
    wide = measure(lambda: made(16))
    found = flexhpc.compare(wide, narrow)
    assert found.chance > 0.9
    assert found.low < found.ratio < found.high
    assert found.ratio == pytest.approx(
        np.median(wide.draws()) / np.median(narrow.draws()), rel=0.1
    )
    turned = flexhpc.compare(narrow, wide)
    assert turned.ratio == pytest.approx(1 / found.ratio, rel=0.03)
    assert turned.chance == pytest.approx(1 - found.chance, abs=0.03)
    self = flexhpc.compare(narrow, narrow)
    assert (self.ratio, self.chance) == pytest.approx((1, 0.5), abs=0.03)
    bound = measure(lambda: made(16), (SAMPLES[0][:8], np.arange(8) % 5))
    assert bound.censored == "right"
    assert flexhpc.compare(bound, narrow).high is None
    assert flexhpc.compare(narrow, bound).low is None
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        flexhpc.compare(narrow, wide, level=2)


@pytest.mark.sweeps
def test_a_sweep_from_python(
    folder: Path, untracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    fixed = {
        "data": {"source": "samples:load", "labels": "random"},
        "training": RECIPE, "search": {"policy": "bisection", "start": 16, "tolerance": 0.3},
    }  # fmt: skip
    spec = {"name": "given", "fixed": fixed, "grid": {"model": [{"family": "nets:Net"}]}}
    run = flexhpc.sweep(spec, profile=untracked)
    assert len(run) == 1
    assert run[0].emc > 0
    assert run.path == folder / "runs" / "given"
    with pytest.raises(InputError, match=r"^model\.family: nowhere:Net: no module named"):
        flexhpc.sweep({**spec, "grid": {"model.family": ["nowhere:Net"]}})


@pytest.mark.parametrize(
    ("given", "message"),
    {
        "a network": ({"model": nn.Linear(3, 3)}, "must be a function that returns"),
        "optimizer": ({"training": {"optimizer": "adan"}}, "^training.optimizer: .*did you mean"),
        "data": ({"data": 3}, "returned a int, not \\(inputs, labels\\)"),
        "no YAML": ({"training": {"lr": object()}}, "the spec cannot be written as YAML"),
    }.values(),
)  # fmt: skip
def test_wrong_arguments_are_said_in_a_line(given: dict[str, object], message: str) -> None:
    arguments = {"model": lambda: made(4), "data": SAMPLES, **given}
    with pytest.raises(InputError, match=message):
        flexhpc.measure(**arguments)


def test_a_network_that_raises_says_so_in_python(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> nn.Module:
        raise ValueError("not today")

    with pytest.raises(PointError, match="raised ValueError: not today"):
        flexhpc.measure(broken, SAMPLES, labels="random")
    assert "Traceback" in capfd.readouterr().err


def test_importing_flexhpc_is_quick() -> None:
    """What it offers is imported when it is asked for."""
    code = "import sys, flexhpc; assert not {'torch', 'numpy'} & set(sys.modules); dir(flexhpc)"
    subprocess.run([sys.executable, "-c", code], check=True)


PAGE = (REPOSITORY / "docs" / "custom.md").read_text()


@pytest.mark.sweeps
def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, untracked: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its Python in order, then its spec with the modules beside it."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
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
    script = script.replace("1000", "200").replace("}\n)\n", f"}}, profile={str(untracked)!r})\n")
    exec(script, scope)
    assert len(scope["run"]) == 2
    for name, spec in zip(
        ("mine", "forest"), (text for kind, text in blocks if kind == "yaml"), strict=True
    ):
        (tmp_path / f"{name}.yaml").write_text(spec)
    wide = ("--profile", untracked, "--set", "search.tolerance=0.5")
    short = ("--set", "training.steps=200")
    cli("sweep", "mine.yaml", *wide, *short, "--set", "model.kwargs.width=[4]")
    assert json.loads(cli("results", "runs/mine", "--format", "json").stdout)[0]["params"] == 109
    cli("sweep", "forest.yaml", *wide)
    rows = json.loads(cli("results", "runs/forest", "--format", "json").stdout)
    assert 2 * rows[0]["emc"] < rows[1]["emc"]
    assert rows[0]["params"] is None
