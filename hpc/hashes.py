"""Write hpc/hashes.txt: the hash of every archive that `make dev` installs, a line of pip's each.

Usage: python hpc/hashes.py
From the package index as pip is set up to use it, for this system and this Python. Lines that only
the tests need end in `# dev`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Ask pip what it would install, without and with the tests' packages."""
    lines = []
    needed = {one["metadata"]["name"] for one in wanted(".")}
    python = ".".join(platform.python_version_tuple()[:2])
    system = f"{platform.system()} {platform.machine()}, Python {python}"
    lines.append(f"# {system}: what HASHES=1 checks; made by `python hpc/hashes.py`")
    for one in wanted(".[dev]"):
        name, archive = one["metadata"]["name"], one["download_info"].get("archive_info")
        if archive is not None:  # all but flexhpc itself
            pin = (
                f"{name}=={one['metadata']['version']} --hash=sha256:{archive['hashes']['sha256']}"
            )
            lines.append(pin if name in needed else f"{pin}  # dev")
    (ROOT / "hpc" / "hashes.txt").write_text("\n".join(lines) + "\n")


def wanted(what: str) -> list[dict[str, Any]]:
    """Return what pip's report says of each package, sorted by name."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
         "--report", "-", "-c", "constraints.txt", "-e", what],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    install: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return sorted(install, key=lambda one: str(one["metadata"]["name"]).lower())


if __name__ == "__main__":
    main()
