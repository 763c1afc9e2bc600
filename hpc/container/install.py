"""Installs Python packages into the image, as the Dockerfile says: pinned, and with no cache.

    install.py tools                what builds flexhpc's own wheel
    install.py torch cuda|cpu       torch; with it torchvision and timm, where they go together
    install.py packages             everything else that pyproject.toml asks for

`cuda` takes the pinned builds. `cpu` takes the newest CPU build (a local version, `+cpu`) that the
index or a wheel folder offers, best the pinned one; torchvision and timm come along only if there
is a CPU build of the pinned torchvision beside the pinned torch. pip's configuration and the
certificates of the site are there as build secrets while this runs, and nowhere else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GIVEN = {"PIP_CONFIG_FILE": "pipconf", "PIP_CERT": "cabundle", "NETRC": "netrc"}
SECRETS = {variable: Path("/run/secrets") / name for variable, name in GIVEN.items()}
TORCH = ("torch", "torchvision", "timm")


def main(what: str, build: str = "cuda") -> None:
    """Install one group."""
    lines = (HERE / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    if what == "tools":
        install(project()["build-system"]["requires"], pins)
    elif what == "packages":
        wanted = project()["project"]["dependencies"]
        # Their pins, and those of what they need, may be others than those of a CPU build.
        install([w for w in wanted if name(w) not in TORCH], without(pins, *TORCH))
    elif build == "cuda":
        install(list(TORCH), pins)
    elif build == "cpu":
        install(cpu_builds(pins), without(pins, *TORCH))
    else:
        sys.exit(f"TORCH={build}: must be cuda or cpu")


def project() -> dict[str, Any]:
    """Return pyproject.toml; torch goes in before it, so that its layer depends on pins alone."""
    return tomllib.loads((HERE / "pyproject.toml").read_text())


def cpu_builds(pins: dict[str, str]) -> list[str]:
    """Return what to install for a CPU build of torch."""
    offered = versions("torch")
    if not offered:
        sys.exit(
            "TORCH=cpu: no CPU build of torch (a version that ends in +cpu) is offered; name an "
            "index or a wheel folder that has one in pip's configuration (docs/containers.md)"
        )
    best = f"{pins['torch']}+cpu"
    vision = f"{pins['torchvision']}+cpu"
    if best in offered and vision in versions("torchvision"):
        return [f"torch=={best}", f"torchvision=={vision}", f"timm=={pins['timm']}"]
    return [f"torch=={best if best in offered else offered[0]}"]


def versions(package: str) -> list[str]:
    """Return the CPU builds of a package that are offered, newest first."""
    found = pip("index", "versions", package, capture=True)
    listed = re.search(r"Available versions: (.*)", found)
    return [v for v in (listed[1].split(", ") if listed else []) if v.endswith("+cpu")]


def install(wanted: list[str], pins: dict[str, str]) -> None:
    """Install requirements with these pins."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{package}=={version}\n" for package, version in pins.items())
        file.flush()
        pip("install", "--no-cache-dir", "--quiet", "--constraint", file.name, *wanted)


def pip(*arguments: str, capture: bool = False) -> str:
    """Run pip with the site's configuration; return what it says if asked for."""
    secrets = {key: str(path) for key, path in SECRETS.items() if path.is_file()}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore", **secrets},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode and not capture:
        sys.exit(done.returncode)
    return done.stdout or ""


def name(requirement: str) -> str:
    """Return the package that a requirement is about."""
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]


def without(pins: dict[str, str], *names: str) -> dict[str, str]:
    """Return the pins but for some packages."""
    return {package: version for package, version in pins.items() if package not in names}


if __name__ == "__main__":
    main(*sys.argv[1:])
