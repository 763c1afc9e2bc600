"""Copy the checkout; extract archives."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def copy_checkout(into: Path) -> None:
    """Copy the files that git tracks or does not ignore."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, into / name)


def unpack(archive: Path, folder: Path) -> None:
    """Extract a tar archive; reject files outside of the folder if Python supports it."""
    with tarfile.open(archive) as file:
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        file.extractall(folder, **options)
