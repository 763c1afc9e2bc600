"""Where a known image set may lie, and how it gets there."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from flexhpc.errors import PointError

_SYSTEM = {
    "fashion_mnist": Path("/usr/share/datasets/fashion-mnist"),
    "mnist": Path("/usr/share/datasets/mnist"),
}
_CLASSES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
_HELP = {
    "fashion_mnist": "`apt-get install dataset-fashion-mnist`, or torchvision's FashionMNIST files",
    "mnist": "torchvision's MNIST files (MNIST/raw/train-images-idx3-ubyte and its labels)",
    "cifar10": "cifar-10-python.tar.gz unpacked (cifar-10-batches-py/)",
    "cifar100": "cifar-100-python.tar.gz unpacked (cifar-100-python/)",
}
_DOWNLOAD_TIMEOUT = 20.0


def roots(source: str, root: str | None) -> list[Path]:
    """Return the folders to search, best first."""
    if root is not None:
        return [Path(root).expanduser()]
    places = [Path("data")]
    if variable := os.environ.get("FLEXHPC_DATA"):
        places.insert(0, Path(variable).expanduser())
    if source in _SYSTEM:
        places.append(_SYSTEM[source])
    return places


def find(source: str, root: str | None, wanted: Sequence[Sequence[str]]) -> list[Path]:
    """Return the files of a data set, downloading it through torchvision if it is nowhere.

    Args:
        source: name of the set.
        root: the user's folder, or None for the usual places.
        wanted: per file, its possible paths relative to a root.

    Raises:
        PointError: not found; names the places searched and how to get the data.
    """
    places = roots(source, root)
    if files := _look(places, wanted):
        return files
    fixed = root is not None and not places[0].is_dir()
    reason = "no such folder" if fixed else _download(source, places[0])
    if files := _look(places, wanted):
        return files
    searched = ", ".join(str(place) for place in places)
    raise PointError(
        f"data.source: {source} was not found in {searched} (searched for {wanted[0][0]}), and "
        f"could not be downloaded ({reason}); get {_HELP[source]} and set data.root to its folder"
    )


def _look(places: Sequence[Path], wanted: Sequence[Sequence[str]]) -> list[Path] | None:
    for place in places:
        found = [
            next((place / name for name in names if (place / name).is_file()), None)
            for names in wanted
        ]
        if all(found):
            return [path for path in found if path is not None]
    return None


def _download(source: str, root: Path) -> str:
    """Try torchvision's download, one process at a time; return why it failed, or ''."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        before = socket.getdefaulttimeout()
        with FileLock(root / f".{source}.lock"), contextlib.redirect_stdout(io.StringIO()):
            import torchvision.datasets

            socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
            try:
                getattr(torchvision.datasets, _CLASSES[source])(str(root), download=True)
            finally:
                socket.setdefaulttimeout(before)
    except Exception as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""
