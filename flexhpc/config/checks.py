"""Check, when a spec is read, that keys of different sections can be combined."""

from __future__ import annotations

from collections.abc import Iterator

from flexhpc.config.sections.base import Problems
from flexhpc.config.sections.custom import CustomModel
from flexhpc.config.sections.data import Data, DataSetInfo, Images
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.model import Model, NoModel, Sized
from flexhpc.config.sections.record import Record
from flexhpc.config.sections.search import Bayes, Search
from flexhpc.config.sections.training import Procedure, Training
from flexhpc.config.tuned_section import TunedSection
from flexhpc.config.variants import variant_union, variants


def preprocessed_info(data: Data) -> DataSetInfo | None:
    """Return the shape, number of classes and training set size of the preprocessed data.

    Preprocessing resizes images, merges classes and holds out a test set. The result is None if
    these properties are known only after files are read.
    """
    info = data.static_info
    if info is None:
        return None
    shape, classes = info.shape, info.classes
    if isinstance(data, Images):
        channels = {None: shape[0], "grey": 1, "rgb": 3}[data.colour]
        shape = (channels, data.side or shape[1], data.side or shape[2])
    if data.merge == "coarse":
        classes = info.coarse or classes
    elif data.class_map is not None:
        classes = len(set(data.class_map))
    else:
        classes = data.classes or classes
    size = info.size - round(info.size * data.test_fraction)
    return DataSetInfo(shape=shape, classes=classes, size=size)


def can_generalize(data: Data) -> bool:
    """Return whether a model trained on this data can generalize to unseen samples."""
    informative = data.labels != "random" and data.inputs in ("original", "permuted")
    return informative and not data.has_tokens


def check_point(
    data: Data, model: Model, training: Procedure | None, evaluate: Evaluate, record: Record
) -> Problems:
    """Yield (key, problem) for each key that cannot be combined with a key of another section.

    ``training`` is None if that section is invalid.
    """
    yield from _check_labels(data)
    yield from _check_shapes(data, model)
    if evaluate.enabled and can_generalize(data):
        yield from _check_evaluate(evaluate, data, training)
    yield from _check_record(record, data, training)
    if training is not None:
        yield from _check_training(model, training)


def check_search(
    search: Search, data: Data, model: TunedSection, training: TunedSection
) -> Problems:
    """Yield (key, problem) for settings that the search does not support.

    Tuned keys require a policy with ``supports_tuning``, and ``until: saturation`` requires
    ``bayes``. Neither tuned keys nor ``until: saturation`` can be combined with ``eps``. A
    ``start`` other than the default must not exceed the number of samples.
    """
    if search.start != type(search).model_fields["start"].default:
        if data.n_max is not None and search.start > data.n_max:
            yield "search.start", f"must be at most data.n_max ({data.n_max}), not {search.start}"
        for problem in _size_problems(search.start, data):
            yield "search.start", problem
    keys = [*model.candidates, *training.candidates]
    if keys and not search.supports_tuning:
        yield keys[0], f"cannot be tuned with search.policy: {search.policy}; use bayes"
    elif keys and getattr(search, "eps", None) is not None:
        problem = "cannot be tuned with search.eps; remove eps and use `flexhpc results --eps`"
        yield keys[0], problem
    procedure = training.section
    if isinstance(procedure, Training) and procedure.until == "saturation":
        other = ("search.policy: " + search.policy, "use bayes or set a budget")
        if isinstance(search, Bayes):
            other = ("search.eps", "remove eps or set a budget")
        if not isinstance(search, Bayes) or search.eps is not None:
            key, problem = procedure.saturation_conflict(*other)
            yield f"training.{key}", problem


def _check_training(model: Model, training: Procedure) -> Problems:
    if isinstance(model, NoModel):
        if isinstance(training, Training):
            problem = "the family `none` requires training.trainer"
            yield "model.family", f"{problem}; choose another family"
        return
    if isinstance(training, Training) and training.shards is not None and model.batch_norm:
        yield "training.shards", "cannot be combined with batch normalisation; remove shards"
    if getattr(model, "init", "") == "mup" and not training.supports_mup:
        classes = variants("training").items()
        names = [name for name, cls in classes if getattr(cls, "supports_mup", False)]
        key, variant = variant_union("training").key_and_variant(dict(training))
        problem = f"mup is not implemented for training.{key}: {variant}"
        yield "model.init", f"{problem}; use one of the optimizers {', '.join(names)}"
    if training.matrices_only and getattr(model, "subspace", None) is not None:
        problem = "requires weight matrices, but model.subspace trains only a vector; use adamw"
        yield "training.optimizer", problem


