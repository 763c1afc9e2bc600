"""Compute a network's width and depth from a scaling rule, or its width from ``match_params``."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cache, lru_cache

import torch
from pydantic import ValidationError

from flexhpc.config.sections.model import Network, Sized
from flexhpc.errors import PointError
from flexhpc.models.families import Shape, build_family

_MAX_WIDTH = 10**6


def resolve_size(model: Network, shape: Shape, classes: int) -> Network:
    """Return the ``model`` section with ``scaling`` or ``match_params`` replaced by explicit sizes.

    Widths are rounded to the nearest positive multiple of ``model.width_multiple``, and depths to
    the nearest positive integer. ``scaling`` selects the sizes that are multiplied:

    - ``width``, ``depth``, ``both``: the width, the depth, or both, by ``scale``.
    - ``compound``: the width by 1.1^scale, the depth by 1.2^scale, and the sides of images by
      1.15^scale (see :func:`scaled_shape`); Tan & Le 2019, arXiv 1905.11946, section 3.3.
    - ``vit_shape``: the width by scale^0.22, the depth by scale^0.45, and the hidden units of the
      MLPs by scale^0.6; Alabdulmohsin et al. 2023, arXiv 2305.13035.

    ``match_params`` is compared with the number of parameters of the network without its
    reparameterization.

    Args:
        model: the ``model`` section.
        shape: shape of one sample.
        classes: number of outputs of the network.

    Raises:
        PointError: the scaling rule results in sizes that the family does not support, or no width
            results in a number of parameters close to ``match_params``.
    """
    if not isinstance(model, Sized):
        return model
    if model.match_params is not None:
        return _match_params(model, shape, classes, model.match_params)
    if model.scaling is None or model.scale is None:
        return model
    return _apply_scaling(model, model.scaling, model.scale)


def scaled_shape(model: Network, shape: Shape) -> Shape:
    """Return the shape of a sample after ``compound`` scaling, which resizes images.

    Sides are multiplied by 1.15^scale and rounded to the nearest positive multiple of the patch
    size, or to the nearest positive integer if the family has no patches. Without ``compound``
    scaling, ``shape`` is returned unchanged.

    Raises:
        PointError: ``scaling`` is ``compound``, but the samples are not images.
    """
    if not isinstance(model, Sized) or model.scaling != "compound" or model.scale is None:
        return shape
    if len(shape) != 3:
        raise PointError(
            f"model.scaling: compound also resizes images, but samples have shape {shape}; "
            "use width, depth or both"
        )
    patch = getattr(model, "patch", 1)
    factor = _capped_power(1.15, model.scale)
    return (shape[0], *(_round_to_multiple(side * factor, patch) for side in shape[1:]))


def _apply_scaling(model: Sized, scaling: str, scale: float) -> Sized:
    width, depth = {
        "width": (scale, 1.0),
        "depth": (1.0, scale),
        "both": (scale, scale),
        "compound": (_capped_power(1.1, scale), _capped_power(1.2, scale)),
        "vit_shape": (scale**0.22, scale**0.45),
    }[scaling]
    base = model.model_dump()
    values = base | {"width": _round_to_multiple(base["width"] * width, model.width_multiple)}
    if base["depth"] > 0:  # 0 is a linear model, which has no depth to scale
        values["depth"] = _round_to_multiple(base["depth"] * depth, 1)
    if scaling == "vit_shape":
        units = _round_to_multiple(base["width"] * base["mlp_ratio"] * scale**0.6, 1)
        values["mlp_ratio"] = _mlp_ratio(units, values["width"])
    try:
        return type(model)(**values | {"scaling": None, "scale": None})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise PointError(
            f"model.scale: {scale:g} results in {key} {values[key]:g}, which {model.family} does "
            f"not support ({first['msg'].lower()}); use another scale"
        ) from None


@lru_cache(maxsize=1024)
def _match_params(model: Sized, shape: Shape, classes: int, target: int) -> Sized:
    """Return ``model`` with the width for which the number of parameters is closest to ``target``.

    The width is found by bisection, because the number of parameters never decreases as the width
    grows.
    """

    def with_width(width: int) -> Sized:
        return model.model_copy(update={"width": width, "match_params": None})

    @cache
    def count(width: int) -> int:
        # fork_rng, because the random state must not depend on whether a count was cached
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = build_family(with_width(width), shape, classes)
        return sum(p.numel() for p in network.parameters())

    narrowest = wide = max(model.width_multiple, model.min_width)
    if count(narrowest) > 2 * target:
        raise PointError(
            f"model.match_params: cannot match {target}: the narrowest {model.family} of this "
            f"depth (width {narrowest}) has {count(narrowest)} parameters; use a larger "
            "match_params or a smaller depth"
        )
    while count(wide) < target:
        if 2 * wide > _MAX_WIDTH:
            raise PointError(
                f"model.match_params: cannot match {target}: {model.family} of this depth has only "
                f"{count(wide)} parameters at width {wide}; use a smaller match_params or a "
                "larger depth"
            )
        wide *= 2
    widths = range(narrowest, wide + 1, model.width_multiple)
    index = bisect_left(widths, target, key=count)
    nearby = widths[max(0, index - 1) : index + 1]
    return with_width(min(nearby, key=lambda width: abs(count(width) - target)))


def _round_to_multiple(value: float, multiple: int) -> int:
    """Round ``value`` to the nearest positive multiple of ``multiple``; halves are rounded up."""
    return max(1, math.floor(value / multiple + 0.5)) * multiple


def _capped_power(base: float, exponent: float) -> float:
    return math.pow(base, min(exponent, 1_000.0))  # exceeds any network, but is finite


def _mlp_ratio(hidden_units: int, width: int) -> float:
    """Return a float ``ratio`` for which ``int(width * ratio)`` is ``hidden_units``."""
    ratio = hidden_units / width
    return ratio if int(width * ratio) == hidden_units else math.nextafter(ratio, math.inf)
