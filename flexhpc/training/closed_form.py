"""The gradient of a plain multilayer perceptron by its formulas.

Where such a network is small, most of a step is autograd's book-keeping. The formulas call the
kernels that autograd would, on the same operands, so the gradient has the same bits. Weights in one
vector would save another 3 % of a step, but an update of it has other last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Activation:
    """One elementwise function.

    Attributes:
        forward: of what comes in; may overwrite it unless backward needs it.
        backward: (gradient, what forward returned; or what came in) -> gradient of what came in.
        by_result: whether backward wants what forward returned.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    by_result: bool = True


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


class ClosedForm:
    """A multilayer perceptron: forward and backward without a graph.

    Args:
        network: one that :func:`perceptron` knows.
        label_smoothing: of the loss whose gradient is taken.
    """

    def __init__(self, network: nn.Module, label_smoothing: float) -> None:
        layers = perceptron(network)
        if layers is None:
            raise ValueError("no plain multilayer perceptron")
        self._linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._active = [_ACTIVATIONS[type(x)] for x in layers if not isinstance(x, nn.Linear)]
        self._gradients: dict[Tensor, Tensor] = {
            p: torch.zeros_like(p) for p in network.parameters()
        }
        self._transposed = [layer.weight.detach().t() for layer in self._linear]
        classes = self._linear[-1].out_features
        weight = self._linear[-1].weight
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
        out, given, kept = self._forward(inputs)
        # The gradient of a mean over one batch is the same table for every batch of that size.
        if of not in self._scaled:
            self._scaled[of] = self._targets * (1.0 / of)
        logs = out.log_softmax(1)
        towards = self._scaled[of].index_select(0, labels)
        gradient = _aten._log_softmax_backward_data(towards, logs, 1, logs.dtype)
        for number in range(len(self._linear) - 1, -1, -1):
            self._layer(number, gradient, given[number], first)
            if number:
                gradient = gradient.mm(self._linear[number].weight)
                gradient = self._active[number - 1].backward(gradient, kept[number - 1])
        for parameter, its_own in self._gradients.items():
            parameter.grad = its_own
        return logs

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (m, classes) of inputs (m, ...), without the calls of modules."""
        return self._forward(inputs)[0]

    def _forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the logits, each layer's input, and what each activation's backward wants."""
        out = inputs.flatten(1)
        given: list[Tensor] = []
        kept: list[Tensor] = []
        for layer, transposed, activation in zip(
            self._linear, self._transposed, [*self._active, None], strict=True
        ):
            given.append(out)
            bias = layer.bias
            out = out.mm(transposed) if bias is None else torch.addmm(bias, out, transposed)
            if activation is not None:
                before = out
                out = activation.forward(out)
                kept.append(out if activation.by_result else before)
        return out, given, kept

    def _layer(self, number: int, gradient: Tensor, given: Tensor, first: bool) -> None:
        """Set or add to the gradients of one layer's weight and bias."""
        layer = self._linear[number]
        weight, bias = self._gradients[layer.weight], layer.bias
        if first:
            torch.mm(gradient.t(), given, out=weight)
        else:
            weight.addmm_(gradient.t(), given)
        if bias is not None:
            if first:
                torch.sum(gradient, 0, out=self._gradients[bias])
            else:
                self._gradients[bias] += gradient.sum(0)


def perceptron(network: nn.Module) -> list[nn.Module] | None:
    """Return the layers of a plain multilayer perceptron in turn; None for any other network.

    That is nn.Flatten, and nn.Linear with an elementwise function between any two.
    """
    if type(network) is not nn.Sequential:
        return None
    layers = [layer for layer in network if type(layer) is not nn.Flatten]
    linear = layers[::2]
    plain = len(layers) % 2 == 1 and all(type(layer) is nn.Linear for layer in linear)
    known = plain and all(_known(layer) for layer in layers[1::2])
    return layers if known and all(p.requires_grad for p in network.parameters()) else None


def _known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.LeakyReLU) and layer.negative_slope != _LEAK:
        return False
    if isinstance(layer, nn.GELU) and layer.approximate != "none":
        return False
    return type(layer) in _ACTIVATIONS
