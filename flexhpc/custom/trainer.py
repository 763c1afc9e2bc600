"""Call custom trainers and interpret their return values.

:func:`serve` runs in a child process, so that ``measuring/trainer.py`` can kill a call at any time.
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

from flexhpc.custom.code import Code, accepted_arguments, call_user_code, import_object, to_array
from flexhpc.errors import PointError, one_line
from flexhpc.seeds import ProbeSeeds

_OPTIONAL_ARGUMENTS = ("seeds", "seed", "n", "classes", "shape", "budget", "model")
_COUNTS = ("epochs", "steps", "cost")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training budget of the ``training`` section; all values are None if it has no budget.

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
    """A custom trainer as given in a spec.

    Attributes:
        name: ``module:name``.
        pinned: whether the spec gives a version; the source is then not checked for changes.
        kwargs: additional keyword arguments for the trainer.
    """

    name: str
    code: Code
    pinned: bool
    kwargs: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Name of the trainer in messages."""
        return f"training.trainer: {self.name}"

    def import_function(self) -> Callable[..., Any]:
        """Import the trainer and check that it can be called with its ``kwargs``.

        Raises:
            PointError: it cannot be imported or called.
        """
        trainer = import_object(self.name, self.code, pinned=self.pinned, key="training.trainer")
        if not callable(trainer):
            raise PointError(f"{self.key} is a {type(trainer).__name__}, not a function")
        fit: Callable[..., Any] = trainer
        try:
            signature = inspect.signature(fit)
        except (TypeError, ValueError):  # functions written in C may have no signature
            return fit
        available = accepted_arguments(fit, dict.fromkeys(_OPTIONAL_ARGUMENTS))
        try:
            signature.bind(None, None, **{**available, **self.kwargs})
        except TypeError as error:
            raise PointError(f"{self.key}{signature}: {one_line(error)}") from None
        return fit


@dataclass(frozen=True, kw_only=True)
class TrainerCall:
    """Arguments of one call of a trainer.

    Attributes:
        inputs: standardised inputs, float32 (n, ...).
        labels: classes 0, 1, ..., int64 (n,); tokens (n, length) for sequences.
        seconds: time limit of the call.
        make_model: builds the untrained network using torch's global random state; None if the
            point has no model.
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
    """Result of a trainer.

    Attributes:
        fitted: whether each sample is fitted, bool (n,).
        loss: training loss; nan if the trainer did not return it.
        epochs: number of epochs; 0 if not returned.
        steps: number of optimizer steps; 0 if not returned.
        cost: number of samples trained on, counted in every epoch; 0 if not returned.
        metrics: all other numbers that the trainer returned, by name.
    """

    fitted: NDArray[np.bool_]
    loss: float = float("nan")
    epochs: int = 0
    steps: int = 0
    cost: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def train(call: TrainerCall) -> TrainerResult:
    """Call a trainer in this process.

    The trainer receives inputs and labels as positional arguments, its ``kwargs``, and each of the
    following for which it has a parameter: ``seeds`` (a :class:`~flexhpc.seeds.ProbeSeeds`),
    ``seed`` (an integer below 2^31), ``n``, ``classes``, ``shape`` (of a sample), ``budget`` (a
    :class:`Budget`) and ``model`` (the untrained network). The global random states of Python,
    NumPy and torch are seeded before the call.

    Raises:
        PointError: the trainer cannot be imported, raised an exception, exceeded its time limit or
            returned an invalid value.
    """
    trainer = call.trainer
    fit = trainer.import_function()
    seed = call.seeds.init % 2**31
    _seed_all(seed)
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

    returned = call_user_code(
        trainer.key, lambda: fit(call.inputs, call.labels, **arguments), call.seconds
    )
    return parse_result(trainer.key, returned, call)


def parse_result(name: str, returned: Any, call: TrainerCall) -> TrainerResult:
    """Convert the return value of a trainer.

    Args:
        name: name of the trainer, for messages.
        returned: an array: bool (n,), whether each sample is fitted; integers (n,), the predicted
            classes; or numbers (n, classes), scores whose argmax is the predicted class. Or a
            mapping with such an array under ``right``, ``predicted`` or ``scores`` respectively;
            its other values are numbers or None.
        call: the arguments of the call.

    Raises:
        PointError: the value has none of these forms.
    """
    if not isinstance(returned, Mapping):
        return TrainerResult(fitted=_to_fitted(name, "", returned, call))
    arrays = [key for key in ("right", "predicted", "scores") if key in returned]
    if len(arrays) != 1:
        raise PointError(
            f"{name} returned a mapping without exactly one of right, predicted, scores"
        )
    fitted = _to_fitted(name, arrays[0], returned[arrays[0]], call)
    numbers: dict[str, float] = {}
    for key, value in returned.items():
        if key in arrays or value is None:
            continue
        try:
            numbers[str(key)] = float(value)
        except (TypeError, ValueError):
            raise PointError(
                f"{name} returned a {type(value).__name__} as {key}, not a number"
            ) from None
    counts: dict[str, int] = {}
    for key in _COUNTS:
        value = numbers.pop(key, 0.0)
        if not (0 <= value < 2**63) or value != int(value):
            raise PointError(f"{name} returned {value:g} as {key}; must be a non-negative integer")
        counts[key] = int(value)
    loss = numbers.pop("loss", float("nan"))
    return TrainerResult(fitted=fitted, loss=loss, metrics=numbers, **counts)


def _to_fitted(name: str, key: str, returned: Any, call: TrainerCall) -> NDArray[np.bool_]:
    """Return which samples are fitted, bool (n,), from the array that a trainer returned."""
    array, n = to_array(name, returned), len(call.labels)
    dtype_kinds = {"right": "b", "predicted": "iuf", "scores": "iuf"}.get(key, "biuf")
    if call.labels.ndim > 1 and array.dtype.kind != "b":
        raise PointError(f"{name}: for sequences, return which samples are fitted, as bool ({n},)")
    if array.dtype.kind not in dtype_kinds:
        raise PointError(
            f"{name} returned {key or 'an array'} with unsupported dtype {array.dtype}"
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise PointError(f"{name} returned NaN")
    if array.shape == (n, call.classes) and key in ("", "scores") and array.dtype.kind != "b":
        return np.asarray(array.argmax(axis=1) == call.labels)
    if array.shape != (n,) or key == "scores":
        shape = f"({n}, {call.classes})" if key == "scores" else f"({n},)"
        raise PointError(f"{name} returned an array {array.shape}, not {shape} for {n} samples")
    return array if array.dtype.kind == "b" else np.asarray(array == call.labels)


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def serve(connection: Connection) -> None:
    """Run the calls received through a connection and send back results until it is closed."""
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        try:
            connection.send(train(call))
        except PointError as error:
            connection.send(error)
