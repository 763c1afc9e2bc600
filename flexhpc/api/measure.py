"""Measure the EMC of a network that is passed as a Python object."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from flexhpc.analysis.text import estimate_text
from flexhpc.api.runs import Measurement
from flexhpc.api.sweep import without_line_numbers
from flexhpc.config.sections.search import Bayes
from flexhpc.custom.code import register_object
from flexhpc.custom.object_hash import object_hash
from flexhpc.data.custom import convert_samples
from flexhpc.errors import InputError, PointError
from flexhpc.launch.prepare import prepare_run
from flexhpc.launch.profile import LocalProfile
from flexhpc.launch.sweep import new_launch_id, write_launch
from flexhpc.store.status import PointStatus, StatusReader
from flexhpc.worker.in_process import measure_in_process

Values = Mapping[str, Any]
_REFRESH_EVERY = 0.25
"""Minimum time between two updates of the progress display (seconds)."""
_BAR_WIDTH = 24


def measure(
    model: str | Values | Callable[..., torch.nn.Module] | None = None,
    data: Any = None,
    *,
    labels: str | None = None,
    training: Values | None = None,
    search: Values | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    version: str | int | None = None,
    threads: int = 1,
    progress: bool | None = None,
) -> Measurement:
    """Measure the effective model complexity (EMC) of a network: how many samples it can fit.

    Training runs are executed one after another in this process, on a GPU if available. If ``run``
    is set, finished training runs are kept after Ctrl-C.

    Args:
        model: one of the following. It can be omitted if a custom trainer does not use a network.

            - A function or class that returns the untrained network. It is called with ``shape``
              (of a sample) and ``classes`` if it has parameters with these names.
            - The ``model`` section of a spec as a mapping, or the name of a model family.
        data: one of the following.

            - A tuple (inputs, labels) or (inputs, labels, test inputs, test labels) of arrays or
              tensors. Inputs are images (n, channels, height, width) or (n, height, width), vectors
              (n, features), lists of encoded images (bytes) or PIL images, or a mapping with
              pixel_values, or with input_ids and attention_mask. Labels of shape (n, length) are
              labels of tokens, -100 for tokens that need not be predicted.
            - A map-style data set of torch or torchvision.
            - The ``data`` section of a spec as a mapping, or the name of a data source.
        labels: value of the key ``data.labels``: ``original`` (the default), ``random`` or
            ``corrupted``.
        training: the ``training`` section of a spec: ``dict(optimizer="adamw", lr=1e-3,
            steps=2000)``. If it contains no budget, the budget is doubled until the EMC hardly
            grows, which may take minutes. The value of its key ``trainer`` may be a function that
            takes inputs and labels, and returns which samples it fitted.
        search: the ``search`` section of a spec.
        tolerance: value of the key ``search.tolerance``, unless ``search`` contains this key. With
            the default policy, the search ends when both ends of the interval are within a factor
            of 1 + ``tolerance`` of its geometric mean.
        seed: seed of subsets, random labels, initialisations and sample orders.
        run: run folder. Repeating the call resumes the measurement, also in another process. The
            commands ``flexhpc status``, ``results``, ``report`` and ``ui`` show the folder. Other
            settings need another folder. By default, results are only in the returned object, and
            no files are kept.
        version: version of ``model`` (or of the trainer), which identifies the code in later calls.
            By default, the code is identified by a hash of its source. Required with ``run`` if the
            source is unavailable, for example at an interactive prompt.
        threads: number of CPU threads of torch; 1 is fastest for small networks.
        progress: whether to show the number of training runs, the EMC, the width of its interval
            and the current training run. By default, they are shown only in a terminal or a
            notebook.

    Returns:
        The measurement: EMC, its interval, the training runs and their masks.

    Raises:
        InputError: an argument is invalid.
        PointError: the measurement failed because of the network or the data; the traceback is
            printed to stderr.
    """
    folder = Path(run).expanduser().absolute() if run is not None else None
    fixed: dict[str, dict[str, Any]] = {
        "data": _data_section(data), "training": dict(training or {}), "search": dict(search or {}),
    }  # fmt: skip
    if model is not None:
        fixed["model"] = _model_section(model, version, folder)
        is_hugging_face = str(fixed["model"].get("family")).startswith("hf:")
        if is_hugging_face and isinstance(data, (tuple, list)) and np.ndim(data[0]) == 2:
            fixed["data"]["standardise"] = "none"  # token ids
    if callable(trainer := fixed["training"].get("trainer")):
        fixed["training"]["trainer"] = _register_callable("trainer", trainer, version, folder)
    if labels is not None:
        fixed["data"]["labels"] = labels
    if tolerance is not None:
        fixed["search"].setdefault("tolerance", tolerance)
    fixed = {section: keys for section, keys in fixed.items() if keys}
    with tempfile.TemporaryDirectory(prefix="flexhpc-") as temporary, without_line_numbers():
        path = folder or Path(temporary) / "measurement"
        spec = {"name": path.name, "seed": seed, "fixed": fixed}
        prepared = prepare_run(spec, (), path.parent)
        reader = StatusReader(prepared.run, prepared.points)
        status = reader.read()[0]
        if status.state != "done" or not prepared.is_unchanged:
            profile = LocalProfile.model_construct(cpus_per_process=threads)  # validated by torch
            task = write_launch(prepared, profile, new_launch_id(), image=None, detach=True)
            previous_threads = torch.get_num_threads()
            try:
                with _show_progress(progress, lambda: reader.read()[0]) as update:
                    measure_in_process(task, prepared.points[0], update)
            finally:
                torch.set_num_threads(previous_threads)
            status = StatusReader(prepared.run, prepared.points).read()[0]
        measurement = Measurement(run=prepared.run, status=status)
        if folder is None:  # the run folder will be removed
            measurement = replace(measurement, masks_in_memory=measurement.masks)
        return measurement


def _model_section(
    model: str | Values | Callable[..., torch.nn.Module], version: str | int | None,
    folder: Path | None,
) -> dict[str, Any]:  # fmt: skip
    if isinstance(model, str):
        return {"family": model}
    if isinstance(model, Mapping):
        return dict(model)
    if not callable(model) or isinstance(model, torch.nn.Module):
        raise InputError(
            "model: must be a function that returns an untrained network, such as lambda: Net(), "
            "not a network object"
        )
    return {"family": _register_callable("model", model, version, folder)}


def _register_callable(
    key: str, code: Callable[..., Any], version: str | int | None, folder: Path | None
) -> str:
    """Register a model or trainer for use in a spec; return the name that the spec uses."""
    identity = str(version) if version is not None else object_hash(code)
    if identity is None:
        if folder is not None:
            raise InputError(
                f"{key}: cannot be identified in later calls, because its source, or the source of "
                "an object that it uses, is unavailable; set the argument version"
            )
        identity = f"{os.getpid()}"
    name = getattr(code, "__name__", type(code).__name__)
    return register_object(name if name.isidentifier() else key, identity, code)


def _data_section(data: Any) -> dict[str, Any]:
    if data is None:
        raise InputError("data: is required; pass (inputs, labels)")
    if isinstance(data, str):
        return {"source": data}
    if isinstance(data, Mapping):
        return dict(data)
    try:
        arrays = convert_samples("data", data)
    except PointError as error:
        raise InputError(str(error)) from None
    content = hashlib.sha256()
    for column in arrays:
        is_tokens = isinstance(column, dict)
        array = column["input_ids"] if is_tokens else column
        content.update(f"{'tokens ' * is_tokens}{array.shape} {array.dtype.str}".encode())
        content.update(np.ascontiguousarray(array).data)  # avoids a copy
    return {"source": register_object("arrays", content.hexdigest()[:16], arrays)}


@contextmanager
def _show_progress(
    requested: bool | None, read_status: Callable[[], PointStatus]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a callback that shows the progress of the search and of the current training run.

    Args:
        requested: whether to show it; if None, only in a terminal or a notebook.
        read_status: function that reads the status of the point.
    """
    console = Console()
    if requested is None:
        requested = console.is_terminal or console.is_jupyter
    if not requested:
        yield lambda _: None
        return
    with _notebook_output() if console.is_jupyter else _terminal_output(console) as show:
        status, last_probe, last_time = read_status(), None, -math.inf

        def update(state: dict[str, Any]) -> None:
            nonlocal status, last_probe, last_time
            if time.monotonic() < last_time + _REFRESH_EVERY:
                return
            probe = (state["n"], state["repeat"])
            if probe != last_probe:
                status, last_probe = read_status(), probe
            show(_progress_view(status, state))
            last_time = time.monotonic()

        yield update


