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

from flexhpc.analysis.samples import SampleScores, group_title
from flexhpc.config.sections.data import Images
from flexhpc.data import load_samples
from flexhpc.data.sources import open_source
from flexhpc.data.standard_files import no_downloads
from flexhpc.errors import PointError

_PICTURES = 10
_PICTURE_HEIGHT = 56
"""Approximate height of a picture on the page (pixels); images are enlarged by integer factors."""
_MIN_RELIABILITY = 0.5
"""Below this reliability, more than half of the variance of the hardness is noise."""
_MAX_BYTES = 3e8
"""Maximum size (bytes) of a training set that is read to show pictures of its samples."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Picture of one sample.

    Attributes:
        sample: global id of the sample.
        label: class of the sample in the data set (its name, if classes have names).
        trained_label: label of the sample in training; None if it equals ``label``.
        drawn: number of training runs that drew the sample.
        missed: number of training runs that drew the sample, but did not fit it.
        image: data URI of a PNG that shows the sample.
    """

    sample: int
    label: str
    trained_label: str | None
    drawn: int
    missed: int
    image: str


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """Part of a report on the samples of a group of points: pictures, and misses of each class.

    Attributes:
        title: description of the data set, labels and training runs.
        hardest, easiest: pictures of the hardest and of the easiest samples.
        classes: for each class of the data set: its name, and how often its samples were drawn,
            were missed and were expected to be missed.
        note: statement about the reliability of the order of the samples.
    """

    title: str
    hardest: list[Picture]
    easiest: list[Picture]
    classes: list[tuple[str, int, int, float]]
    note: str


def sample_view_of(scores: SampleScores) -> SampleView | None:
    """Create the view of a group of points, without downloading data or running user code.

    Return None if no sample was missed, or if the pictures cannot be shown: the data are not
    images of type uint8, are larger than ``_MAX_BYTES``, are not available on this machine, or
    do not have as many samples as ``scores``.
    """
    point = scores.point
    if point is None or not isinstance(point.data, Images) or not scores.missed.any():
        return None
    try:
        with no_downloads():
            part = open_source(point.data, point.seed).train
            size = len(part.labels) * math.prod(part.shape)
            if size > _MAX_BYTES or part.dtype != np.uint8 or len(part.labels) != scores.n_total:
                return None
            samples = load_samples(point.data, point.seed)
    except PointError:
        return None
    missed, labels, inputs = scores.missed, samples.labels, samples.inputs.rows
    names, trained_names = samples.source.class_names, samples.class_names
    has_other_label = (labels != part.labels) | (names is not None and trained_names is None)

    def picture(sample: int) -> Picture:
        return Picture(
            sample=int(sample), label=_class_name(part.labels[sample], names),
            trained_label=(
                _class_name(labels[sample], trained_names) if has_other_label[sample] else None
            ),
            image=_png_uri(inputs[sample]),
            drawn=int(scores.drawn[sample]), missed=int(missed[sample]),
        )  # fmt: skip

    counts = (
        np.bincount(part.labels, weights=weights)
        for weights in (scores.drawn, missed, scores.expected)
    )
    return SampleView(
        title=group_title(scores),
        hardest=[picture(sample) for sample in scores.hardest(_PICTURES)],
        easiest=[picture(sample) for sample in scores.easiest(_PICTURES)],
        classes=[
            (_class_name(i, names), int(drawn), int(missed), float(expected))
            for i, (drawn, missed, expected) in enumerate(zip(*counts, strict=True))
            if drawn
        ],
        note=_reliability_note(scores.reliability),
    )


def _reliability_note(reliability: float) -> str:
    value = "unknown" if math.isnan(reliability) else f"{reliability:.2f}"
    if reliability >= _MIN_RELIABILITY:
        return f"Reliability of the hardness: {value}."
    return (
        f"The hardness of these samples is mostly noise (reliability: {value}), so other training "
        "runs may show other samples. More training runs on the same labels are needed."
    )


def _class_name(label: int, names: Sequence[str] | None) -> str:
    return str(label) if names is None else names[label]


def _png_uri(pixels: NDArray[np.uint8]) -> str:
    """Return an image (channels, height, width) as a PNG in a data URI."""
    channels_last = pixels[0] if pixels.shape[0] != 3 else pixels.transpose(1, 2, 0)
    scale = 255.0 / max(int(channels_last.max()), 1)  # pixels of digits range from 0 to 16
    image = Image.fromarray((channels_last * scale).astype(np.uint8))
    factor = max(1, round(_PICTURE_HEIGHT / pixels.shape[1]))
    size = (image.width * factor, image.height * factor)
    png = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(png, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
