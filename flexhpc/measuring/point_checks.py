"""Check the data, models and trainers of a spec on this machine, before a sweep starts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from functools import partial

from flexhpc.config import Data, Point
from flexhpc.config.checks import preprocessed_info
from flexhpc.config.sections.base import LOCATION
from flexhpc.config.sections.custom import CustomModel, CustomTrainer
from flexhpc.config.sections.data import ImageSet, KnownTable
from flexhpc.config.sections.model import Timm
from flexhpc.data.sources import open_source
from flexhpc.errors import PointError

_ShapeAndClasses = tuple[tuple[int, ...], int]
"""Shape of a sample, and number of classes."""


def check_points(points: Sequence[Point]) -> dict[str, bool]:
    """Check the data, models and trainers of points on this machine.

    Data sets are opened, except for standard image sets, which a sweep may download. timm and
    custom models are built and run once on two samples of zeros, because the spec alone does not
    show whether they are valid. torch is imported only to check these models. Custom trainers are
    imported.

    Returns:
        Mapping from each message to True if it is an error, or False if it is a warning. A missing
        UCI table causes a warning, because the table may exist on the machine that runs the sweep.
    """
    problems: dict[str, bool] = {}
    checked: set[tuple[object, ...]] = set()
    shapes: dict[str, _ShapeAndClasses | None] = {}

    def check_once(key: tuple[object, ...], check: Callable[[], object]) -> None:
        if key not in checked:
            checked.add(key)
            if message := _run_check(check):
                problems[message] = True

    for training in (point.training for point in points):
        if isinstance(training, CustomTrainer):
            check_once((training.model_dump_json(),), training.custom_trainer.import_function)
    for point in points:
        data, model = point.data, point.model
        source_key = data.model_dump_json(
            include={*data.reading_keys(), *data.fields_with_mark(LOCATION)}
        )
        if source_key not in shapes:
            try:
                with _no_tracebacks():
                    shapes[source_key] = _shape_and_classes(data, point.seed)
            except PointError as error:
                shapes[source_key] = None
                problems[str(error)] = not isinstance(data, KnownTable)
        shape_and_classes = shapes[source_key]
        if shape_and_classes is None or not isinstance(model, (CustomModel, Timm)):
            continue
        from flexhpc.models import count_parameters

        shape, source_classes = shape_and_classes
        classes = _class_count(data, source_classes)
        key = (source_key, classes, model.model_dump_json())
        check_once(key, partial(count_parameters, model, shape, classes))
    return problems


def _run_check(check: Callable[[], object]) -> str | None:
    """Call a function; return the message of its PointError, or None if it succeeds."""
    try:
        with _no_tracebacks():
            check()
    except PointError as error:
        return str(error)
    return None


def _no_tracebacks() -> contextlib.redirect_stderr[io.StringIO]:
    """Return a context manager that discards stderr, where custom code prints its tracebacks."""
    return contextlib.redirect_stderr(io.StringIO())


def _shape_and_classes(data: Data, seed: int) -> _ShapeAndClasses:
    """Return the sample shape and the number of classes of a data set, before relabelling."""
    info = preprocessed_info(data)
    if info is not None and isinstance(data, ImageSet):
        return info.shape, info.classes
    source = open_source(data, seed)
    return source.train.shape, source.classes


def _class_count(data: Data, source_classes: int) -> int:
    """Return the number of classes after relabelling.

    Args:
        data: data section of the point.
        source_classes: number of classes before relabelling.
    """
    if data.class_map is not None:
        return len(set(data.class_map))
    return data.classes or source_classes
