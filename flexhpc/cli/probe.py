"""One training in this process, with every epoch shown: the debugging door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flexhpc.errors import InputError
from flexhpc.spec import Point, checked

Say = Callable[[str], Any]


def find_point(points: Sequence[Point], wanted: str) -> Point:
    """Return the point with this id (or the start of one), or this index.

    Raises:
        InputError: there is no such point, or several.
    """
    if wanted.isdecimal() and int(wanted) < len(points):
        return points[int(wanted)]
    found = [point for point in points if point.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    what = "matches several points" if found else "matches no point"
    raise InputError(
        f"--point {wanted}: {what}; `flexhpc plan` lists index and id of all {len(points)}"
    )


def one_probe(
    spec: Path,
    overrides: Sequence[str],
    wanted: str,
    n: int,
    seed: int | None,
    repeat: int,
    arm: int,
    say: Say,
) -> None:
    """Train once at ``n`` samples and say how it went.

    Raises:
        InputError: no such point, or more samples than there are.
        PointError: the data or the model does not allow it.
    """
    _, points = checked(spec, overrides)
    point = find_point(points, wanted)
    if seed is not None:
        point = replace(point, seed=seed)
    if arm >= len(point.arms):
        raise InputError(f"--arm {arm}: the point has arms 0 to {len(point.arms) - 1}")

    from flexhpc.data import load_samples
    from flexhpc.measure.point import parameters
    from flexhpc.measure.probe import choose_device, run_probe
    from flexhpc.search import Probe
    from flexhpc.training import Group, Hooks

    device = choose_device(threads=1)
    samples = load_samples(point.data, point.seed)
    if n > len(samples.pool):
        raise InputError(
            f"--n {n}: there are {len(samples.pool)} samples in {samples.dataset.name}"
        )
    say(f"point {point.index} {point.id} {point.label}")
    say(f"{parameters(point, samples):,} parameters, n={n}, seed {point.seed}, on {device}")

    for key, value in point.arms[arm].values.items():
        say(f"{key} {value:g}")

    def progress(at: dict[str, Any]) -> None:
        accuracy = 1 - at["n_errors"] / n
        say(
            f"epoch {at['epoch']}/{at['epochs'] or '-'}  loss {at['loss']:.6g}  "
            f"accuracy {accuracy:.4f}  missed {at['n_errors']}  {at['elapsed']:.1f} s"
        )

    asked, hooks = Probe(n, repeat, arm), Hooks(progress=progress)
    probe = run_probe(point, samples, asked, None, Group(device), hooks)
    say(
        f"verdict {probe.verdict}: missed {probe.n_errors} of {n} after {probe.epochs} epochs, "
        f"{probe.steps} steps, {probe.cost:,} sample passes, {probe.seconds:.1f} s"
    )
    for name, reading in probe.readings.items():
        say(f"{name} {reading:.6g}")
    missed = probe.subset[~probe.fitted]
    if len(missed):
        say(f"missed samples (global ids): {' '.join(map(str, missed[:20]))}"
            + (" ..." if len(missed) > 20 else ""))  # fmt: skip
