"""Run a sweep from Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flexhpc.analysis.tables import make_console
from flexhpc.api.runs import Run, make_run
from flexhpc.config.loading import MAPPING_NAME
from flexhpc.errors import InputError
from flexhpc.launch.prepare import prepare_run
from flexhpc.launch.profile import load_profile
from flexhpc.launch.sweep import run_sweep


def sweep(
    spec: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    profile: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Run or resume a sweep, like the command ``flexhpc sweep``.

    Args:
        spec: path of a YAML file, or its content as a mapping.
        runs: folder that contains the run folders.
        profile: path of a profile (YAML); by default, points are measured on this machine.
        overrides: changes to the spec in the syntax of ``--set``: ``model.width=[4,8]``.

    Returns:
        The run. If a point failed without an estimate, the attribute ``estimate`` of its
        measurement raises a PointError.

    Raises:
        InputError: the spec or the profile is invalid.
        KeyboardInterrupt: Ctrl-C was pressed; finished probes are kept.
    """
    with without_line_numbers():
        settings = load_profile(Path(profile) if profile is not None else None)
        source = Path(spec) if isinstance(spec, (str, Path)) else spec
        prepared = prepare_run(source, overrides, Path(runs))
        result = run_sweep(prepared, settings, make_console())
    if result.interrupted:
        raise KeyboardInterrupt
    return make_run(prepared.run, result.statuses)


@contextmanager
def without_line_numbers() -> Iterator[None]:
    """Remove file name and line number from error messages about a spec that is a mapping."""
    try:
        yield
    except InputError as error:
        raise InputError(
            [re.sub(rf"^{MAPPING_NAME}:\d+: ", "", line) for line in error.lines]
        ) from None
