"""Check the data, models and trainers of a spec on this machine, before a sweep starts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from flexhpc.config import Data, Point
from flexhpc.config.checks import known_shape
from flexhpc.config.sections.base import LOCATION
from flexhpc.config.sections.custom import CustomModel, CustomTrainer
from flexhpc.config.sections.data import ImageSet, KnownTable
from flexhpc.config.sections.model import Timm
from flexhpc.data.sources import open_source
from flexhpc.errors import PointError

_Shape = tuple[tuple[int, ...], int]


def validate(points: Sequence[Point]) -> Iterator[tuple[bool, str]]:
    """Check data, models and trainers on this machine; yield each distinct problem once.

    Data sets are opened, except for standard image sets, which a sweep may download. timm and
    custom models are built and run once on two samples of zeros, because the spec alone does not
    show whether they are valid; only this imports torch. Custom trainers are imported.

    Yields:
        Whether the problem is an error, and its message. A missing UCI table is not an error,
            because it may exist on the machine that runs the sweep.
    """
    shapes: dict[str, _Shape | None] = {}
    reported: set[str] = set()
    seen: set[tuple[str, int, str]] = set()
    trainers = {
        point.training.model_dump_json(): point.training.custom_trainer
        for point in points
        if isinstance(point.training, CustomTrainer)
    }
    for trainer in trainers.values():
        if (message := _error_of(trainer.import_function)) and message not in reported:
            reported.add(message)
            yield True, message
    for point in points:
        data, model = point.data, point.model
        source_key = data.model_dump_json(include={*data.reading_keys(), *data.marked(LOCATION)})
        if source_key not in shapes:
            try:
                with _no_tracebacks():
                    shapes[source_key] = _shape(data, point.seed)
            except PointError as error:
                shapes[source_key] = None
                yield not isinstance(data, KnownTable), str(error)
        shape = shapes[source_key]
        if shape is None or not isinstance(model, (CustomModel, Timm)):
            continue
        classes = _classes(data, shape[1])
        key = (source_key, classes, model.model_dump_json())
        if key in seen:
            continue
        seen.add(key)
        from flexhpc.models import count_parameters

        message = _error_of(partial(count_parameters, model, shape[0], classes))
        if message and message not in reported:
            reported.add(message)
            yield True, message


def _error_of(call: Callable[[], object]) -> str | None:
    """Return the message of the PointError that a call raises; None if it succeeds."""
    try:
        with _no_tracebacks():
            call()
    except PointError as error:
        return str(error)
    return None


def _no_tracebacks() -> contextlib.redirect_stderr[io.StringIO]:
    """Suppress stderr, to which custom code prints tracebacks for the log of a worker."""
    return contextlib.redirect_stderr(io.StringIO())


def _shape(data: Data, seed: int) -> _Shape:
    """Return the sample shape and the number of classes of a data set, before relabelling."""
    shape = known_shape(data)
    if shape is not None and isinstance(data, ImageSet):
        return shape[0], shape[1]
    source = open_source(data, seed)
    return source.train.shape, source.classes


def _classes(data: Data, default: int) -> int:
    """Return the number of classes after relabelling; ``default`` is that of the data set."""
    if data.class_map is not None:
        return len(set(data.class_map))
    return data.classes or default
