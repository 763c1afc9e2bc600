"""Command ``doctor``: check whether this machine meets the requirements of flexhpc."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from flexhpc.cli.options import FAILED
from flexhpc.errors import one_line
from flexhpc.versions import image, packages

Level = Literal["ok", "note", "bad"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of one check.

    Attributes:
        name: subject of the check.
        level: ``ok``; ``note`` for a limitation; ``bad`` if flexhpc cannot work.
        what: finding, with a fix if needed.
    """

    name: str
    level: Level
    what: str


def doctor() -> None:
    """Check python, torch, GPU, SLURM, containers, tracking and data, and suggest fixes."""
    bad = False
    for check in examine():
        typer.echo(f"{check.level:4}  {check.name:10}  {check.what}")
        bad |= check.level == "bad"
    if bad:
        raise typer.Exit(FAILED)


def examine() -> Iterator[Check]:
    """Run the checks and yield each result as it is available; importing torch takes seconds."""
    for check in (_python, _packages, _torch, _gpu, _slurm, _containers, _tracking, _data, _disk):
        yield check()


def _python() -> Check:
    version = platform.python_version()
    fine = sys.version_info >= (3, 11)
    return Check(
        name="python",
        level="ok" if fine else "bad",
        what=f"{version} at {sys.executable}" + ("" if fine else "; install Python 3.11 or newer"),
    )


def _packages() -> Check:
    """Check all packages except torch, which has a separate check."""
    others = {name: version for name, version in packages().items() if name != "torch"}
    installed = ", ".join(f"{name} {version}" for name, version in others.items() if version)
    missing = [name for name, version in others.items() if version is None]
    if vital := [name for name in missing if name not in ("timm", "torchvision")]:
        what = f"missing: {', '.join(vital)}; install flexhpc again"
        return Check(name="packages", level="bad", what=what)
    if missing:
        what = (
            f"{installed}; without {' and '.join(missing)} only linear, mlp and cnn can be measured"
        )
        return Check(name="packages", level="note", what=what)
    return Check(name="packages", level="ok", what=installed)


def _torch() -> Check:
    try:
        import torch

        total = float((torch.ones(4, 4) @ torch.ones(4, 4)).sum())
    except Exception as error:
        return Check(
            name="torch", level="bad", what=f"does not work: {error}; install flexhpc again"
        )
    versions = {name: getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu")}
    builds = [f"{name.upper()} {version}" for name, version in versions.items() if version]
    kind = f"{builds[0] if builds else 'CPU'} build"
    fine = total == 64.0
    return Check(
        name="torch",
        level="ok" if fine else "bad",
        what=f"{torch.__version__} ({kind}), {torch.get_num_threads()} threads"
        + ("" if fine else "; a matrix product came out wrong"),
    )


def _gpu() -> Check:
    try:
        import torch

        from flexhpc.measuring.probe import available_accelerator, device_name
    except ImportError:
        return Check(name="gpu", level="note", what="unknown without torch")
    if (kind := available_accelerator()) is None:
        return Check(
            name="gpu", level="note", what="none that torch can use; points run on the CPU"
        )
    count = torch.accelerator.device_count()
    names = [device_name(torch.device(kind.type, index)) for index in range(count)]
    return Check(name="gpu", level="ok", what=", ".join(names))


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return Check(name="slurm", level="note", what="no sbatch; sweeps run on this machine")
    why = ""
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%P %D %t"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        why = one_line(error)
    else:
        if done.returncode:
            why = _first(done.stderr)
    if why:
        what = (
            f"sbatch is there, but no controller answers ({why}); on a login node ask its admins, "
            "elsewhere set SLURM_CONF, or slurm_conf in the profile (docs/slurm.md has a cluster "
            "for this machine); without one sweeps run here"
        )
        return Check(name="slurm", level="note", what=what)
    partitions = "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())
    return Check(name="slurm", level="ok", what=partitions or "no partitions")


def _first(text: str) -> str:
    """Return the first line of the error output of sinfo, without its prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].removeprefix("sinfo: error: ")[:120] if lines else "it says nothing"


def _containers() -> Check:
    if (inside := image()) is not None:
        return Check(name="containers", level="ok", what=f"this is one: {inside}")
    tools = {
        name: _answer(name) for name in ("apptainer", "podman", "docker") if shutil.which(name)
    }
    if not tools:
        what = "no apptainer, podman or docker; only needed for images"
        return Check(name="containers", level="note", what=what)
    what = ", ".join(
        f"{name} (does not work: {why})" if why else name for name, why in tools.items()
    )
    if not all(tools.values()):
        return Check(name="containers", level="ok", what=what)
    return Check(
        name="containers", level="note",
        what=f"{what}; start its daemon, or set podman up as docs/containers.md says; only needed "
        "for images",
    )  # fmt: skip


def _answer(tool: str) -> str:
    """Return the error of a container runtime; empty if it works."""
    command = [tool, "version" if tool == "apptainer" else "info"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return one_line(error)
    lines = done.stderr.strip().splitlines() or ["it says nothing"]
    return lines[-1] if done.returncode else ""


def _tracking() -> Check:
    """Check that sqlite, which MLflow uses, works in this folder: it needs working file locks."""
    import sqlite3

    if not os.access(Path.cwd(), os.W_OK):
        what = "this folder cannot be written to; sweeps need another one, or --runs"
        return Check(name="tracking", level="note", what=what)
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            connection = sqlite3.connect(Path(folder) / "check.db")
            connection.execute("create table t (x)")
            connection.close()
    except (OSError, sqlite3.Error) as error:
        return Check(
            name="tracking",
            level="bad",
            what=f"sqlite does not work in this folder ({error}); use --runs on a local disk, "
            "or a tracking_uri in the profile",
        )
    return Check(name="tracking", level="ok", what="sqlite works in this folder")


def _data() -> Check:
    from flexhpc.data.places import roots

    locations = []
    for source in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        places = [place for place in roots(source, None) if _holds(source, place)]
        locations += [f"{source} in {place}" for place in places[:1]]
    what = ", ".join(["digits (built in)", *locations])
    return Check(name="data", level="ok", what=what)


def _holds(source: str, place: Path) -> bool:
    marks = {
        "mnist": "MNIST/raw/train-images-idx3-ubyte*",
        "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte*",
        "cifar10": "cifar-10-batches-py/data_batch_1",
        "cifar100": "cifar-100-python/train",
    }
    system = place.is_absolute() and any(place.glob("train-images-idx3-ubyte*"))
    return system or any(place.glob(marks[source]))


def _disk() -> Check:
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    fine = free > 1
    return Check(
        name="disk",
        level="ok" if fine else "bad",
        what=f"{free:.1f} GB free here" + ("" if fine else "; make room, runs need at least 1 GB"),
    )
