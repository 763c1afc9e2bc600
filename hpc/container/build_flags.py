"""Says how an image is built at this site, for image.sh: flags of `build`, one per line.

    build_flags.py FOLDER RUNTIME     FOLDER takes the secrets; it must be gone after the build

What pip is told here (its configuration files and PIP_* variables) goes into the build as the
secret `pipconf`, a bundle of certificates as `cabundle`, ~/.netrc as `netrc`. Folders on this
machine that pip looks into are mounted read-only where the runtime can do it, under neutral names:
a mount leaves its empty folder behind. None of it ends up in the image.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

PLACES = ("index-url", "extra-index-url", "find-links")
HANDED_ON = (*PLACES, "no-index", "trusted-host", "timeout", "default-timeout", "proxy", "retries",
             "prefer-binary")  # fmt: skip
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def main(folder: Path, runtime: str) -> None:
    """Write the secrets and print the flags."""
    settings = pip_settings()
    places: list[Path] = []
    told = []
    for key in HANDED_ON:
        parts = settings.get(key, "").split()
        if key in PLACES:
            parts = [seen_inside(part, places, runtime) for part in parts]
        if value := " ".join(part for part in parts if part):
            told.append(f"{key} = {value}")
    if told:
        secret(folder / "pip.conf", "pipconf", "\n".join(["[global]", *told, ""]))
    bundles = [settings.get("cert", ""), *(os.environ.get(name, "") for name in CERTIFICATES)]
    for bundle in (Path(name).expanduser() for name in bundles if name):
        if bundle.is_file():
            print(f"--secret=id=cabundle,src={bundle.resolve()}")
            break
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if netrc.is_file():
        print(f"--secret=id=netrc,src={netrc.resolve()}")
    for number, place in enumerate(places):
        print(f"--volume={place}:/run/site/{number}:ro")


def secret(path: Path, name: str, text: str) -> None:
    """Write a secret that only we can read, and say where it is."""
    path.touch(mode=0o600)
    path.write_text(text)
    print(f"--secret=id={name},src={path}")


def pip_settings() -> dict[str, str]:
    """Return what pip is told on this machine; variables go before files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())
        sys.exit(f"what pip is told here cannot be found out: {said or 'pip config list failed'}")
    files: dict[str, str] = {}
    variables: dict[str, str] = {}
    for line in done.stdout.splitlines():
        found = re.fullmatch(r"(:env:|global|install|download)\.([\w-]+)=(.*)", line)
        if found is not None:
            into = variables if found[1] == ":env:" else files
            into[found[2]] = str(ast.literal_eval(found[3]))
    return files | variables


def seen_inside(part: str, places: list[Path], runtime: str) -> str:
    """Return a setting's part as the build sees it; a folder is added to ``places``.

    An index in a folder may refer to files beside it, so the folder around it is mounted.
    """
    address = part.startswith("file:")
    path = Path(unquote(urlparse(part).path) if address else part).expanduser().absolute()
    if not address and (":" in part or not path.is_dir()):
        return part
    place, rest = (path.parent, path.name) if address else (path, "")
    if not path.is_dir() or place == Path("/"):
        return ""
    if runtime != "podman":
        print(f"{runtime} build cannot look into {path}: left out", file=sys.stderr)
        return ""
    if place not in places:
        places.append(place)
    inside = f"/run/site/{places.index(place)}/{rest}".rstrip("/")
    return f"file://{inside}" if address else inside


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
