"""Typical mistakes of the first day: one error message, no traceback, and no file is created."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import numpy as np
import pytest

from flexhpc.launch.prepare import prepare_run, write_run_folder
from tests.command import run_flexhpc

SPEC = (
    "name: x\nfixed:\n  data: {source: digits}\n  model: {family: mlp, width: 8}\n"
    "  training: {optimizer: adam, steps: 50}\n"
)
SPECS = {
    "good": SPEC,
    "tabs": SPEC.replace("  data", "\tdata"),
    "duplicate": f"{SPEC}name: y\n",
    "no_list": f"{SPEC}grid:\n  model.width: 8\n",
    "slurm": "cluster: slurm\n",
}
MISTAKES = {
    **{
        f"{command} of a spec that does not exist": (
            f"{command} none.yaml", "none.yaml: file not found",
        )
        for command in ("validate", "plan", "sweep")
    },
    "tabs": ("sweep tabs.yaml", "tabs.yaml:3: not valid YAML: "),
    "duplicate key": ("sweep duplicate.yaml", ":6: name: duplicate key (first defined on line 1)"),
    "scalar in grid": ("sweep no_list.yaml", ":7: model.width: must be a list"),
    "misspelt key": ("sweep good.yaml --set model.widht=9", "; did you mean width?"),
    "wrong type": ("sweep good.yaml --set training.steps=many", "a whole number, not \"many\""),
    "negative steps": ("sweep good.yaml --set training.steps=-5", "must be at least 1, not -5"),
    "width 0": ("sweep good.yaml --set model.width=0", "must be at least 1, not 0"),
    "unknown source": ("sweep good.yaml --set data.source=minst", "; did you mean mnist?"),
    "unknown activation": ("sweep good.yaml --set model.activation=rleu", "did you mean relu?"),
    "start above the number of samples": (
        "sweep good.yaml --set search.start=5000", "5000 is more than the 1797 training samples",
    ),
    "--set without =": ("sweep good.yaml --set width", "must have the form key=value"),
    "unknown section in --set": ("sweep good.yaml --set modl.width=3", "did you mean model?"),
    "data file does not exist": (
        "sweep good.yaml --set 'data={source: table, path: no.csv, target: b}'",
        "data.path: file not found (no.csv)",
    ),
    "column does not exist": (
        "validate good.yaml --set 'data={source: table, path: table.csv, target: z}'",
        "data.target: table.csv has no column z; it has a, b",
    ),
    "NaN in an array": (
        "validate good.yaml --set 'data={source: arrays, path: nan.npz}'",
        "row 0, column 1 of the inputs is nan",
    ),
    "NaN in an .npy file": (
        "validate good.yaml --set 'data={source: arrays, path: nan.npy, target: y.npy}'",
        "row 0, column 1 of the inputs is nan",
    ),
    "unknown profile": ("sweep good.yaml --profile clutser", "one of the shipped profiles ("),
    "no SLURM": ("sweep good.yaml --profile slurm.yaml", "slurm needs sbatch and srun"),
    "no write permission": ("sweep good.yaml --runs /proc/x", "/proc/x/x: cannot be written"),
    "data cannot be written": ("data prepare digits --out /proc/x", "/proc/x: cannot be written"),
    "packed file does not exist": ("data check none", "none: cannot be read as a file written by"),
    "spec instead of a run": ("status good.yaml", "good.yaml: not a run folder"),
    "comparison without a swept key": ("compare runs/empty", "--by KEY: is required"),
    "unknown format of a figure": ("figure runs/empty -o x.jpg", "x.jpg: unknown format"),
    "size of one number": ("figure runs/empty -o x.pdf --size 4", "must be WIDTHxHEIGHT in inches"),
    "unknown format of results": ("results runs/empty --format xml", "'xml' is not one of 'table'"),
    "unknown command": ("swep good.yaml", "Did you mean 'sweep'?"),
    "n above the number of samples": ("probe good.yaml --n 5000", "has only 1797 samples"),
    "unknown id of a point": ("probe good.yaml --n 5 --point zz", "matches no point"),
    "unknown index of a point": ("probe good.yaml --n 5 --point 17", "matches no point"),
    "port in use": (
        "ui runs/empty --port PORT", "--port PORT: address already in use; use another port",
    ),
    **{
        f"{command} of a run that does not exist": (f"{command} runs/none", "not a run folder")
        for command in (
            "status", "results", "report", "compare", "masks", "sync", "ui", "cancel", "pack",
            "figure -o x.pdf",
        )
    },
}  # fmt: skip
"""Mistake -> command, part of its error message. PORT is a port on which a server listens."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with specs, data and a run without results."""
    for name, text in SPECS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    inputs, labels = np.array([[1, np.nan], [2, 3]]), np.array([0, 1])
    np.savez(tmp_path / "nan.npz", X=inputs, y=labels)
    np.save(tmp_path / "nan.npy", inputs)
    np.save(tmp_path / "y.npy", labels)
    prepared = prepare_run(tmp_path / "good.yaml", ["name=empty"], tmp_path / "runs")
    write_run_folder(prepared, "launch", None)
    return tmp_path


def run_with_status(status: int, folder: Path, command: str) -> str:
    """Run a command that must fail with one message and create no file; return the message."""
    files = set(folder.rglob("*"))
    done = run_flexhpc(folder, *shlex.split(command), environment={"PATH": "/nonexistent"})
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout == ""
    *usage, message = done.stderr.splitlines()
    assert not usage or usage[0].startswith("Usage: "), done.stderr
    assert set(folder.rglob("*")) == files
    return message


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_message_and_status_two(mistake: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        command, message = (text.replace("PORT", port) for text in MISTAKES[mistake])
        assert message in run_with_status(2, folder, command)


def test_figure_of_a_run_without_results_gives_status_one(folder: Path) -> None:
    message = run_with_status(1, folder, "figure runs/empty -o x.pdf")
    assert message == "emc: is not known at any point yet"
