"""Pack a run folder into one zip archive, and unpack it."""

from __future__ import annotations

import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from flexhpc.atomic import atomic_replacement, open_regular_file
from flexhpc.errors import InputError, PointError
from flexhpc.store.claim import read_claim
from flexhpc.store.run_folder import RunFolder

_DAMAGE_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip
"""Exceptions raised when a damaged archive is read. ValueError also covers its subclass
``io.UnsupportedOperation``."""
_USE_PACKED_RUN = "pass a file written by `flexhpc pack`"


def pack_run(run: RunFolder, archive: Path) -> int:
    """Pack a run folder into a zip archive, verify the archive, and return the number of files.

    Files that can be recreated (the MLflow database, the report) and files that only running
    processes need are omitted. Checkpoints are included, so an unfinished run can be resumed where
    it is unpacked.

    Args:
        run: run to pack, which is not modified.
        archive: output file; an existing file is replaced.

    Raises:
        InputError: a process is measuring a point of the run, ``archive`` lies inside the run
            folder, or the run folder contains a symbolic link.
        PointError: the checksum of an archived file does not match.
        OSError: a file cannot be read or written.
    """
    if archive.resolve().is_relative_to(run.path.resolve()):
        raise InputError(
            f"{archive}: is inside the run folder; write the archive to another folder"
        )
    for path in run.path.glob("points/*/*.claim.json"):
        claim = read_claim(path)
        if claim is not None and claim.holder_is_alive(path):
            raise InputError(
                f"{run.path}: a process on {claim.host.split(':')[0]} is measuring a point; wait "
                "until the process has ended, or stop it"
            )
    with atomic_replacement(archive) as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
            for path in _files_to_pack(run):
                packed.write(path, PurePosixPath(run.name, path.relative_to(run.path)))
        with zipfile.ZipFile(part) as packed:
            if damaged := packed.testzip():
                raise PointError(
                    f"{archive}: {damaged} is corrupt (checksum mismatch); check the disk, and "
                    "pack the run again"
                )
            count = len(packed.namelist())
    return count


def unpack_run(archive: Path, folder: Path) -> RunFolder:
    """Unpack a run, verify the checksums of its files, and return its run folder.

    Args:
        folder: parent folder in which the run folder is created under its original name.

    Raises:
        InputError: the archive is damaged or not a packed run, there is not enough disk space, or
            the run folder already exists. No partial run folder remains.
        OSError: a file cannot be read or written.
    """
    try:
        with open_regular_file(archive) as file, zipfile.ZipFile(file) as packed:
            run = RunFolder(folder.resolve() / _archived_name(packed, archive))
            if run.path.exists():
                raise InputError(
                    f"{run.path}: already exists; move it, or set --runs to another folder"
                )
            folder.mkdir(parents=True, exist_ok=True)
            size = sum(member.file_size for member in packed.infolist())
            if size > shutil.disk_usage(folder).free:
                raise InputError(
                    f"{archive}: needs {size / 1e6:,.1f} MB, more than the free disk space in "
                    f"{folder}; delete files, or set --runs to another folder"
                )
            _extract(packed, run)
            return run
    except _DAMAGE_ERRORS as error:
        raise InputError(
            f"{archive}: is not a packed run, or is damaged ({error}); {_USE_PACKED_RUN}"
        ) from None


def _files_to_pack(run: RunFolder) -> Iterator[Path]:
    """Yield all files in a run folder, except hidden files and files that can be recreated.

    Raises:
        InputError: a file that would be packed is a symbolic link.
    """
    recreatable = (run.database, run.artifacts, run.report)
    for path in sorted(run.path.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(run.path).parts)
        if hidden or any(path.is_relative_to(omitted) for omitted in recreatable):
            continue
        if path.is_symlink():
            raise InputError(f"{path}: is a symbolic link; replace it with its target")
        if path.is_file():
            yield path


def _archived_name(packed: zipfile.ZipFile, archive: Path) -> str:
    """Return the name of the archived run, which is the archive's only top-level folder.

    Raises:
        InputError: the archive is not a packed run.
    """
    paths = [PurePosixPath(member.filename) for member in packed.infolist()]
    names = {path.parts[0] for path in paths if len(path.parts) > 1 and ".." not in path.parts}
    in_one_folder = len(names) == 1 and all(path.parts[:1] == (*names,) for path in paths)
    if not in_one_folder or PurePosixPath(*names, "sweep.yaml") not in paths:
        raise InputError(
            f"{archive}: is not a packed run (it has no NAME/sweep.yaml); {_USE_PACKED_RUN}"
        )
    return names.pop()


def _extract(packed: zipfile.ZipFile, run: RunFolder) -> None:
    """Extract into a temporary folder and rename it, so that no partial run folder can appear."""
    part = run.path.with_name(f".{run.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        packed.extractall(part)
        (part / run.name).rename(run.path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
