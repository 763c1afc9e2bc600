"""The gradient of a plain chain of layers by their formulas.

Where such a network is small, much of a step is autograd's book-keeping. The formulas call the
kernels that autograd would, on the same operands, so the gradient has the same bits. Weights in one
vector would save another 3 % of a step of a small multilayer perceptron, but an update of it has
other last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from flexhpc.training.layout import as_laid_out

_aten = torch.ops.aten


class ClosedForm:
    """A plain chain of layers: forward and backward without a graph.

    Args:
        layers: what :func:`chain` found.
        label_smoothing: of the loss whose gradient is taken; with it, to rounding.

    Attributes:
        spatial: whether images lie between its layers, which are larger than these.
    """

    def __init__(self, layers: Sequence[nn.Module], label_smoothing: float) -> None:
        self.spatial = any(isinstance(x, nn.Conv2d | nn.AdaptiveAvgPool2d) for x in layers)
        self._stages = [_stage(layer) for layer in layers]
        self._weighted = next(i for i, layer in enumerate(layers) if _is_weighted(layer))
        head = layers[-1]
        assert isinstance(head, nn.Linear)
        classes, weight = head.out_features, head.weight
        eye = torch.eye(classes, dtype=weight.dtype, device=weight.device)
        self._targets = -((1 - label_smoothing) * eye + label_smoothing / classes)
        self._scaled: dict[int, Tensor] = {}

    @torch.no_grad()
    def backward(self, inputs: Tensor, labels: Tensor, of: int, *, first: bool) -> Tensor:
        """Take the gradient of the summed loss over ``of``; return log-probabilities (m, classes).

        Args:
            inputs: (m, ...); labels: int64 (m,).
            of: what the sum is divided by.
            first: whether the gradient is set, rather than added to what is there.
        """
        out, kept = inputs, []
        for stage in self._stages:
            out, its_own = stage.forward(out)
            kept.append(its_own)
        # The gradient of a mean over one batch is the same table for every batch of that size.
        if of not in self._scaled:
            self._scaled[of] = self._targets * (1.0 / of)
        logs = out.log_softmax(1)
        towards = self._scaled[of].index_select(0, labels)
        gradient = _aten._log_softmax_backward_data(towards, logs, 1, logs.dtype)
        for number in range(len(self._stages) - 1, self._weighted - 1, -1):
            further = number > self._weighted
            gradient = self._stages[number].backward(gradient, kept.pop(), first, further)
        return logs

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (m, classes) of inputs (m, ...), without the calls of modules."""
        out = inputs
        for stage in self._stages:
            out = stage.forward(out)[0]
        return out


def chain(network: nn.Module, dims: int) -> list[nn.Module] | None:
    """Return the layers of a plain chain in turn; None for any other network.

    That is nn.Sequential, nested or not, of nn.Linear and nn.Conv2d, each but the last followed by
    an elementwise function, and nn.Flatten and global average pooling before and after these pairs;
    the last is nn.Linear. Every weight is trained, stands in one place and is nothing but a
    parameter; nobody has hooked into the layers.

    Args:
        network: a network; dims: of a batch that it is given.
    """
    if type(network) is not nn.Sequential or _is_hooked(network) or _everywhere_hooked():
        return None
    layers = list(_in_turn(network))
    if not layers or type(layers[-1]) is not nn.Linear or not all(map(_is_known, layers)):
        return None
    for before, layer in zip([None, *layers[:-1]], layers, strict=True):
        if _is_weighted(before) != (type(layer) in _ACTIVATIONS):
            return None
        if isinstance(layer, nn.Flatten):
            dims = 2
        elif type(layer) not in _ACTIVATIONS and dims != (2 if type(layer) is nn.Linear else 4):
            return None
    weights = [weight for layer in layers for weight in layer.parameters()]
    alone = len({id(weight) for weight in weights}) == sum(_weights_of(layer) for layer in layers)
    return layers if alone and all(_is_plain(weight) for weight in weights) else None


