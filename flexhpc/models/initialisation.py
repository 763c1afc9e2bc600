"""Initialise the weights of a network according to ``model.init`` and ``model.gain``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from torch import nn

from flexhpc.config.sections.model import Initialised

GAINS = {
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1 + 0.01**2)),
    "tanh": 5.0 / 3.0,
    "identity": 1.0,
    "gelu": math.sqrt(2.0),
    "silu": math.sqrt(2.0),
}
"""For each activation, the gain that keeps the variance of a signal constant at initialisation (He
et al. 2015, arXiv 1502.01852, and torch.nn.init.calculate_gain). GELU and SiLU have ReLU's gain."""
BASE_WIDTH = 64
Layer = nn.Linear | nn.Conv2d
LayerInitialiser = Callable[[Layer, bool], None]
"""Function that initialises a layer in place; its second argument is True for the last layer."""


def layer_initialiser(model: Initialised) -> LayerInitialiser:
    """Return the function that initialises layers according to ``model.init``.

    With ``init: torch``, the existing weights of a layer are multiplied by ``model.gain``, and its
    biases are kept. With any other ``init``, its biases are set to zero. The gain of the last layer
    is always 1.
    """
    gain = getattr(model, "gain", None)
    if gain is None:
        default = model.init in ("torch", "lecun")
        gain = 1.0 if default else GAINS[getattr(model, "activation", "relu")]

    def initialise(layer: Layer, is_last: bool) -> None:
        layer_gain = 1.0 if is_last else float(gain)
        if model.init == "torch":
            if layer_gain != 1:
                layer.weight.data.mul_(layer_gain)
            return
        if model.init == "orthogonal":
            nn.init.orthogonal_(layer.weight, layer_gain)
        else:
            nn.init.normal_(layer.weight, std=layer_gain / math.sqrt(layer.weight[0].numel()))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    return initialise


def initialise_network(network: nn.Module, model: Initialised) -> nn.Module:
    """Initialise the linear layers and convolutions of a network in place; return the network.

    The method ``network.get_classifier()`` must return the last layer, as it does in timm's models.
    """
    initialise, head = layer_initialiser(model), cast(Any, network).get_classifier()
    for layer in linear_and_conv_layers(network):
        initialise(layer, layer is head)
    return network


def linear_and_conv_layers(network: nn.Module) -> list[Layer]:
    """Return the linear layers and convolutions of a network, in the order of ``modules()``."""
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def apply_mup(layers: list[Layer], width_ratio: float) -> None:
    """Apply the maximal update parametrisation to the layers of a network.

    The network is ``width_ratio`` times as wide as the base network. Each weight and bias gets an
    attribute ``lr_factors`` with two factors for the learning rate, the first for SGD and the
    second for Adam; see ``make_optimizer`` in training/optimizers.py. A network with only one layer
    is not changed.

    The rules are table 3 of Yang et al. 2022 (arXiv 2203.03466), with r = ``width_ratio``:

    - The variance of the weights of the last layer is divided by r.
    - The learning rate of SGD is multiplied by r for the weights of the first layer and for all
      biases before the last layer, and divided by r for the weights of the last layer.
    - The learning rate of Adam is divided by r for all weights except the weights of the
      first layer.
    """
    if len(layers) == 1:
        return
    for number, layer in enumerate(layers):
        first, last = number == 0, number == len(layers) - 1
        sgd = width_ratio if first else 1 / width_ratio if last else 1.0
        adam = 1.0 if first else 1 / width_ratio
        cast(Any, layer.weight).lr_factors = (sgd, adam)
        if layer.bias is not None:
            cast(Any, layer.bias).lr_factors = (1.0 if last else width_ratio, 1.0)
        if last:
            layer.weight.data.div_(math.sqrt(width_ratio))
