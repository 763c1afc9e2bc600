"""Checks across sections, made when the spec is read rather than deep in a run."""

from __future__ import annotations

from flexhpc.spec.resolve import Report
from flexhpc.spec.sections import Cnn, Data, Gaussian, Mlp, Model, Resnet, Timm, Training, Vit

KNOWN_SHAPES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "digits": ((1, 8, 8), 10, 1_797),
    "mnist": ((1, 28, 28), 10, 60_000),
    "fashion_mnist": ((1, 28, 28), 10, 60_000),
    "cifar10": ((3, 32, 32), 10, 50_000),
    "cifar100": ((3, 32, 32), 100, 50_000),
}
"""Per source: shape of one sample (channels, height, width), classes, size of the training set."""


def known_shape(data: Data) -> tuple[tuple[int, ...], int, int] | None:
    """Return (shape of a sample, classes, training samples) where no file must be read for it."""
    if isinstance(data, Gaussian):
        return (data.dims,), data.classes, data.size
    return KNOWN_SHAPES.get(data.source)


def check_together(data: Data, model: Model, training: Training | None, report: Report) -> bool:
    """Check that data, model and training go together; every error goes to ``report``.

    ``training`` is None where it is wrong by itself.
    """
    known = known_shape(data)
    fine = True
    normed = isinstance(model, Resnet) or (isinstance(model, Mlp) and model.norm == "batch")
    if training is not None and training.shards is not None and normed:
        what = "BatchNorm needs the whole batch at once, shards take its parts one by one"
        report(("training", "shards"), f"{what}; leave it out")
        fine = False
    if known is None:
        return fine
    shape, _, size = known
    if len(shape) == 1 and isinstance(model, Cnn | Vit | Resnet | Timm):
        what = f"{model.family} takes images, {data.source} gives vectors; use linear or mlp"
        report(("model", "family"), what)
        fine = False
    if len(shape) == 3 and isinstance(model, Vit) and any(s % model.patch for s in shape[1:]):
        sides = [p for p in range(1, shape[1] + 1) if all(s % p == 0 for s in shape[1:])]
        what = (
            f"{model.patch} does not divide the {shape[1]}x{shape[2]} images of {data.source}; "
            f"use one of {', '.join(map(str, sides))}"
        )
        report(("model", "patch"), what)
        fine = False
    if data.n_max is not None and data.n_max > size:
        what = (
            f"{data.n_max} is more than the {size} training samples of {data.source}; leave it out"
        )
        report(("data", "n_max"), what)
        fine = False
    return fine
