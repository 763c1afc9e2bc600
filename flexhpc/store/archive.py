"""A run in one file: a zip archive of its record, from which the run is there again."""

from __future__ import annotations

import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from flexhpc.atomic import open_regular, replacing
from flexhpc.errors import InputError, PointError
from flexhpc.store.claim import read_claim
from flexhpc.store.layout import RunFolder

_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip
"""What reading a damaged archive raises, and an OSError that comes from no system call."""


def pack(run: RunFolder, archive: Path) -> int:
    """Write the record of a run into one file, and read it back; returns how many files it holds.

    What can be made again from the record (MLflow's database, the report) is left out, and so is
    what only processes at work need. Checkpoints are in it: a run that is not finished goes on
    wherever it is unpacked.

    Args:
        run: a run at rest; nothing in it is changed.
        archive: the file, which replaces one of that name.

    Raises:
        InputError: a process measures one of its points, the file would lie in what is packed, or
            a part of the run is a link to somewhere else.
        PointError: what was written is not what was read.
        OSError: it cannot be read or written.
    """
    if archive.resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"{archive}: lies in the run that it is to hold")
    for path in run.path.glob("points/*/*.claim.json"):
        claim = read_claim(path)
        if claim is not None and claim.live(path):
            raise InputError(
                f"{run.path}: a process on {claim.host.split(':')[0]} measures a point"
            )
    count = 0
    with replacing(archive) as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
            for path in _record_of(run):
                packed.write(path, PurePosixPath(run.name, path.relative_to(run.path)))
                count += 1
        with zipfile.ZipFile(part) as packed:
            if damaged := packed.testzip():
                raise PointError(f"{archive}: {damaged} was not written as it was read")
    return count


def unpack(archive: Path, folder: Path) -> RunFolder:
    """Make a run again from its one file; its checksums are compared.

    Args:
        archive: made by :func:`pack`.
        folder: in which the run's folder is made, by its own name.

    Raises:
        InputError: it is no such file, is damaged, needs more room than there is, or the run's
            folder is there already. Nothing is left behind then.
        OSError: it cannot be read or written.
    """
    try:
        with open_regular(archive) as file, zipfile.ZipFile(file) as packed:
            run = RunFolder(folder.resolve() / _name_in(packed, archive))
            if run.path.exists():
                raise InputError(f"{run.path}: is there already; move it, or give another --runs")
            folder.mkdir(parents=True, exist_ok=True)
            if sum(one.file_size for one in packed.infolist()) > shutil.disk_usage(folder).free:
                raise InputError(f"{archive}: needs more room than {folder} has")
            _extract(packed, run)
            return run
    except _DAMAGED as error:
        raise InputError(f"{archive}: is no packed run, or is damaged ({error})") from None


def _record_of(run: RunFolder) -> Iterator[Path]:
    """Yield the files that a run cannot be made again without."""
    views = (run.database, run.artifacts, run.report)
    for path in sorted(run.path.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(run.path).parts)
        view = any(path == one or one in path.parents for one in views)
        if hidden or view:
            continue
        if path.is_symlink():
            raise InputError(f"{path}: is a link; put what it leads to in its place, and pack then")
        if path.is_file():
            yield path


def _name_in(packed: zipfile.ZipFile, archive: Path) -> str:
    """Return the name of the run that an archive holds; all of it lies in one plain folder."""
    paths = [PurePosixPath(one.filename) for one in packed.infolist()]
    names = {path.parts[0] for path in paths if len(path.parts) > 1 and ".." not in path.parts}
    whole = len(names) == 1 and all(path.parts[:1] == (*names,) for path in paths)
    if not whole or PurePosixPath(*names, "sweep.yaml") not in paths:
        raise InputError(f"{archive}: is no packed run (it has no sweep.yaml in its one folder)")
    return names.pop()


def _extract(packed: zipfile.ZipFile, run: RunFolder) -> None:
    """Unpack beside, and rename at the end: a run folder is never there by half."""
    part = run.path.with_name(f".{run.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        packed.extractall(part)
        (part / run.name).rename(run.path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
