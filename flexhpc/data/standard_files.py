"""Find the files of standard data sets; download missing image data sets with torchvision."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock

from flexhpc.errors import PointError, one_line_message

TORCHVISION_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
"""Name of the class of a data set in torchvision, which is also the name of its folder."""
_HELP = {
    "fashion_mnist": "Debian's package dataset-fashion-mnist, or torchvision's FashionMNIST files",
    "mnist": "torchvision's MNIST files (MNIST/raw/train-images-idx3-ubyte and others)",
    "cifar10": "the unpacked cifar-10-python.tar.gz (folder cifar-10-batches-py)",
    "cifar100": "the unpacked cifar-100-python.tar.gz (folder cifar-100-python)",
    "cifar5m": "the .npz files of CIFAR-5m (cifar5m_part0.npz, ...)",
    "covtype": "UCI's covtype.data.gz, or scikit-learn's cache (covertype/samples_py3)",
    "adult": "UCI's adult.data and adult.test",
    "credit": "UCI's `default of credit card clients.xls`, or Kaggle's UCI_Credit_Card.csv",
}
_DOWNLOAD_TIMEOUT = 20.0
_downloads: ContextVar[bool] = ContextVar("downloads", default=True)


def folders_to_search(source: str, root: str | None) -> list[Path]:
    """Return the folders that are searched for a data set, in order of priority."""
    if root is not None:
        return [Path(root).expanduser()]
    folders = [Path("data")]
    if variable := os.environ.get("FLEXHPC_DATA"):
        folders.insert(0, Path(variable).expanduser())
    if source in ("mnist", "fashion_mnist"):  # of Debian's packages
        folders.append(Path("/usr/share/datasets", source.replace("_", "-")))
    if source == "covtype":
        folders.append(
            Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")).expanduser()
        )
    return folders


def default_folder_settings() -> tuple[str | None, ...]:
    """Return the settings that determine the default folders to search for data.

    These are the working directory (None if it was removed) and the values of the environment
    variables FLEXHPC_DATA and SCIKIT_LEARN_DATA (None if not set).
    """
    try:
        working_directory = os.getcwd()
    except FileNotFoundError:
        working_directory = None
    variables = ("FLEXHPC_DATA", "SCIKIT_LEARN_DATA")
    return (working_directory, *map(os.environ.get, variables))


def find_or_download(
    source: str, root: str | None, candidates: Sequence[Sequence[str]]
) -> list[Path]:
    """Return the paths of an image data set's files; download missing files with torchvision.

    Args:
        source: value of ``data.source``.
        root: ``data.root``; None for the default folders.
        candidates: for each file, its possible paths relative to a root folder.

    Raises:
        PointError: a file is not found; the message lists the folders searched and says how to get
            the data.
    """
    if files := find_files(source, root, candidates):
        return files
    folders, reason = folders_to_search(source, root), ""
    if _downloads.get():
        missing = root is not None and not folders[0].is_dir()
        failure = "data.root does not exist" if missing else _download(source, folders[0])
        if files := find_files(source, root, candidates):
            return files
        reason = f", and could not be downloaded ({failure})"
    raise not_found_error(source, folders, candidates[0][0], reason)


@contextlib.contextmanager
def no_downloads() -> Iterator[None]:
    """Disable downloads in the ``with`` block; opening a missing data set raises PointError."""
    token = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(token)


def find_files(
    source: str, root: str | None, candidates: Sequence[Sequence[str]]
) -> list[Path] | None:
    """Return the paths of the files of a data set, or None if no folder contains all files.

    ``candidates`` is as in :func:`find_or_download`.
    """
    for folder in folders_to_search(source, root):
        paths = [
            next((folder / name for name in names if (folder / name).is_file()), None)
            for names in candidates
        ]
        if all(paths):
            return [path for path in paths if path is not None]
    return None


def find_table(source: str, root: str | None, names: Sequence[str]) -> Path:
    """Return the path of a table: ``root`` if it is a file, else the first file with a known name.

    ``names`` are the known names in lower case, in order of priority. The case of file names is
    ignored.

    Raises:
        PointError: the file is not found; the message lists the folders searched and says how to
            get the data.
    """
    folders = folders_to_search(source, root)
    if root is not None and folders[0].is_file():
        return folders[0]
    for folder in [root_folder / inner for root_folder in folders for inner in ("", "covertype")]:
        files = {path.name.lower(): path for path in folder.glob("*") if path.is_file()}
        if path := next((files[name] for name in names if name in files), None):
            return path
    raise not_found_error(source, folders, ", ".join(names))


def not_found_error(
    source: str, folders: Sequence[Path], files: str, reason: str = ""
) -> PointError:
    """Create an error that lists the folders searched for a data set and says how to get it."""
    searched = ", ".join(map(str, folders))
    is_downloadable = source in TORCHVISION_NAMES and not reason
    download = f"`flexhpc data prepare {source}` downloads it; or " * is_downloadable
    return PointError(
        f"data.source: {source} was not found in {searched} (searched for {files}){reason}; "
        f"{download}get {_HELP[source]} and set data.root to the folder that contains the data"
    )


def _download(source: str, root: Path) -> str:
    """Download a data set with torchvision while holding a file lock.

    Returns:
        An error message; '' if the download succeeded.
    """
    timeout = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{source}.lock"), contextlib.redirect_stdout(io.StringIO()):
            import torchvision.datasets

            socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
            getattr(torchvision.datasets, TORCHVISION_NAMES[source])(str(root), download=True)
    except Exception as error:
        return one_line_message(error)
    finally:
        socket.setdefaulttimeout(timeout)
    return ""
