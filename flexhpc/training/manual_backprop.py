"""Forward and backward passes of a plain MLP without autograd.

In a small network, the overhead of autograd takes a large part of the time of an update. This
module calls the same kernels as autograd with the same operands, so the gradient is bit-identical
to that of autograd (except with label smoothing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

_aten = torch.ops.aten


class ManualBackprop:
    """Forward and backward passes of a plain MLP.

    Args:
        layers: result of :func:`mlp_layers`.
        label_smoothing: label smoothing of the loss. If it is not 0, the gradient differs from the
            gradient of autograd by rounding errors.
    """

    def __init__(self, layers: Sequence[nn.Module], label_smoothing: float) -> None:
        self._layers: list[_Linear | _Activation] = [
            _Linear(layer) if isinstance(layer, nn.Linear) else _ACTIVATIONS[type(layer)]
            for layer in layers
        ]
        head = layers[-1]
        assert isinstance(head, nn.Linear)
        classes, weight = head.out_features, head.weight
        eye = torch.eye(classes, dtype=weight.dtype, device=weight.device)
        self._targets = -((1 - label_smoothing) * eye + label_smoothing / classes)
        self._scaled_targets: dict[int, Tensor] = {}

    @torch.no_grad()
    def backward(
        self, inputs: Tensor, labels: Tensor, batch_length: int, *, is_first_chunk: bool
    ) -> Tensor:
        """Compute the gradient of ``(sum of losses) / batch_length``; store it in ``.grad``.

        Args:
            inputs: inputs of the chunk, (m, ...).
            labels: labels of the chunk, int64 (m,).
            batch_length: number of samples in the whole batch.
            is_first_chunk: if True, the gradient in ``.grad`` is overwritten; else the gradient of
                the chunk is added to it. True for the first chunk of a batch or, if the batch is
                split into parts, for the first chunk of each part.

        Returns:
            Log-probabilities (m, classes).
        """
        out, stored = inputs.flatten(1), []
        for layer in self._layers:
            out, for_backward = layer.forward(out)
            stored.append(for_backward)
        if batch_length not in self._scaled_targets:  # the same for all batches of a size
            self._scaled_targets[batch_length] = self._targets * (1.0 / batch_length)
        log_probabilities = out.log_softmax(1)
        gradient = _aten._log_softmax_backward_data(
            self._scaled_targets[batch_length].index_select(0, labels),
            log_probabilities, 1, log_probabilities.dtype,
        )  # fmt: skip
        for i in range(len(self._layers) - 1, -1, -1):
            gradient = self._layers[i].backward(gradient, stored.pop(), is_first_chunk, i > 0)
        return log_probabilities

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (m, classes) of inputs (m, ...), without calling modules."""
        out = inputs.flatten(1)
        for layer in self._layers:
            out = layer.forward(out)[0]
        return out


def mlp_layers(model: nn.Module, dims: int) -> list[nn.Module] | None:
    """Return the layers of a plain MLP in order, without nn.Flatten; None for any other model.

    A plain MLP is an nn.Sequential, possibly nested, of nn.Linear layers. Each nn.Linear except the
    last is followed by an activation of ``_ACTIVATIONS``; nn.Flatten may precede an nn.Linear. All
    weights are trained, no weight is shared or reparameterized, and no hooks are registered.

    Args:
        model: any model.
        dims: number of dimensions of a batch of inputs, including the batch dimension.
    """
    if type(model) is not nn.Sequential or _has_any_global_hook():
        return None
    layers = list(_flat_layers(model))
    if not layers or type(layers[-1]) is not nn.Linear or not all(map(_is_supported_layer, layers)):
        return None
    for previous, layer in zip([None, *layers[:-1]], layers, strict=True):
        if (type(previous) is nn.Linear) != (type(layer) in _ACTIVATIONS):
            return None
        if isinstance(layer, nn.Flatten):
            dims = 2
        elif type(layer) is nn.Linear and dims != 2:
            return None
    layers = [layer for layer in layers if not isinstance(layer, nn.Flatten)]
    weights = [weight for layer in layers for weight in layer.parameters()]
    expected = sum(1 + (x.bias is not None) for x in layers if isinstance(x, nn.Linear))
    unshared = len({id(weight) for weight in weights}) == expected
    return layers if unshared and all(map(_is_plain_weight, weights)) else None


