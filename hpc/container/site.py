"""Says how an image is built at this site, for image.sh: flags for `podman build`, one per line.

    site.py FOLDER RUNTIME     FOLDER takes the secrets; it must be gone after the build

What pip is told here (its configuration files and PIP_* variables) goes into the build as the
secret `pipconf`, a bundle of certificates as `cabundle`. Folders on this machine that pip looks
into are mounted read-only where the runtime can do it. None of it ends up in the image, not even
the folders' names: a mount leaves its empty folder behind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

HANDED_ON = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "timeout",
             "default-timeout", "proxy", "retries", "prefer-binary")  # fmt: skip

INSIDE = "/run/site"


def main(folder: Path, runtime: str) -> None:
    """Write the secrets and print the flags."""
    settings = pip_settings()
    told = {key: value for key, value in settings.items() if key in HANDED_ON}
    found = {place for value in told.values() for place in folders(value)}
    places = sorted(found, key=len, reverse=True)  # the one that begins like another goes first
    for number, place in enumerate(places):
        told = {key: value.replace(place, f"{INSIDE}/{number}") for key, value in told.items()}
    text = [f"{key} = {value}" for key, value in told.items()]
    if text:
        secret = folder / "pip.conf"
        secret.touch(mode=0o600)
        secret.write_text("\n".join(["[global]", *text, ""]))
        print(f"--secret=id=pipconf,src={secret}")
    certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE", "")
    if os.path.isfile(certificates):
        print(f"--secret=id=cabundle,src={os.path.realpath(certificates)}")
    if runtime == "podman":
        for number, place in enumerate(places):
            print(f"--volume={place}:{INSIDE}/{number}:ro")
    elif places:
        print(f"{runtime} build cannot look into {', '.join(places)}", file=sys.stderr)


def pip_settings() -> dict[str, str]:
    """Return what pip is told on this machine; variables go before files."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    found = re.findall(r"^(:env:|global|install|download)\.([\w-]+)='(.*)'$", said, re.MULTILINE)
    ordered = sorted(found, key=lambda setting: setting[0] == ":env:")
    return {key: value.replace("\\n", " ") for _, key, value in ordered}


def folders(value: str) -> Iterator[str]:
    """Yield the folders of this machine that a setting names, as paths or file: addresses."""
    for part in value.split():
        path = unquote(urlparse(part).path) if part.startswith("file:") else part
        if path.startswith("/") and os.path.isdir(path):
            # An index folder may refer to files beside it.
            yield str(Path(path).parent if part.startswith("file:") else Path(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
