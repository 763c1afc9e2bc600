"""A look at what a spec names, before anything is started: does it open, does it fit together."""

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

_Seen = tuple[tuple[int, ...], int]


def look(points: Sequence[Point]) -> Iterator[tuple[bool, str]]:
    """Yield what is wrong on this machine, each once.

    Data are opened, but for image sets that are well known: a sweep may download them. Networks
    that no spec can be checked for by itself, those of timm and of the user's own, are built, and
    run once on two samples of zeros; torch is imported for them only.

    Yields:
        Whether it is an error anywhere, and what: that a well-known data set is not here says
        nothing of where the sweep will run.
    """
    shapes: dict[str, _Seen | None] = {}
    said: set[str] = set()
    seen: set[tuple[str, int, str]] = set()
    trainers = {
        point.training.model_dump_json(): point.training.to_call
        for point in points
        if isinstance(point.training, CustomTrainer)
    }
    for trainer in trainers.values():
        if (wrong := _wrong(trainer.import_it)) and wrong not in said:
            said.add(wrong)
            yield True, wrong
    for point in points:
        data, model = point.data, point.model
        where = data.model_dump_json(include={*data.reading_keys(), *data.marked(LOCATION)})
        if where not in shapes:
            try:
                with _tracebacks_aside():
                    shapes[where] = _shape(data, point.seed)
            except PointError as error:
                shapes[where] = None
                yield not isinstance(data, KnownTable), str(error)
        shape = shapes[where]
        if shape is None or not isinstance(model, (CustomModel, Timm)):
            continue
        classes = _classes(data, shape[1])
        key = (where, classes, model.model_dump_json())
        if key in seen:
            continue
        seen.add(key)
        from flexhpc.models import count_parameters

        wrong = _wrong(partial(count_parameters, model, shape[0], classes))
        if wrong and wrong not in said:
            said.add(wrong)
            yield True, wrong


def _wrong(call: Callable[[], object]) -> str | None:
    """Call something; return what is wrong with what it needs."""
    try:
        with _tracebacks_aside():
            call()
    except PointError as error:
        return str(error)
    return None


def _tracebacks_aside() -> contextlib.redirect_stderr[io.StringIO]:
    """Leave out the tracebacks of a user's code, which are for the log of a point."""
    return contextlib.redirect_stderr(io.StringIO())


def _shape(data: Data, seed: int) -> _Seen:
    """Return shape of a sample and number of classes of the data set itself."""
    known = known_shape(data)
    if known is not None and isinstance(data, ImageSet):
        return known[0], known[1]
    source = open_source(data, seed)
    return source.train.shape, source.classes


def _classes(data: Data, own: int) -> int:
    """Return how many classes the labels have."""
    if data.class_map is not None:
        return len(set(data.class_map))
    return data.classes or own
