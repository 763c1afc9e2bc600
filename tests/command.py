"""flexhpc's command, run in the process of a test.

So the modules it needs are imported once for all tests, and its sweeps share one fork server.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from collections.abc import Mapping
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from flexhpc.cli import main


def flexhpc(
    folder: Path, *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder; returns what it said and its exit status.

    Args:
        folder: its working directory; arguments: as typed.
        environment: variables beside those of this process.
    """
    command = ["flexhpc", *map(str, arguments)]
    out, err = (TextIOWrapper(BytesIO(), write_through=True) for _ in range(2))
    status: object = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", command)
        for name, value in {"COLUMNS": "200", **(environment or {})}.items():
            patch.setenv(name, value)
        warnings.resetwarnings()
        for usual in (DeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", usual)
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(command, status, *said)


def succeeded(folder: Path, *arguments: object) -> str:
    """Run it in a folder, to its good end; returns what it said."""
    done = flexhpc(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
