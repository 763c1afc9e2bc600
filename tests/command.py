"""Run the command line of flexhpc in the process of the test.

Its modules are imported once for all tests, and all sweeps share one fork server.
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


def run_flexhpc(
    folder: Path, *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; return its output and exit status.

    Args:
        folder: the working directory.
        arguments: of the command line.
        environment: additional environment variables.
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
        for category in (DeprecationWarning, ImportWarning, ResourceWarning):  # as by default
            warnings.simplefilter("ignore", category)
        try:
            main()
        except SystemExit as error:
            status = error.code or 0
    output = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(command, status, *output)


def flexhpc_output(folder: Path, *arguments: object) -> str:
    """Run a command, which must exit with status 0; return its output."""
    done = run_flexhpc(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
