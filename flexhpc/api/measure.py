"""Measure the EMC of a network that is passed as a Python object."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from flexhpc.api.runs import Measurement
from flexhpc.api.sweep import without_line_numbers
from flexhpc.custom.code import register_object
from flexhpc.custom.object_hash import object_hash
from flexhpc.data.custom import convert_samples
from flexhpc.errors import InputError, PointError
from flexhpc.launch.prepare import prepare_run
from flexhpc.launch.profile import LocalProfile
from flexhpc.launch.sweep import new_launch_id, write_launch
from flexhpc.store.status import StatusReader
from flexhpc.worker.in_process import measure_in_process

Values = Mapping[str, Any]


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
            commands ``flexhpc status``, ``results``, ``report`` and ``ui`` show the folder. By
            default, results are only in the returned object, and no files are kept.
        version: version of ``model`` (or of the trainer), which identifies the code in later calls.
            By default, the code is identified by a hash of its source. Required with ``run`` if the
            source is unavailable, for example at an interactive prompt.
        threads: number of CPU threads of torch; 1 is fastest for small networks.
        progress: whether to show a progress bar. By default, it is shown only in a terminal or a
            notebook. In a notebook, it requires ipywidgets (``pip install flexhpc[notebook]``).

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
        if is_hugging_face and isinstance(data, tuple) and getattr(data[0], "ndim", 0) == 2:
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
        status = StatusReader(prepared.run, prepared.points).read()[0]
        if status.state != "done" or not prepared.is_unchanged:
            profile = LocalProfile.model_construct(cpus_per_process=threads)  # validated by torch
            task = write_launch(prepared, profile, new_launch_id(), image=None, detach=True)
            previous_threads = torch.get_num_threads()
            try:
                with _progress_bar(progress) as update:
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
def _progress_bar(requested: bool | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a callback that shows the current n, epoch and number of missed samples.

    If ``requested`` is None, the bar is shown only in a terminal or a notebook.
    """
    columns = (
        SpinnerColumn(), TextColumn("n = {task.fields[n]}"), BarColumn(),
        TextColumn("epoch {task.completed:.0f}, {task.fields[n_errors]} missed"),
    )  # fmt: skip
    bar = Progress(*columns, transient=True)
    in_notebook = bar.console.is_jupyter
    if requested is None:
        requested = bar.console.is_terminal or in_notebook
    # In a notebook, rich requires ipywidgets, and warns at each update if it is not installed.
    bar.disable = not requested or (in_notebook and find_spec("ipywidgets") is None)
    with bar:
        task = bar.add_task("", total=None, n="-", n_errors="-")

        def update(state: dict[str, Any]) -> None:
            bar.update(
                task, completed=state["epoch"], total=state["epochs"] or None, n=state["n"],
                n_errors=state["n_errors"],
            )  # fmt: skip

        yield update