def _size_problems(n: int, data: Data) -> Iterator[str]:
    """Yield a problem if ``n`` is larger than the training set."""
    info = preprocessed_info(data)
    if info is not None and n > info.size:
        yield f"{n} is more than the {info.size} training samples of {data.source}; use fewer"


def _check_evaluate(evaluate: Evaluate, data: Data, training: Procedure | None) -> Problems:
    size_key = f"evaluate.{evaluate.size_key}"
    if not data.test_fraction and not data.has_test_set:
        yield size_key, f"{data.source} has no test set; give data.test_fraction, such as 0.2"
    for problem in _size_problems(evaluate.n or 0, data):
        yield "evaluate.n", f"{problem}, or full: true"
    if training is not None and not isinstance(training, Training):
        yield size_key, "has no effect with a custom trainer, which returns no network; remove it"
    warmup = training.warmup if isinstance(training, Training) else None
    if evaluate.steps is not None and warmup is not None and warmup >= evaluate.steps:
        problem = f"must be above training.warmup ({warmup} updates), not {evaluate.steps}"
        yield "evaluate.steps", f"{problem}; use more steps"


def _check_record(record: Record, data: Data, training: Procedure | None) -> Problems:
    custom = training is not None and not isinstance(training, Training)
    if record.forgetting and custom:
        yield "record.forgetting", "is not supported with a custom trainer; remove it"
    if record.unseen is not None:
        if custom:
            yield "record.unseen", "is not supported with a custom trainer; remove it"
        if data.has_tokens:
            yield "record.unseen", "has no effect with random tokens; remove it"
        for problem in _size_problems(record.unseen, data):
            yield "record.unseen", problem


def _check_labels(data: Data) -> Problems:
    info = data.static_info
    classes = info.classes if info is not None and not data.seeded else None
    if data.merge == "coarse" and not (info and info.coarse):
        yield "data.merge", f"{data.source} has no super-classes; use class_map"
    if data.class_map is not None and classes not in (None, len(data.class_map)):
        problem = f"must have one entry for each of the {classes} classes of {data.source}"
        yield "data.class_map", f"{problem}, not {len(data.class_map)}"
    groups = data.classes if data.merge == "random" else None
    if groups is not None and classes is not None and groups > classes:
        problem = f"{groups} is more than the {classes} classes of {data.source}"
        yield "data.classes", f"{problem}; use fewer"


def _check_shapes(data: Data, model: Model) -> Problems:
    if data.has_tokens and not model.predicts_tokens and not isinstance(model, CustomModel):
        problem = f"{data.source} contains sequences of tokens"
        yield "model.family", f"{problem}; use gpt, or hf:PATH with model.task: causal_lm"
    if model.predicts_tokens and data.has_tokens is False:
        problem = f"{model.family} predicts tokens, but {data.source} has one label per sample"
        yield "data.source", f"{problem}; use a source of sequences, such as key_value"
    if data.has_vectors and model.images_only:
        problem = f"{model.family} requires images, but {data.source} contains vectors"
        yield "model.family", f"{problem}; use linear or mlp"
    compound = isinstance(model, Sized) and model.scaling == "compound"
    if data.has_vectors and compound:
        problem = f"compound also resizes images, but {data.source} contains vectors"
        yield "model.scaling", f"{problem}; use width, depth or both"
    if data.n_max is not None:
        for problem in _size_problems(data.n_max, data):
            yield "data.n_max", f"{problem}, or remove it"
    info = preprocessed_info(data)
    if info is None or data.static_info is None:
        return
    shape = info.shape
    patch = getattr(model, "patch", None)
    if len(shape) == 3 and patch is not None and not compound:
        sides = [p for p in range(1, shape[1] + 1) if all(s % p == 0 for s in shape[1:])]
        if patch not in sides:
            problem = f"{patch} does not divide the {shape[1]}x{shape[2]} images of {data.source}"
            yield "model.patch", f"{problem}; use one of {', '.join(map(str, sides))}"
    if data.test_fraction and info.size == data.static_info.size:
        problem = f"holds out less than one of the {info.size} samples of {data.source}"
        yield "data.test_fraction", f"{problem}; use a larger fraction"
