"""Pictures of the hardest and easiest samples of a sweep, and the miss rate of each class."""

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
"""Approximate height of a picture on the page (pixels); images are enlarged by whole factors."""
_MOST_BYTES = 3e8
"""Maximum size (bytes) of a training set that is read for pictures."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Picture of one sample.

    Attributes:
        sample: global id of the sample.
        label: its class in the data set; trained: its class in training, None if it is the same.
            Both are names if the classes have names.
        drawn: number of trainings that drew it; missed: number of these that did not fit it.
        image: the image as a data URI.
    """

    sample: int
    label: str
    trained: str | None
    drawn: int
    missed: int
    image: str


@dataclass(frozen=True, kw_only=True)
class ClassRate:
    """Numbers of draws, misses and expected misses over the samples of one original class."""

    label: str
    drawn: int
    missed: int
    expected: float


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """Pictures and class rates of one data set and kind of labels, as shown in a report."""

    title: str
    hardest: list[Picture]
    easiest: list[Picture]
    classes: list[ClassRate]


def view_of(scores: SampleScores) -> SampleView | None:
    """Return the view of samples; None if the data are not images or not available locally.

    Downloads nothing and calls no user code. Also None if no sample was missed, or if the training
    set does not have as many samples as the scores, is not stored as uint8, or is larger than
    ``_MOST_BYTES``.
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
    bright = shown * (255.0 / max(int(shown.max()), 1))  # pixels of digits range from 0 to 16
    image = Image.fromarray(bright.astype(np.uint8))
    times = max(1, round(_PIXELS / pixels.shape[1]))
    size = (image.width * times, image.height * times)
    written = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
