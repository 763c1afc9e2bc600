"""Command ``doctor``: check whether this machine meets the requirements of flexhpc."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import typer

from flexhpc.cli import options
from flexhpc.errors import one_line_message
from flexhpc.versions import image_name, package_versions

Level = Literal["ok", "note", "bad"]
"""Level of a finding: ``ok``, ``note`` (a limitation) or ``bad`` (flexhpc cannot work)."""
Finding = tuple[Level, str]
"""Result of a check: level and text to print."""
_FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte*",
    "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte*",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
}
"""Data set -> glob pattern. A folder contains the data set if a file in it matches the pattern."""


def doctor() -> None:
    """Check python, torch, GPU, SLURM, containers, tracking and data, and suggest fixes."""
    bad = False
    checks = {
        "python": _check_python, "packages": _check_packages, "torch": _check_torch,
        "gpu": _check_gpu, "slurm": _check_slurm, "containers": _check_containers,
        "tracking": _check_tracking, "data": _check_data, "disk": _check_disk,
    }  # fmt: skip
    for name, check in checks.items():
        level, finding = check()
        typer.echo(f"{level:4}  {name:10}  {finding}")
        bad |= level == "bad"
    if bad:
        raise typer.Exit(options.FAILED)


def _check_python() -> Finding:
    return "ok", f"{platform.python_version()} at {sys.executable}"


def _check_packages() -> Finding:
    """Check all packages except torch, which has a separate check."""
    others = {name: version for name, version in package_versions().items() if name != "torch"}
    installed = ", ".join(f"{name} {version}" for name, version in others.items() if version)
    missing = [name for name, version in others.items() if version is None]
    if required := [name for name in missing if name not in ("timm", "torchvision")]:
        return "bad", f"missing: {', '.join(required)}; install flexhpc again"
    if missing:
        limit = "only linear, mlp, cnn and custom models can be measured"
        return "note", f"{installed}; without {' and '.join(missing)}, {limit}"
    return "ok", installed


def _check_torch() -> Finding:
    try:
        import torch

        total = float((torch.ones(4, 4) @ torch.ones(4, 4)).sum())
    except Exception as error:
        return "bad", f"does not work: {error}; install flexhpc again"
    versions = {name: getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu")}
    builds = [f"{name.upper()} {version}" for name, version in versions.items() if version]
    build = f"{torch.__version__} ({builds[0] if builds else 'CPU'} build)"
    build += f", {torch.get_num_threads()} threads"
    if total != 64.0:
        return "bad", f"{build}; computes a wrong matrix product; install flexhpc again"
    return "ok", build


def _check_gpu() -> Finding:
    try:
        import torch

        from flexhpc.measuring.probe import available_accelerator, device_name
    except ImportError:
        return "note", "unknown without torch"
    if (accelerator := available_accelerator()) is None:
        return "note", "no GPU that torch can use; points are measured on the CPU"
    count = torch.accelerator.device_count()
    names = [device_name(torch.device(accelerator.type, index)) for index in range(count)]
    return "ok", ", ".join(names)


def _check_slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return "note", "no sbatch; sweeps run on this machine"
    output, error = _run_command(["sinfo", "--noheader", "--format=%P %D %t"], timeout=10)
    if error:
        reason = error[0].removeprefix("sinfo: error: ")[:120]
        return "note", (
            f"sbatch is installed, but the controller does not respond ({reason}). On a login "
            "node, ask the administrators. Elsewhere, set SLURM_CONF or the profile key "
            "slurm_conf, or start a local cluster (docs/slurm.md). Local sweeps do not need SLURM"
        )
    return "ok", "; ".join(output) or "no partitions"


def _check_containers() -> Finding:
    if (container := image_name()) is not None:
        return "ok", f"inside {container}"
    tools = [name for name in ("apptainer", "podman", "docker") if shutil.which(name)]
    if not tools:
        return "note", "no apptainer, podman or docker; needed only to run container images"
    errors = {
        name: _run_command([name, "version" if name == "apptainer" else "info"], timeout=20)[1]
        for name in tools
    }
    finding = ", ".join(
        f"{name} (does not work: {lines[-1]})" if lines else name for name, lines in errors.items()
    )
    if not all(errors.values()):
        return "ok", finding
    return "note", (
        f"{finding}; start the daemon, or set up podman as in docs/containers.md; this is needed "
        "only for container images"
    )


def _run_command(command: list[str], *, timeout: float) -> tuple[list[str], list[str]]:
    """Run a command; return the lines of its stdout and the lines of its error message.

    The error message is empty if the command succeeded.
    """
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], [one_line_message(error)]
    output, errors = (
        [line.strip() for line in text.splitlines() if line.strip()]
        for text in (result.stdout, result.stderr)
    )
    return output, (errors or ["no error message"]) if result.returncode else []


def _check_tracking() -> Finding:
    """Check that sqlite works in this folder. MLflow uses sqlite, which requires file locks."""
    import sqlite3

    if not os.access(Path.cwd(), os.W_OK):
        return (
            "note",
            "this folder is not writable; run sweeps in a writable folder, or set --runs to one",
        )
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            connection = sqlite3.connect(Path(folder) / "check.db")
            connection.execute("create table t (x)")
            connection.close()
    except (OSError, sqlite3.Error) as error:
        fix = "set --runs to a folder on a local disk, or set tracking_uri in the profile"
        return "bad", f"sqlite does not work in this folder ({error}); {fix}"
    return "ok", "sqlite works in this folder"


def _check_data() -> Finding:
    from flexhpc.data.standard_files import folders_to_search

    locations = ["digits (built in)"]
    for source, pattern in _FILES.items():
        for root in folders_to_search(source, None):
            in_system_folder = root.is_absolute() and any(root.glob("train-images-idx3-ubyte*"))
            if in_system_folder or any(root.glob(pattern)):
                locations.append(f"{source} in {root}")
                break
    return "ok", ", ".join(locations)


def _check_disk() -> Finding:
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    if free <= 1:
        return "bad", f"{free:.1f} GB free here; runs need at least 1 GB"
    return "ok", f"{free:.1f} GB free here"
