"""Command ``probe``: do one training run in this process and show its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexhpc.cli import options
from flexhpc.errors import InputError, one_line_message

if TYPE_CHECKING:
    from torch import nn

    from flexhpc.config import Point


def probe(
    spec: options.Spec,
    n: Annotated[int, typer.Option(min=1, help="Number of samples.")],
    point: Annotated[str, typer.Option(help="Id or index of the point.")] = "0",
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Use this seed instead of the seed of the point."),
    ] = None,
    repeat: Annotated[
        int,
        typer.Option(
            min=0,
            help="Index (from 0) of the training run among those with the same n and arm.",
        ),
    ] = 0,
    arm: Annotated[
        int, typer.Option(min=0, help="Index of the arm (combination of tuned values).")
    ] = 0,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the weights of the trained network to this .safetensors file."),
    ] = None,
    overrides: options.Set = None,
) -> None:
    """Do one training run with verbose output; store nothing but the weights (--save)."""
    from flexhpc.config import load_points

    _, points = load_points(spec, overrides or ())
    selected = find_point(points, point)
    if seed is not None:
        selected = replace(selected, seed=seed)
    if arm >= len(selected.arms):
        raise InputError(f"--arm {arm}: the point has arms 0 to {len(selected.arms) - 1}")

    if save is not None:
        _check_save(save, selected)
    from flexhpc.data import load_samples
    from flexhpc.measuring.point import parameter_counts
    from flexhpc.measuring.probe import choose_device, run_probe
    from flexhpc.search import Probe
    from flexhpc.training import Callbacks, Group

    device = choose_device(threads=1)
    samples = load_samples(selected.data, selected.seed)
    if n > len(samples.pool):
        raise InputError(f"--n {n}: {samples.source.name} has only {len(samples.pool)} samples")
    typer.echo(f"point {selected.index} {selected.id} {selected.label}")
    count = parameter_counts(selected, samples).trained
    size = f"{count:,} parameters, " if count else ""
    typer.echo(f"{size}n={n}, seed {selected.seed}, on {device}")

    for key, value in selected.arms[arm].values.items():
        typer.echo(f"{key} {value:g}")

    def save_weights(network: nn.Module) -> dict[str, float]:
        if save is not None:
            from safetensors import SafetensorError
            from safetensors.torch import save_model

            try:
                save_model(network, str(save))
            except (OSError, RuntimeError, SafetensorError) as error:
                typer.echo(
                    f"--save: {save} cannot be written ({one_line_message(error)})", err=True
                )
        return {}

    with _show_progress(n) as update:
        callbacks = Callbacks(on_progress=update, on_train_end=save_weights)
        outcome = run_probe(
            selected, samples, Probe(n, repeat, arm), None, Group(device), callbacks
        )
    typer.echo(
        f"verdict {outcome.verdict}: missed {outcome.n_errors} of {n} after {outcome.epochs} "
        f"epochs, {outcome.steps} steps, {outcome.cost:,} sample passes, {outcome.seconds:.1f} s"
    )
    for name, value in outcome.metrics.items():
        typer.echo(f"{name} {value:.6g}")
    missed = outcome.subset[~outcome.fitted]
    if len(missed):
        typer.echo(f"missed samples (global ids): {' '.join(map(str, missed[:20]))}"
            + (" ..." if len(missed) > 20 else ""))  # fmt: skip


def _check_save(save: Path, point: Point) -> None:
    """Raise InputError if the weights of a point's network cannot be written to ``save``."""
    from flexhpc.config.sections.custom import CustomTrainer

    if isinstance(point.training, CustomTrainer):
        raise InputError("--save: a custom trainer returns no network")
    if keys := getattr(point.model, "reparameterizations", []):
        raise InputError(f"--save: cannot be combined with model.{keys[0]}; remove it")
    if save.suffix != ".safetensors":
        raise InputError(f"--save: {save}: must end in .safetensors")
    try:
        save.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--save: {one_line_message(error)}") from None


@contextmanager
def _show_progress(n: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a callback that shows the progress of training on ``n`` samples.

    The callback prints a line whenever the number of missed samples changes and, in a terminal,
    updates a progress bar. Its argument is a dict with the keys ``epoch``, ``epochs`` (None if
    unlimited), ``n_errors``, ``loss`` and ``elapsed`` (seconds).
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    text = TextColumn("{task.description}")
    bar = Progress(TextColumn("epoch"), BarColumn(), MofNCompleteColumn(), text, transient=True)
    bar.disable = not bar.console.is_terminal
    task = bar.add_task("", total=None)
    missed = -1
    unprinted: dict[str, Any] = {}

    def print_line(state: dict[str, Any]) -> None:
        line = (
            f"epoch {state['epoch']}/{state['epochs'] or '-'}  loss {state['loss']:.6g}  "
            f"accuracy {1 - state['n_errors'] / n:.4f}  missed {state['n_errors']}  "
            f"{state['elapsed']:.1f} s"
        )
        bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(state: dict[str, Any]) -> None:
        nonlocal missed, unprinted
        description = f"missed {state['n_errors']} of {n}, loss {state['loss']:.4g}"
        bar.update(
            task, completed=state["epoch"], total=state["epochs"] or None, description=description
        )
        unprinted = state
        if state["n_errors"] != missed:
            missed, unprinted = state["n_errors"], {}
            print_line(state)

    try:
        with bar:
            yield update
    finally:
        if unprinted:
            print_line(unprinted)


def find_point(points: Sequence[Point], index_or_id: str) -> Point:
    """Find a point by its index, its id or a unique prefix of its id.

    Raises:
        InputError: no point matches, or several points match.
    """
    if index_or_id.isdecimal() and int(index_or_id) < len(points):
        return points[int(index_or_id)]
    matches = [point for point in points if point.id.startswith(index_or_id)]
    if len(matches) == 1:
        return matches[0]
    problem = "matches several points" if matches else "matches no point"
    raise InputError(
        f"--point {index_or_id}: {problem}; `flexhpc plan` lists the index and id of all "
        f"{len(points)} points"
    )