class _Stage(Protocol):
    """A layer of a chain."""

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return what comes out, and what backward wants of this pass."""

    def backward(self, gradient: Tensor, kept: Tensor, first: bool, further: bool) -> Tensor:
        """Set the gradients of its weights, or add to them unless it is the first time.

        Returns:
            The gradient of what was given, if it is to go further back.
        """


class _Linear:
    def __init__(self, layer: nn.Linear) -> None:
        self._weight, self._bias = layer.weight, layer.bias
        self._transposed = layer.weight.detach().t()
        self._of_weight = torch.zeros_like(layer.weight)
        self._of_bias = None if layer.bias is None else torch.zeros_like(layer.bias)

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        if self._bias is None:
            return given.mm(self._transposed), given
        return torch.addmm(self._bias, given, self._transposed), given

    def backward(self, gradient: Tensor, kept: Tensor, first: bool, further: bool) -> Tensor:
        if first:
            torch.mm(gradient.t(), kept, out=self._of_weight)
        else:
            self._of_weight += gradient.t().mm(kept)  # addmm_ has other last bits
        self._weight.grad = self._of_weight
        if self._of_bias is not None:
            if first:
                torch.sum(gradient, 0, out=self._of_bias)
            else:
                self._of_bias += gradient.sum(0)
            self._bias.grad = self._of_bias
        return gradient.mm(self._weight) if further else gradient


class _Convolution:
    def __init__(self, layer: nn.Conv2d) -> None:
        self._weight, self._bias = layer.weight, layer.bias
        self._sizes = None if layer.bias is None else [layer.out_channels]
        self._how = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups)

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        return _aten.convolution(given, self._weight, self._bias, *self._how), given

    def backward(self, gradient: Tensor, kept: Tensor, first: bool, further: bool) -> Tensor:
        wanted = [further, True, self._bias is not None]
        back, *gradients = _aten.convolution_backward(
            gradient, kept, self._weight, self._sizes, *self._how, wanted
        )
        for parameter, its_own in zip((self._weight, self._bias), gradients, strict=True):
            if parameter is not None:
                new, before = as_laid_out(its_own, parameter), parameter.grad
                parameter.grad = new if first or before is None else before + new
        return back if further else gradient


@dataclass(frozen=True)
class _Activation:
    """One elementwise function.

    Attributes:
        function: of what comes in; may overwrite it unless its derivative needs it.
        derivative: (gradient, what the function returned; or what came in) -> gradient of that.
        by_result: whether the derivative wants what the function returned.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    by_result: bool = True

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        out = self.function(given)
        return out, out if self.by_result else given

    def backward(self, gradient: Tensor, kept: Tensor, first: bool, further: bool) -> Tensor:
        return self.derivative(gradient, kept)


class _Flatten:
    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        return given.flatten(1), given

    def backward(self, gradient: Tensor, kept: Tensor, first: bool, further: bool) -> Tensor:
        return gradient.view_as(kept)


class _Mean:
    """Of each channel over all pixels."""

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        return given.mean((-1, -2), keepdim=True), given

    def backward(self, gradient: Tensor, kept: Tensor, first: bool, further: bool) -> Tensor:
        # In this order: what is expanded last has strides of 0, and others sum it otherwise.
        return gradient.expand_as(kept) / (kept.shape[-1] * kept.shape[-2])


_LEAK = 0.01
_ACTIVATIONS: dict[type[nn.Module], _Activation] = {
    nn.ReLU: _Activation(Tensor.relu_, lambda g, out: _aten.threshold_backward(g, out, 0)),
    nn.LeakyReLU: _Activation(
        lambda z: _aten.leaky_relu_(z, _LEAK),
        lambda g, out: _aten.leaky_relu_backward(g, out, _LEAK, True),
    ),
    nn.Tanh: _Activation(Tensor.tanh_, _aten.tanh_backward),
    nn.Identity: _Activation(lambda z: z, lambda g, _: g),
    nn.GELU: _Activation(nn.functional.gelu, _aten.gelu_backward, by_result=False),
}


def _stage(layer: nn.Module) -> _Stage:
    if isinstance(layer, nn.Linear):
        return _Linear(layer)
    if isinstance(layer, nn.Conv2d):
        return _Convolution(layer)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return _Mean()
    return _Flatten() if isinstance(layer, nn.Flatten) else _ACTIVATIONS[type(layer)]


_KNOWN = {nn.Linear, nn.Conv2d, nn.AdaptiveAvgPool2d, nn.Flatten, *_ACTIVATIONS}


def _in_turn(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of nested nn.Sequential."""
    if type(network) is nn.Sequential and not _is_hooked(network):
        for layer in network:
            yield from _in_turn(layer)
    else:
        yield network


def _is_weighted(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d)


def _weights_of(layer: nn.Module) -> int:
    """Return how many parameters a layer of this kind has."""
    return 1 + (layer.bias is not None) if _is_weighted(layer) else 0


def _is_plain(weight: Tensor) -> bool:
    hooked = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    return type(weight) is nn.Parameter and weight.requires_grad and not hooked


def _is_hooked(module: nn.Module) -> bool:
    """Return whether a call of the module does more than its class says.

    A hook that only watches says so in an attribute, ``only_watches``, and may be left out.
    """
    hooks = [
        *module._forward_pre_hooks.values(), *module._forward_hooks.values(),
        *module._backward_pre_hooks.values(), *module._backward_hooks.values(),
    ]  # fmt: skip
    watched = all(getattr(hook, "only_watches", False) for hook in hooks)
    return "forward" in vars(module) or not watched


def _everywhere_hooked() -> bool:
    """Return whether somebody has hooked into all modules there are."""
    everywhere = nn.modules.module
    return bool(
        everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def _is_known(layer: nn.Module) -> bool:
    if type(layer) not in _KNOWN or _is_hooked(layer):
        return False
    if isinstance(layer, nn.LeakyReLU):
        return layer.negative_slope == _LEAK
    if isinstance(layer, nn.GELU):
        return layer.approximate == "none"
    if isinstance(layer, nn.Conv2d):  # on some processors groups have a kernel for inference alone
        padded = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return padded and layer.groups == 1
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in (1, (1, 1))
    return not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) == (1, -1)