class _Linear:
    """Forward and backward pass of a linear layer.

    ``forward`` returns the outputs, and a tensor that must be passed to ``backward`` as ``stored``.
    ``backward`` overwrites the gradients of weight and bias if ``is_first_chunk``, else adds to
    them. It returns the gradient of the inputs; if ``needs_input_grad`` is False, the returned
    tensor has no meaning.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._weight, self._bias = layer.weight, layer.bias
        self._transposed = layer.weight.detach().t()
        self._weight_grad = torch.zeros_like(layer.weight)
        self._bias_grad = None if layer.bias is None else torch.zeros_like(layer.bias)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self._bias is None:
            return inputs.mm(self._transposed), inputs
        return torch.addmm(self._bias, inputs, self._transposed), inputs

    def backward(
        self, gradient: Tensor, stored: Tensor, is_first_chunk: bool, needs_input_grad: bool
    ) -> Tensor:
        if is_first_chunk:
            torch.mm(gradient.t(), stored, out=self._weight_grad)
        else:
            self._weight_grad += gradient.t().mm(stored)  # addmm_ rounds differently
        self._weight.grad = self._weight_grad
        if self._bias_grad is not None:
            if is_first_chunk:
                torch.sum(gradient, 0, out=self._bias_grad)
            else:
                self._bias_grad += gradient.sum(0)
            self._bias.grad = self._bias_grad
        return gradient.mm(self._weight) if needs_input_grad else gradient


@dataclass(frozen=True)
class _Activation:
    """Forward and backward pass of an elementwise activation; see _Linear for the methods.

    Attributes:
        function: inputs -> outputs. It can overwrite the inputs if ``uses_output``.
        derivative: (gradient of the outputs, ``stored``) -> gradient of the inputs.
        uses_output: whether ``stored`` is the outputs; if not, ``stored`` is the inputs.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    uses_output: bool = True

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        out = self.function(inputs)
        return out, out if self.uses_output else inputs

    def backward(
        self, gradient: Tensor, stored: Tensor, is_first_chunk: bool, needs_input_grad: bool
    ) -> Tensor:
        return self.derivative(gradient, stored)


_LEAK = 0.01
_ACTIVATIONS: dict[type[nn.Module], _Activation] = {
    nn.ReLU: _Activation(Tensor.relu_, lambda g, out: _aten.threshold_backward(g, out, 0)),
    nn.LeakyReLU: _Activation(
        lambda z: _aten.leaky_relu_(z, _LEAK),
        lambda g, out: _aten.leaky_relu_backward(g, out, _LEAK, True),
    ),
    nn.Tanh: _Activation(Tensor.tanh_, _aten.tanh_backward),
    nn.Identity: _Activation(lambda z: z, lambda g, _: g),
    nn.GELU: _Activation(nn.functional.gelu, _aten.gelu_backward, uses_output=False),
}


def _flat_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model; the layers of a nested nn.Sequential are yielded one by one.

    An nn.Sequential with hooks or with its own ``forward`` is yielded as one layer.
    """
    if type(model) is nn.Sequential and not _has_hooks_or_own_forward(model):
        for layer in model:
            yield from _flat_layers(layer)
    else:
        yield model


def _is_plain_weight(weight: Tensor) -> bool:
    hooked = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    return type(weight) is nn.Parameter and weight.requires_grad and not hooked


def _has_hooks_or_own_forward(module: nn.Module) -> bool:
    """Return whether calling the module does more than the ``forward`` method of its class.

    Hooks with the attribute ``changes_nothing`` are ignored; manual backprop does not call them.
    """
    hooks = [
        *module._forward_pre_hooks.values(), *module._forward_hooks.values(),
        *module._backward_pre_hooks.values(), *module._backward_hooks.values(),
    ]  # fmt: skip
    harmless = all(getattr(hook, "changes_nothing", False) for hook in hooks)
    return "forward" in vars(module) or not harmless


def _is_supported_layer(layer: nn.Module) -> bool:
    supported = {nn.Linear, nn.Flatten, *_ACTIVATIONS}
    if type(layer) not in supported or _has_hooks_or_own_forward(layer):
        return False
    if isinstance(layer, nn.LeakyReLU):
        return layer.negative_slope == _LEAK
    if isinstance(layer, nn.GELU):
        return layer.approximate == "none"
    return not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) == (1, -1)