@contextmanager
def _terminal_output(console: Console) -> Iterator[Callable[[Table], None]]:
    with Live(console=console, transient=True) as live:
        yield live.update


@contextmanager
def _notebook_output() -> Iterator[Callable[[Table], None]]:
    """Yield a function that replaces the displayed table.

    ``rich.live`` would require ipywidgets.
    """
    from IPython.display import display

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    try:
        yield handle.update
    finally:
        handle.update({"text/plain": ""}, raw=True)


def _progress_view(status: PointStatus, state: dict[str, Any]) -> Table:
    """Return the view of a search: training runs, EMC, width of its interval, current run.

    The number of training runs that a tolerance requires is about inversely proportional to the
    square of the width of the interval. The first bar is based on this rule.
    """
    runs, fraction = status.training_runs, None
    texts = [f"{runs} training run{'' if runs == 1 else 's'}"]
    estimate, search = status.estimate, status.point.search
    if estimate is not None:
        texts += [f"budget x{2**estimate.stage}"] if estimate.stage else []
        texts.append(f"EMC {estimate_text(status)}")
        if isinstance(search, Bayes) and estimate.emc_lo and estimate.emc_hi:
            width = max(math.sqrt(estimate.emc_hi / estimate.emc_lo) - 1, 1e-9)
            texts.append(f"within {100 * width:.0f} % (tolerance {100 * search.tolerance:g} %)")
            fraction = min(1.0, (math.log1p(search.tolerance) / math.log1p(width)) ** 2)
    grid = Table.grid(padding=(0, 1))
    for name, completed, total, text in (
        ("search", fraction or 0, None if fraction is None else 1, ", ".join(texts)),
        (f"n = {state['n']}", state["epoch"], state["epochs"] or None,
         f"epoch {state['epoch']}, {state['n_errors']} missed"),
    ):  # fmt: skip
        grid.add_row(name, ProgressBar(total=total, completed=completed, width=_BAR_WIDTH), text)
    return grid
