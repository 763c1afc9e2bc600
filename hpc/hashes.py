"""Write hpc/hashes.txt: a pip requirement with a hash for every archive that `make dev` installs.

Usage: python hpc/hashes.py
The archives come from pip's configured index, for this system and Python version. The lines of
packages that only tests and lint need end in `# dev`.
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
    """Write hpc/hashes.txt."""
    lines = []
    required = {package["metadata"]["name"] for package in resolved(".")}
    python = ".".join(platform.python_version_tuple()[:2])
    system = f"{platform.system()} {platform.machine()}, Python {python}"
    lines.append(f"# {system}: archives that HASHES=1 accepts; made by `python hpc/hashes.py`")
    for package in resolved(".[dev]"):
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        archive = package["download_info"].get("archive_info")
        if archive is not None:  # flexhpc itself has none
            pin = f"{name}=={version} --hash=sha256:{archive['hashes']['sha256']}"
            lines.append(pin if name in required else f"{pin}  # dev")
    (ROOT / "hpc" / "hashes.txt").write_text("\n".join(lines) + "\n")


def resolved(requirement: str) -> list[dict[str, Any]]:
    """Return pip's report on each package that ``requirement`` needs, sorted by name."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
         "--report", "-", "-c", "constraints.txt", "-e", requirement],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    install: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return sorted(install, key=lambda package: str(package["metadata"]["name"]).lower())


if __name__ == "__main__":
    main()
