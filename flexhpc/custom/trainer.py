"""Call custom trainers and interpret their return values.

:func:`serve_trainer_calls` runs in a child process, which ``measuring/trainer.py`` can kill at any
time.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.custom.code import Code, accepted_arguments, call_custom_code, import_object, to_array
from flexhpc.errors import PointError, one_line_message
from flexhpc.seeds import ProbeSeeds

_OPTIONAL_ARGUMENTS = ("seeds", "seed", "n", "classes", "shape", "budget", "model")
_COUNTS = ("epochs", "steps", "cost")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training budget that the ``training`` section specifies; passed to custom trainers.

    Attributes that the section does not specify are None.

    Attributes:
        epochs: number of passes over the samples.
        steps: number of optimizer steps.
        gradient_evaluations: number of per-sample gradient evaluations.
    """

    epochs: int | None
    steps: int | None
    gradient_evaluations: int | None


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A custom trainer as specified in a spec.

    Attributes:
        name: ``module:name``.
        code: location and version of the code when the spec was read.
        kwargs: additional keyword arguments for the trainer.
    """

    name: str
    code: Code
    kwargs: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Name of the trainer in error messages."""
        return f"training.trainer: {self.name}"

    def import_function(self) -> Callable[..., Any]:
        """Import and return the trainer; check that it can be called with its ``kwargs``.

        Raises:
            PointError: the trainer cannot be imported or does not accept its arguments.
        """
        fit: Callable[..., Any] = import_object(self.name, self.code, key="training.trainer")
        if not callable(fit):
            raise PointError(f"{self.label} is a {type(fit).__name__}, not a function")
        try:
            signature = inspect.signature(fit)
        except (TypeError, ValueError):  # functions written in C may have no signature
            return fit
        available = accepted_arguments(fit, dict.fromkeys(_OPTIONAL_ARGUMENTS))
        try:
            signature.bind(None, None, **{**available, **self.kwargs})
        except TypeError as error:
            raise PointError(
                f"{self.label}{signature} cannot be called: {one_line_message(error)}"
            ) from None
        return fit


