"""Checks across sections, made when the spec is read and not later in a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flexhpc.config.resolve import Report
from flexhpc.config.sections.custom import CustomModel
from flexhpc.config.sections.data import Data, Images
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.model import (
    Model,
    NoModel,
    Sized,
)
from flexhpc.config.sections.record import Record
from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Procedure, Training
from flexhpc.config.variants import deciding_key, variants

Found = Iterator[tuple[str, str, str]]
"""(section, dotted key, problem)."""


def known_shape(data: Data) -> tuple[tuple[int, ...], int, int] | None:
    """Return (shape of a sample, classes, training samples), or None if files must be read to know
    it."""
    known = data.known
    if known is None:
        return None
    shape, classes = known.shape, known.classes
    if isinstance(data, Images):
        channels = {None: shape[0], "grey": 1, "rgb": 3}[data.colour]
        shape = (channels, data.side or shape[1], data.side or shape[2])
    if data.merge == "coarse":
        classes = known.coarse or classes
    elif data.class_map is not None:
        classes = len(set(data.class_map))
    else:
        classes = data.classes or classes
    size = known.size
    return shape, classes, size - round(size * data.test_fraction)


def generalizes(data: Data) -> bool:
    """Return whether generalization to unseen samples is possible with this data."""
    known = data.labels != "random" and data.inputs in ("original", "permuted")
    return known and not data.tokens


def check_evaluation(
    evaluate: Evaluate, data: Data, training: Procedure | None
) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) of the ``evaluate`` section for this data and training."""
    if not evaluate.wanted or not generalizes(data):
        return
    if not data.test_fraction and not data.own_test:
        what = f"{data.source} has no test set of its own; give data.test_fraction, as 0.2"
        yield evaluate.size_key, what
    known = known_shape(data)
    if known is not None and evaluate.n is not None and evaluate.n > known[2]:
        what = f"{evaluate.n} is more than the {known[2]} training samples of {data.source}"
        yield "n", f"{what}; give fewer, or full: true instead"
    if training is not None and not isinstance(training, Training):
        what = "has no effect: a trainer of your own gives no network to be tested; leave it out"
        yield evaluate.size_key, what
    warmup = training.warmup if isinstance(training, Training) else None
    if evaluate.steps is not None and warmup is not None and warmup >= evaluate.steps:
        what = f"training.warmup takes {warmup} updates and never ends within {evaluate.steps}"
        yield "steps", f"{what}; give more"


def check_record(
    record: Record, data: Data, training: Procedure | None
) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) of the ``record`` section for this data and training."""
    own = training is not None and not isinstance(training, Training)
    if record.forgetting and own:
        yield "forgetting", "a trainer of your own does not say what it misses; leave it out"
    if record.unseen is None:
        return
    if own:
        yield "unseen", "a trainer of your own gives no network to ask; leave it out"
    if data.tokens:
        yield "unseen", "random tokens that a network has not seen tell nothing; leave it out"
    known = known_shape(data)
    if known is not None and record.unseen > known[2]:
        what = f"{record.unseen} is more than the {known[2]} training samples of {data.source}"
        yield "unseen", f"{what}; give fewer"


def check_together(data: Data, model: Model, training: Procedure | None, report: Report) -> bool:
    """Check that data, model and training can be combined; every error goes to ``report``.

    ``training`` is None if it is invalid itself.
    """
    clashes = [*_labels(data), *_shapes(data, model)]
    if training is not None:
        clashes += _training(model, training)
    for section, key, what in clashes:
        report((section, *key.split(".")), what)
    return not clashes


def check_tuned(search: Search | None, keys: Sequence[tuple[str, ...]], report: Report) -> bool:
    """Check that a search can tune the given keys; an error goes to ``report``."""
    if not keys or search is None:
        return True
    what = ""
    if not search.tunes:
        what = f"is tuned, which only search.policy: bayes can, not {search.policy}; give a value"
    elif getattr(search, "eps", None) is not None:
        what = "is tuned for a perfect fit; leave search.eps out, `flexhpc results --eps` gives it"
    if what:
        report(keys[0], what)
    return not what


def _training(model: Model, training: Procedure) -> Found:
    if isinstance(model, NoModel):
        if isinstance(training, Training):
            what = "goes with training.trainer only, which brings a model of its own"
            yield "model", "family", f"{what}; choose a network"
        return
    if isinstance(training, Training) and training.shards is not None and model.batch_norm:
        what = "BatchNorm needs the whole batch at once, shards take its parts one by one"
        yield "training", "shards", f"{what}; leave it out"
    if getattr(model, "init", "") == "mup" and not training.with_mup:
        others = (
            name
            for name, cls in variants("training").items()
            if issubclass(cls, Procedure) and cls.with_mup
        )
        named = getattr(training, deciding_key("training", type(training)))
        what = f"mup has no rule for {named}; use one of {', '.join(others)}"
        yield "model", "init", what
    if training.for_matrices and getattr(model, "subspace", None) is not None:
        what = "is for matrices, and a subspace has one vector to train, which AdamW would do"
        yield "training", "optimizer", f"{what}; use adamw"


def _labels(data: Data) -> Found:
    own = data.known.classes if data.known is not None and not data.drawn else None
    if data.merge == "coarse" and not (data.known and data.known.coarse):
        what = f"{data.source} has no super-classes of its own; give class_map"
        yield "data", "merge", what
    if data.class_map is not None and own not in (None, len(data.class_map)):
        what = f"must give a new class for each of the {own} of {data.source}"
        yield "data", "class_map", f"{what}, not for {len(data.class_map)}"
    merged = data.classes if data.merge == "random" else None
    if merged is not None and own is not None and merged > own:
        what = f"{merged} is more than the {own} classes of {data.source}"
        yield "data", "classes", f"{what}, and merging makes fewer"


def _shapes(data: Data, model: Model) -> Found:
    if data.tokens and not model.tokens and not isinstance(model, CustomModel):
        what = f"{data.source} gives sequences of tokens; use gpt"
        yield "model", "family", what
    if model.tokens and not data.tokens:
        what = f"{model.family} predicts tokens; use random_tokens"
        yield "data", "source", what
    if data.vectors and model.images_only:
        what = f"{model.family} takes images, {data.source} gives vectors; use linear or mlp"
        yield "model", "family", what
    compound = isinstance(model, Sized) and model.scaling == "compound"
    if data.vectors and compound:
        what = f"compound resizes images, {data.source} gives vectors"
        yield "model", "scaling", f"{what}; use width, depth or both"
    if (known := known_shape(data)) is None:
        return
    shape, _, size = known
    patch = getattr(model, "patch", None)
    if len(shape) == 3 and patch is not None and not compound:
        sides = [p for p in range(1, shape[1] + 1) if all(s % p == 0 for s in shape[1:])]
        if patch not in sides:
            what = (
                f"{patch} does not divide the {shape[1]}x{shape[2]} images of "
                f"{data.source}; use one of {', '.join(map(str, sides))}"
            )
            yield "model", "patch", what
    if data.test_fraction and known_shape(data.model_copy(update={"test_fraction": 0.0})) == known:
        what = f"holds out less than one of the {size} samples of {data.source}"
        yield "data", "test_fraction", f"{what}; give more"
    if data.n_max is not None and data.n_max > size:
        what = f"{data.n_max} is more than the {size} training samples of {data.source}"
        yield "data", "n_max", f"{what}; leave it out"
