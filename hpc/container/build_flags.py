"""Print the options of `podman build` or `docker build` for this site, one per line.

    build_flags.py FOLDER RUNTIME     secrets are written to FOLDER; delete it after the build

pip's settings (configuration files and PIP_* variables) are passed to the build as the secret
`pipconf`, a bundle of certificates as `cabundle`, ~/.netrc as `netrc`. Local folders in pip's
settings are mounted read-only if the runtime supports it. Their mount points have neutral names,
because empty mount points remain in the image. No setting is stored in the image.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

LOCATIONS = ("index-url", "extra-index-url", "find-links")
PASSED_KEYS = (
    *LOCATIONS, "no-index", "trusted-host", "timeout", "default-timeout", "proxy", "retries",
    "prefer-binary",
)  # fmt: skip
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def main(folder: Path, runtime: str) -> None:
    """Write the secrets and print the options."""
    settings = pip_settings()
    mounts: list[Path] = []
    lines = []
    for key in PASSED_KEYS:
        parts = settings.get(key, "").split()
        if key in LOCATIONS:
            parts = [path_in_build(part, mounts, runtime) for part in parts]
        if value := " ".join(part for part in parts if part):
            lines.append(f"{key} = {value}")
    if lines:
        write_secret(folder / "pip.conf", "pipconf", "\n".join(["[global]", *lines, ""]))
    bundles = [settings.get("cert", ""), *(os.environ.get(name, "") for name in CERTIFICATES)]
    for bundle in (Path(name).expanduser() for name in bundles if name):
        if bundle.is_file():
            print(f"--secret=id=cabundle,src={bundle.resolve()}")
            break
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if netrc.is_file():
        print(f"--secret=id=netrc,src={netrc.resolve()}")
    for number, mount in enumerate(mounts):
        print(f"--volume={mount}:/run/site/{number}:ro")


def write_secret(path: Path, name: str, text: str) -> None:
    """Write a secret that only this user can read, and print its option."""
    path.touch(mode=0o600)
    path.write_text(text)
    print(f"--secret=id={name},src={path}")


def pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine; environment variables override files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        error = " ".join(done.stderr.split())
        sys.exit(f"cannot read pip's settings: {error or 'pip config list failed'}")
    files: dict[str, str] = {}
    variables: dict[str, str] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"(:env:|global|install|download)\.([\w-]+)=(.*)", line)
        if match is not None:
            settings = variables if match[1] == ":env:" else files
            settings[match[2]] = str(ast.literal_eval(match[3]))
    return files | variables


def path_in_build(part: str, mounts: list[Path], runtime: str) -> str:
    """Return the path of a local folder during the build, and add its mount to ``mounts``.

    Returns "" for a folder that cannot be mounted, and other values of pip's settings unchanged.
    The parent of an index folder is mounted, because the index may refer to files next to the
    folder.
    """
    address = part.startswith("file:")
    path = Path(unquote(urlparse(part).path) if address else part).expanduser().absolute()
    if not address and (":" in part or not path.is_dir()):
        return part
    mount, rest = (path.parent, path.name) if address else (path, "")
    if not path.is_dir() or mount == Path("/"):
        return ""
    if runtime != "podman":
        print(f"{path}: omitted, {runtime} build cannot mount it", file=sys.stderr)
        return ""
    if mount not in mounts:
        mounts.append(mount)
    inside = f"/run/site/{mounts.index(mount)}/{rest}".rstrip("/")
    return f"file://{inside}" if address else inside


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
