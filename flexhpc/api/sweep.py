"""Run a sweep from Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flexhpc.analysis.tables import make_console
from flexhpc.api.runs import Run, run_of
from flexhpc.config.loading import GIVEN
from flexhpc.errors import InputError
from flexhpc.launch.load_profile import load_profile
from flexhpc.launch.prepare import prepare
from flexhpc.launch.sweep import follow


def sweep(
    spec: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    profile: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Measure every point of a spec that is not measured yet, as ``flexhpc sweep`` does.

    Args:
        spec: a YAML file, or what would stand in it.
        runs: folder that holds the run folders.
        profile: where and how to run (YAML); by default workers on this machine.
        overrides: as ``--set``: ``model.width=[4,8]``.

    Returns:
        The run. A point that failed says why where it is asked for its estimate.

    Raises:
        InputError: the spec or the profile is wrong.
        KeyboardInterrupt: on Ctrl-C; what was measured is kept.
    """
    with sweep_errors():
        settings = load_profile(Path(profile) if profile is not None else None)
        given = Path(spec) if isinstance(spec, (str, Path)) else spec
        prepared = prepare(given, overrides, Path(runs))
        followed = follow(prepared, settings, make_console())
    if followed.interrupted:
        raise KeyboardInterrupt
    return run_of(prepared.run, followed.statuses)


@contextmanager
def sweep_errors() -> Iterator[None]:
    """Leave lines of a file that is none out of errors."""
    try:
        yield
    except InputError as error:
        raise InputError([re.sub(rf"^{GIVEN}:\d+: ", "", line) for line in error.lines]) from None
