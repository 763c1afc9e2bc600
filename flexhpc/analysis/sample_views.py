"""Pictures of the hardest and the easiest samples of a sweep, and how its classes fare."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flexhpc.analysis.samples import SampleScores, title
from flexhpc.config.sections.data import Images
from flexhpc.data import load_samples
from flexhpc.data.places import no_downloads
from flexhpc.data.sources import open_source
from flexhpc.errors import PointError

_SHOWN = 10
_PIXELS = 56
"""Height of a picture on the page, as whole multiples of its own."""
_MOST_BYTES = 3e8
"""Of a training set that is read for pictures."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One sample.

    Attributes:
        sample: its global id; label: its class in the data set; trained: the class that networks
            were trained to give it, if it is another. By name, where they have names.
        drawn, missed: trainings; image: as a data URI.
    """

    sample: int
    label: str
    trained: str | None
    drawn: int
    missed: int
    image: str


@dataclass(frozen=True, kw_only=True)
class ClassRate:
    """How the samples of one original class fare: draws and misses, and misses expected."""

    label: str
    drawn: int
    missed: int
    expected: float


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """What a report shows of the samples of one data set and kind of labels."""

    title: str
    hardest: list[Picture]
    easiest: list[Picture]
    classes: list[ClassRate]


def view_of(scores: SampleScores) -> SampleView | None:
    """Return pictures of samples, where the data are images that can be opened here.

    Nothing is downloaded for it, and no code of a user's is called.
    """
    point = scores.point
    if point is None or not isinstance(point.data, Images) or not scores.missed.any():
        return None
    try:
        with no_downloads():
            part = open_source(point.data, point.seed).train
            size = len(part.labels) * math.prod(part.shape)
            if size > _MOST_BYTES or part.dtype != np.uint8 or len(part.labels) != scores.n_total:
                return None
            samples = load_samples(point.data, point.seed)
    except PointError:
        return None
    hardest, easiest = scores.hardest(_SHOWN), scores.easiest(_SHOWN)
    inputs = samples.dataset.inputs
    missed = scores.missed
    names, trained = samples.dataset.class_names, samples.class_names
    labels = samples.labels
    other = (labels != part.labels) | (names is not None and trained is None)
    pictures = [
        Picture(
            sample=int(sample), label=_called(part.labels[sample], names),
            trained=_called(labels[sample], trained) if other[sample] else None,
            image=_image(inputs[sample]),
            drawn=int(scores.drawn[sample]), missed=int(missed[sample]),
        )
        for sample in (*hardest, *easiest)
    ]  # fmt: skip
    return SampleView(
        title=title(scores),
        hardest=pictures[: len(hardest)],
        easiest=pictures[len(hardest) :],
        classes=_rates(scores, part.labels, names),
    )


def _called(label: int, names: Sequence[str] | None) -> str:
    return str(label) if names is None else names[label]


def _rates(
    scores: SampleScores, labels: NDArray[np.int64], names: Sequence[str] | None
) -> list[ClassRate]:
    drawn, missed, expected = (
        np.bincount(labels, weights=counts)
        for counts in (scores.drawn, scores.missed, scores.expected)
    )
    return [
        ClassRate(
            label=_called(i, names),
            drawn=int(drawn[i]),
            missed=int(missed[i]),
            expected=float(expected[i]),
        )
        for i in range(len(drawn))
        if drawn[i]
    ]


def _image(pixels: NDArray[np.uint8]) -> str:
    """Return an image (channels, height, width) as a PNG in a data URI."""
    shown = pixels[0] if pixels.shape[0] != 3 else pixels.transpose(1, 2, 0)
    bright = shown * (255.0 / max(int(shown.max()), 1))  # the digits go from 0 to 16
    image = Image.fromarray(bright.astype(np.uint8))
    times = max(1, round(_PIXELS / pixels.shape[1]))
    size = (image.width * times, image.height * times)
    written = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
