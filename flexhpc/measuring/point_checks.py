"""Check the data, models and trainers of a spec on this machine, before a sweep starts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flexhpc.config import Data, Point
from flexhpc.config.checks import preprocessed_info
from flexhpc.config.sections.base import LOCATION
from flexhpc.config.sections.custom import CustomModel, CustomTrainer
from flexhpc.config.sections.data import ImageSet, KnownTable
from flexhpc.config.sections.files import Arrays
from flexhpc.config.sections.model import Timm
from flexhpc.data.sources import find_samples, open_source
from flexhpc.data.standard_files import no_downloads
from flexhpc.errors import PointError


def check_points(points: Sequence[Point]) -> dict[str, bool]:
    """Check the data, models and trainers of points on this machine.

    Data sets are opened; of standard image sets, only the existence of the files is checked, and
    nothing is downloaded. timm and custom models are built and run once on two samples of zeros,
    because the spec alone does not show whether they are valid. torch is imported only to check
    these models. Custom trainers are imported.

    Returns:
        Mapping from each message to True if it is an error, or False if it is a warning. A missing
        standard data set causes a warning, because it may exist on the machine that runs the sweep.
    """
    problems: dict[str, bool] = {}
    results: dict[object, Any] = {}

    def run_once(key: object, check: Callable[[], Any], *, is_error: bool = True) -> Any:
        """Return the result of the first check with this key; None if it raised PointError."""
        if key not in results:
            results[key] = None
            try:
                # Custom code prints its tracebacks to stderr.
                with contextlib.redirect_stderr(io.StringIO()), no_downloads():
                    results[key] = check()
            except PointError as error:
                problems[str(error)] = is_error
        return results[key]

    for training in (point.training for point in points):
        if isinstance(training, CustomTrainer):
            key = ("trainer", training.model_dump_json())
            run_once(key, training.custom_trainer.import_function)
    for point in points:
        data, model = point.data, point.model
        keys = {*data.reading_keys(), *data.fields_with_mark(LOCATION)}
        source_key = data.model_dump_json(include=keys)
        if isinstance(data, ImageSet) and (info := preprocessed_info(data)) is not None:
            shape, classes = info.shape, info.classes
            find = partial(find_samples, data, point.seed)
            run_once(("files", data.source, data.root), find, is_error=False)
        else:
            is_error = not isinstance(data, (ImageSet, KnownTable))
            read = partial(_read_shape_and_classes, data, point.seed)
            if (shape_and_classes := run_once(source_key, read, is_error=is_error)) is None:
                continue
            shape, classes = shape_and_classes
            if data.class_map is not None:
                classes = len(set(data.class_map))
            else:
                classes = data.classes or classes
        if not isinstance(model, (CustomModel, Timm)):
            continue
        from flexhpc.models import count_parameters

        model_key = ("model", shape, classes, model.model_dump_json())
        run_once(model_key, partial(count_parameters, model, shape, classes))
    return problems


def _read_shape_and_classes(data: Data, seed: int) -> tuple[tuple[int, ...], int]:
    """Read a data set; return its sample shape and its number of classes before relabelling."""
    source = open_source(data, seed)
    if isinstance(data, Arrays):  # memory-mapped; reading finds values that are not finite
        for split in filter(None, (source.train, source.open_test())):
            for _ in split.blocks():
                pass
    return source.train.shape, source.classes
