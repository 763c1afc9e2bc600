"""Copies that tests work on: of the project, and of what an archive holds."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def copy_checkout(into: Path) -> None:
    """Copy what git knows or would add, as a clone has it: never what lies about in this tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, into / name)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive, without what could lie outside of the folder where Python knows it."""
    with tarfile.open(archive) as file:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        file.extractall(folder, **safely)
