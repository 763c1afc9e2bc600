"""Find the files of pretrained networks and hash their content, without importing torch."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

NAMES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights file in a folder, in the order of preference."""


def weights_file(path: str) -> Path:
    """Return the weights file: ``path`` itself, or the file in this folder that is in ``NAMES``.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    location = Path(os.path.expanduser(path))
    if location.is_file():
        return location
    if not location.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for name in NAMES:
        if (location / name).is_file():
            return location / name
    raise FileNotFoundError(f"{path}: this folder contains neither {' nor '.join(NAMES)}")


def configuration_folder(family: str) -> Path | None:
    """Return the folder of the family ``hf:FOLDER``; None for a name in the cache, such as
    ``hf:gpt2``, and for other families."""
    folder = Path(os.path.expanduser(family.removeprefix("hf:")))
    return folder if family.startswith("hf:") and folder.is_dir() else None


def _configuration_file(family: str) -> Path | None:
    """Return config.json of the family ``hf:PATH``, in its folder or in the local cache; None if it
    is not found there, and for other families."""
    if (folder := configuration_folder(family)) is not None:
        return folder / "config.json"
    if not family.startswith("hf:"):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(family.removeprefix("hf:"), "config.json")
    except (ImportError, ValueError):  # not the name of a model
        return None
    return Path(path) if isinstance(path, str) else None


def hash_network_files(family: str, pretrained: str | None) -> str | None:
    """Return the SHA-256 hash of the files that define a network, as 16 hexadecimal digits.

    These are the weights at ``pretrained``, and config.json of the family ``hf:PATH``. The result
    is None if there are none.

    Raises:
        OSError: a file does not exist or cannot be read.
    """
    files = [] if pretrained is None else [weights_file(pretrained)]
    if (configuration := _configuration_file(family)) is not None:
        files.append(configuration)
    if not files:
        return None
    hashes = [_hash_file(f.absolute(), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@lru_cache(maxsize=64)
def _hash_file(file: Path, size: int, modified: int) -> str:
    """Hash a file; its size and the time of its last change only distinguish cached results."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
