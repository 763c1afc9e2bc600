"""Prepare a run folder from a spec."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from flexhpc.atomic import write_atomic, write_json
from flexhpc.config import Point, Sweep, freeze, load_points, load_sweep, request_hash
from flexhpc.config.loading import Spec
from flexhpc.config.sections.compare import Compare
from flexhpc.custom.code import find_code
from flexhpc.errors import InputError, PointError
from flexhpc.store import RunFolder, read_point_file
from flexhpc.store.run_record import LaunchRecord, RunRecord, read_run_record
from flexhpc.versions import package_versions

STOP_FILE = "stop"
"""Name of the file in the folder of a launch whose existence stops the workers."""


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A spec and its run folder.

    Attributes:
        run: the run folder.
        points: all points of the sweep, read from the existing frozen spec if ``is_unchanged``.
        frozen_spec: text of the frozen spec, with all defaults filled in.
        request_hash: hash of the custom code and of the spec with overrides, but without defaults.
        is_unchanged: whether the last launch of this run had the same ``request_hash``.
        compare: the comparisons that the spec requests.
        edited_code: import paths of custom code, and names of pretrained networks, that have
            changed since the last launch of the run.
    """

    run: RunFolder
    points: list[Point]
    frozen_spec: str
    request_hash: str
    is_unchanged: bool
    compare: Sequence[Compare] = ()
    edited_code: tuple[str, ...] = ()


def prepare_run(spec: Spec, overrides: Sequence[str], runs: Path) -> PreparedRun:
    """Read a spec and locate its run folder; nothing is written.

    If the spec has not changed since the last launch, the frozen spec of that launch is reused, so
    that points do not change if a new version of flexhpc has other defaults. Otherwise
    :func:`write_run_folder` replaces the frozen spec; the results of points that are in both the
    old and the new spec are kept.

    Raises:
        InputError: the spec is invalid, the path of the run folder contains a control character, or
            the folder contains the results of a different spec.
    """
    sweep, points = load_points(spec, overrides)
    run = RunFolder((runs / sweep.name).resolve())
    if any(character < " " for character in str(run.path)):
        raise InputError(f"{str(run.path)!r}: contains a control character; use another folder")
    current_hash = request_hash(sweep)
    last_hash = read_run_record(run.metadata).request
    is_unchanged = last_hash == current_hash and run.spec.is_file()
    prepared = PreparedRun(
        run=run,
        points=load_points(run.spec)[1] if is_unchanged else points,
        frozen_spec=run.spec.read_text() if is_unchanged else freeze(sweep, points),
        request_hash=current_hash,
        is_unchanged=is_unchanged,
        compare=sweep.compare,
        edited_code=() if is_unchanged else _edited_code(run, sweep),
    )
    if not prepared.is_unchanged and not prepared.edited_code:
        _check_same_sweep(prepared)
    return prepared


def _edited_code(run: RunFolder, sweep: Sweep) -> tuple[str, ...]:
    """Return the custom code and pretrained networks whose hash differs from the frozen spec."""
    if not (sweep.code or sweep.network_files) or not run.spec.is_file():
        return ()
    previous = load_sweep(run.spec).spec.frozen
    if previous is None:
        return ()
    old = {name: code.hash for name, code in previous.code.items()} | previous.network_files
    new = {name: code.hash for name, code in sweep.code.items()} | sweep.network_files
    return tuple(name for name, value in new.items() if old.get(name, value) != value)


def write_run_folder(prepared: PreparedRun, launch: str, image: str | None) -> None:
    """Create the run folder, write the frozen spec if it changed, and add the launch to run.json.

    Raises:
        InputError: the folder cannot be written.
    """
    run = prepared.run
    try:
        run.lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(run.lock):
            if not prepared.is_unchanged:
                write_atomic(run.spec, prepared.frozen_spec)
            new = LaunchRecord(
                id=launch, time=time.time(), host=platform.node(), image=image, user=_user_name()
            )
            record = RunRecord(
                request=prepared.request_hash,
                python=platform.python_version(),
                packages=package_versions(),
                git=_git_commit(),
                launches=(*read_run_record(run.metadata).launches, new),
            )
            write_json(run.metadata, asdict(record))
    except OSError as error:
        raise InputError(
            f"{run.path}: cannot be written ({error.strerror}); use another folder"
        ) from None


def _check_same_sweep(prepared: PreparedRun) -> None:
    """Raise InputError if a run folder with results has no point in common with the spec."""
    run, ids = prepared.run, {point.id for point in prepared.points}
    measured = {i for i in run.started_points() if run.point_file(i).is_file()}
    if not run.spec.is_file() or measured & ids:
        return
    if ids & {point.id for point in load_points(run.spec)[1]}:
        return
    if any(_has_probes(run, point_id) for point_id in measured):
        raise InputError(
            f"{run.path}: contains the results of a different spec (no point in common"
            f"{_missing_code(run)}); use another name or folder"
        )


def _missing_code(run: RunFolder) -> str:
    """Return the custom code of the frozen spec that no longer exists, for an error message."""
    frozen = load_sweep(run.spec).spec.frozen
    for name, code in frozen.code.items() if frozen else ():
        try:
            find_code(name, Path(code.folder) if code.folder else None)
        except LookupError as error:
            return f"; {name}: {error}"
    return ""


def _has_probes(run: RunFolder, point_id: str) -> bool:
    try:
        record = read_point_file(run.point_file(point_id))
    except PointError:  # a damaged file may contain probes
        return True
    return record is not None and bool(record.probes)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user id has no name, as in some containers
        return str(os.getuid())


def _git_commit() -> str | None:
    """Return the Git commit of flexhpc's checkout, or None if flexhpc does not run from a checkout.

    The returned text ends in + if files of the checkout were modified.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():  # git would report a repository that contains the venv
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