@dataclass(frozen=True, kw_only=True)
class TrainerCall:
    """Arguments of one call of a trainer.

    Attributes:
        inputs: standardised inputs, float32 (n, ...).
        labels: class indices, int64 (n,); for sequences the tokens, int64 (n, length).
        classes: number of classes.
        seconds: time limit of the call.
        make_model: function that builds the untrained network; it uses torch's global random
            generator. None if the point has no model.
    """

    trainer: Trainer
    inputs: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    classes: int
    seeds: ProbeSeeds
    budget: Budget
    seconds: float
    make_model: Callable[[], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainerResult:
    """Result of a custom trainer.

    Attributes:
        fitted: whether each sample is fitted, bool (n,).
        loss: training loss; nan if the trainer did not return it.
        epochs: number of epochs; 0 if the trainer did not return it.
        steps: number of optimizer steps; 0 if the trainer did not return it.
        cost: number of sample passes; each sample counts once per epoch. 0 if the trainer did not
            return it.
        metrics: all other numbers that the trainer returned, by name.
    """

    fitted: NDArray[np.bool_]
    loss: float = float("nan")
    epochs: int = 0
    steps: int = 0
    cost: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def train(call: TrainerCall) -> TrainerResult:
    """Call a custom trainer in this process.

    The positional arguments of the call are the inputs and the labels. The trainer's ``kwargs`` are
    passed as keyword arguments. The following arguments are passed if the trainer has a parameter
    of the same name: ``seeds`` (a :class:`~flexhpc.seeds.ProbeSeeds`), ``seed`` (an integer below
    2^31), ``n``, ``classes``, ``shape`` (of a sample), ``budget`` (a :class:`Budget`) and ``model``
    (the untrained network). The global random generators of Python, NumPy and torch are seeded
    before the call.

    Raises:
        PointError: the trainer cannot be imported, raised an exception, exceeded its time limit or
            returned an invalid value.
    """
    trainer = call.trainer
    fit = trainer.import_function()
    seed = call.seeds.init % 2**31
    random.seed(seed)
    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
    available = {
        "seeds": call.seeds,
        "seed": seed,
        "n": len(call.labels),
        "classes": call.classes,
        "shape": call.inputs.shape[1:],
        "budget": call.budget,
    }
    if call.make_model is not None and accepted_arguments(fit, {"model": None}):
        available["model"] = call.make_model()
    arguments = {**accepted_arguments(fit, available), **trainer.kwargs}

    returned = call_custom_code(
        trainer.label, lambda: fit(call.inputs, call.labels, **arguments), call.seconds
    )
    return parse_result(returned, call)


def parse_result(returned: Any, call: TrainerCall) -> TrainerResult:
    """Convert the return value of a custom trainer to a :class:`TrainerResult`.

    The value is one of these arrays:

    - bool (n,): whether each sample is fitted;
    - numbers (n,): the predicted class of each sample;
    - numbers (n, classes): scores; the class with the highest score is the predicted class.

    Or it is a mapping with exactly one such array, under the key ``right``, ``predicted`` or
    ``scores`` respectively. All other values of the mapping are numbers or None.

    Args:
        returned: the return value.
        call: the call that returned this value.

    Raises:
        PointError: the value has none of these forms.
    """
    if not isinstance(returned, Mapping):
        return TrainerResult(fitted=_convert_to_fit_mask("", returned, call))
    label = call.trainer.label
    arrays = [key for key in ("right", "predicted", "scores") if key in returned]
    if len(arrays) != 1:
        raise PointError(
            f"{label} returned a mapping that does not have exactly one of the keys right, "
            "predicted, scores"
        )
    fitted = _convert_to_fit_mask(arrays[0], returned[arrays[0]], call)
    numbers: dict[str, float] = {}
    for key, value in returned.items():
        if key in arrays or value is None:
            continue
        try:
            numbers[str(key)] = float(value)
        except (TypeError, ValueError):
            raise PointError(
                f"{label} returned a {type(value).__name__} as {key}, not a number"
            ) from None
    counts: dict[str, int] = {}
    for key in _COUNTS:
        value = numbers.pop(key, 0.0)
        if not (0 <= value < 2**63) or value != int(value):
            raise PointError(
                f"{label} returned {value:g} as {key}; {key} must be a non-negative integer"
            )
        counts[key] = int(value)
    loss = numbers.pop("loss", float("nan"))
    return TrainerResult(fitted=fitted, loss=loss, metrics=numbers, **counts)


def _convert_to_fit_mask(key: str, value: Any, call: TrainerCall) -> NDArray[np.bool_]:
    """Convert an array that a trainer returned to a fit mask, bool (n,): whether each sample is
    fitted.

    Args:
        key: key of the array if the trainer returned a mapping, else empty.
        value: the array.
        call: the call that returned this array.
    """
    label, n = call.trainer.label, len(call.labels)
    array = to_array(label, value)
    dtype_kinds = {"right": "b", "predicted": "iuf", "scores": "iuf"}.get(key, "biuf")
    if call.labels.ndim > 1 and array.dtype.kind != "b":
        raise PointError(
            f"{label}: for sequences, return a bool array of shape ({n},) that states "
            "whether each sample is fitted"
        )
    if array.dtype.kind not in dtype_kinds:
        place = f" under the key {key}" if key else ""
        raise PointError(f"{label} returned an array{place} with unsupported dtype {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise PointError(f"{label} returned an array that contains NaN")
    if array.shape == (n, call.classes) and key in ("", "scores") and array.dtype.kind != "b":
        return np.asarray(array.argmax(axis=1) == call.labels)
    if array.shape != (n,) or key == "scores":
        shape = f"({n}, {call.classes})" if key == "scores" else f"({n},)"
        raise PointError(
            f"{label} returned an array of shape {array.shape}, but the shape for {n} "
            f"samples must be {shape}"
        )
    return array if array.dtype.kind == "b" else np.asarray(array == call.labels)


def serve_trainer_calls(connection: Connection) -> None:
    """Execute the trainer calls received on a connection; send back each result or PointError.

    Return when the connection is closed.
    """
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        try:
            connection.send(train(call))
        except PointError as error:
            connection.send(error)
