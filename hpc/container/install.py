"""Install pinned Python packages into the image, without pip's cache (run by the Dockerfile).

    install.py tools                the build requirements of flexhpc's wheel
    install.py torch cuda|cpu       torch, and torchvision and timm if compatible builds exist
    install.py packages             all other dependencies in pyproject.toml, and those of the
                                    extra finetuning

`cuda` installs the pinned builds. `cpu` installs the pinned CPU build (local version `+cpu`), or
the newest CPU build that pip finds if none is pinned. torchvision and timm are installed
only if both torch and torchvision have a CPU build of the pinned version. pip's configuration and
the certificates of the site are build secrets, which are not stored in the image.
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
SECRET_NAMES = {"PIP_CONFIG_FILE": "pipconf", "PIP_CERT": "cabundle", "NETRC": "netrc"}
SECRETS = {variable: Path("/run/secrets") / name for variable, name in SECRET_NAMES.items()}
TORCH = ("torch", "torchvision", "timm")


def main(group: str, build: str = "cuda") -> None:
    """Install one group of packages."""
    lines = (HERE / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    # The pins of torch are omitted, because an installed CPU build may have another version.
    other_pins = {package: version for package, version in pins.items() if package not in TORCH}
    if group == "tools":
        install(project()["build-system"]["requires"], pins)
    elif group == "packages":
        metadata = project()["project"]
        dependencies = metadata["dependencies"] + metadata["optional-dependencies"]["finetuning"]
        install([d for d in dependencies if package_name(d) not in TORCH], other_pins)
    elif build == "cuda":
        install(list(TORCH), pins)
    elif build == "cpu":
        install(cpu_builds(pins), other_pins)
    else:
        sys.exit(f"TORCH={build}: must be cuda or cpu")


def project() -> dict[str, Any]:
    """Read pyproject.toml; the Dockerfile copies it after torch, to keep torch's layer cached."""
    return tomllib.loads((HERE / "pyproject.toml").read_text())


def cpu_builds(pins: dict[str, str]) -> list[str]:
    """Return requirements for CPU builds of torch and, if available, torchvision and timm."""
    available = cpu_versions("torch")
    if not available:
        sys.exit(
            "TORCH=cpu: no CPU build of torch (version +cpu) found; add an index or a wheel folder "
            "that has one to pip's configuration (docs/containers.md)"
        )
    pinned = f"{pins['torch']}+cpu"
    vision = f"{pins['torchvision']}+cpu"
    if pinned in available and vision in cpu_versions("torchvision"):
        return [f"torch=={pinned}", f"torchvision=={vision}", f"timm=={pins['timm']}"]
    return [f"torch=={pinned if pinned in available else available[0]}"]


def cpu_versions(package: str) -> list[str]:
    """Return the available CPU builds of a package, newest first."""
    output = pip("index", "versions", package, capture=True)
    match = re.search(r"Available versions: (.*)", output)
    return [v for v in (match[1].split(", ") if match else []) if v.endswith("+cpu")]


def install(requirements: list[str], pins: dict[str, str]) -> None:
    """Install requirements with pins as constraints."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{package}=={version}\n" for package, version in pins.items())
        file.flush()
        pip("install", "--no-cache-dir", "--quiet", "--constraint", file.name, *requirements)


def pip(*arguments: str, capture: bool = False) -> str:
    """Run pip with the site's configuration; return its output if ``capture``."""
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


def package_name(requirement: str) -> str:
    """Return the package name of a requirement."""
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
