"""Compute the activations of the frozen part of a network once, and train only the part above it.

Where the frozen part ends is found by running the network, so this works for all networks whose
frozen part passes its activations to a single module, such as a block of a transformer.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from flexhpc.errors import PointError
from flexhpc.training.device_inputs import DeviceInputs, chunk_size

_CHUNK = 512
_FEW_ROWS = 7
_MAX_BYTES = 2 * 2**30
"""Maximum size of the activations of all samples."""


class _Call(NamedTuple):
    """A call of a module during a forward pass.

    Attributes:
        module: the module.
        start: number of calls that had started before this call.
        end: number of calls that had started when this call ended.
        first_input: first positional argument; None if there is none.
        outputs: outputs of the module.
    """

    module: nn.Module
    start: int
    end: int
    first_input: Any
    outputs: Any


class UpperPart(nn.Module):
    """The part of a network that starts with one of its modules.

    The network runs as usual, but the skipped modules return zeros of the right shapes. Its inputs
    are those that :func:`_part_inputs` returns.

    Args:
        network: the network.
        first: the module with which the part starts.
        shape: shape of the first input of this module for one sample.
        skipped: modules that end before this module starts, each with its outputs for ``rows``.
        rows: a batch of inputs of the network.
    """

    def __init__(
        self, network: nn.Module, first: nn.Module, shape: Sequence[int],
        skipped: list[tuple[nn.Module, Any]], rows: Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = network
        self._first = (first,)  # in a tuple, because it is a module of the network already
        self._shape = shape
        self._row = rows[:1]

        def without_rows(value: Any) -> Any:
            is_batch = isinstance(value, Tensor) and value.shape[:1] == rows.shape[:1]
            return value[:0].detach().clone() if is_batch else value

        self._skipped = [(m, pytree.tree_map(without_rows, outputs)) for m, outputs in skipped]

    def forward(self, inputs: Tensor) -> Any:
        """Return the outputs of the network."""
        if self._row.dim() == 2:
            size = math.prod(self._shape)
            # Otherwise the outputs would differ from those of the whole network by rounding errors.
            activations = inputs[:, :size].unflatten(1, self._shape).contiguous()
            rows = inputs[:, size:]
        else:
            activations, row = inputs, self._row.to(inputs.dtype)
            rows = row.expand(len(inputs), *row.shape[1:])
        with self._skip_frozen_part(activations):
            return self.network(rows)

    @contextlib.contextmanager
    def _skip_frozen_part(self, activations: Tensor) -> Iterator[None]:
        """Pass ``activations`` to the first module instead of computing them."""

        def zeros(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.is_floating_point():
                value = value.to(activations.dtype)
            if value.shape[:1] != (0,):
                return value
            return value.new_zeros(1, *value.shape[1:]).expand(len(activations), *value.shape[1:])

        (first,) = self._first
        hook = first.register_forward_pre_hook(lambda _, args: (activations, *args[1:]))
        try:
            for module, outputs in self._skipped:
                result = pytree.tree_map(zeros, outputs)
                module.forward = lambda *_, result=result, **__: result
            yield
        finally:
            hook.remove()
            for module, _ in self._skipped:
                vars(module).pop("forward", None)


def _part_inputs(part: nn.Module, activations: Tensor, inputs: Tensor | DeviceInputs) -> Tensor:
    """Return the inputs of the upper part of a network for m samples.

    These are the activations (m, ...) or, if the inputs of the network are vectors or sequences
    (m, length), each sample's activations followed by these inputs, (m, size + length). From them,
    the network computes further inputs of the part, such as the attention mask.
    """
    if not isinstance(part, UpperPart) or len(inputs.shape) > 2:
        return activations
    return torch.cat([activations.flatten(1), inputs[:]], dim=1)


def split_off_frozen_part(
    network: nn.Module, inputs: DeviceInputs, precision: contextlib.AbstractContextManager[Any]
) -> tuple[nn.Module, Tensor] | None:
    """Compute the activations that the frozen part of a network passes on, for all samples.

    Args:
        network: a partly trained network, whose frozen layers stay in eval mode.
        inputs: inputs of all samples.
        precision: context manager for forward passes.

    Returns:
        The part of the network that must be evaluated in every update, and its inputs for all n
        samples, shape (n, ...). None if the network cannot be split, for example because its
        outputs are random, or if these inputs would need more than 2 GiB. With bf16, only the last
        linear layer can be split off.
    """
    if inputs.shape[0] <= _FEW_ROWS:
        return None
    network.eval()
    rows = inputs[slice(0, _FEW_ROWS)]
    with precision:
        with _noise_on_trained_weights(network):
            split = _verified_split(network, inputs, rows, precision)
        if split is None:
            return None
        first, part, activations = split
        _, values = _run(network, first, rows)
    # The activations may depend neither on the trained weights nor on the other samples of a batch.
    expected = activations[:_FEW_ROWS]
    tolerance = 1e-5 * float(expected.abs().max())
    if not torch.allclose(values, expected, rtol=1e-3, atol=tolerance):
        return None
    return part, _part_inputs(part, activations, inputs)


@contextlib.contextmanager
def _noise_on_trained_weights(network: nn.Module) -> Iterator[None]:
    """Add noise to the trained weights.

    Without the noise, adapters and heads that are initially zero would hide differences between a
    network and its upper part.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in trained:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.02 * noise.to(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(trained, before, strict=True):
                parameter.copy_(values)


def _verified_split(
    network: nn.Module, inputs: DeviceInputs, rows: Tensor,
    precision: contextlib.AbstractContextManager[Any],
) -> tuple[nn.Module, nn.Module, Tensor] | None:  # fmt: skip
    """Return the first module of the upper part, the upper part, and the activations."""
    calls, outputs = _trace(network, rows)
    for call, skipped in _possible_splits(calls, rows):
        if not any(True for each in skipped for _ in each.module.parameters()):
            return None  # skipping these modules would save nothing
        part: nn.Module = call.module
        if not isinstance(part, nn.Linear) or call.outputs is not outputs:
            if not isinstance(precision, contextlib.nullcontext):
                return None  # the activations would be stored with another dtype
            frozen = [(each.module, each.outputs) for each in skipped]
            part = UpperPart(network, call.module, call.first_input.shape[1:], frozen, rows)
        try:
            part_outputs = part(_part_inputs(part, call.first_input, rows))
            if _same_gradients(network, outputs, part_outputs):
                activations = _activations(network, part, call.module, inputs)
                return None if activations is None else (call.module, part, activations)
        except PointError:
            raise
        except Exception:
            continue  # such as a module that needs the outputs of a skipped module
    return None


def _trace(network: nn.Module, rows: Tensor) -> tuple[list[_Call], Tensor]:
    """Run a network; return the calls of its modules, in the order in which they end, and outputs.

    The network itself is not among the calls.
    """
    calls: list[_Call] = []
    started = 0
    running: list[tuple[int, Any]] = []

    def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal started
        running.append((started, args[0] if args else None))
        started += 1

    def end(module: nn.Module, _: Any, outputs: Any) -> None:
        calls.append(_Call(module, running[-1][0], started, running.pop()[1], outputs))

    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            if module is not network:
                hooks.callback(module.register_forward_pre_hook(begin).remove)
                hooks.callback(module.register_forward_hook(end).remove)
        outputs: Tensor = network(rows)
    return calls, outputs


def _possible_splits(calls: list[_Call], rows: Tensor) -> Iterator[tuple[_Call, list[_Call]]]:
    """Yield calls with which the upper part may start, each with the calls that can be skipped.

    The innermost of these calls comes first.
    """
    counts = Counter(call.module for call in calls)
    for call in sorted(calls, key=lambda call: -call.start):
        before = [other for other in calls if other.end <= call.start]
        if (
            counts[call.module] == 1
            and isinstance(call.first_input, Tensor)
            and call.first_input.is_floating_point()
            and call.first_input.shape[:1] == rows.shape[:1]
            and not call.first_input.requires_grad
            and _requires_grad(call.outputs)
            and not any(_requires_grad(other.outputs) for other in before)
        ):
            once = [o for o in before if counts[o.module] == 1 and _can_be_skipped(o.module)]
            inner = {id(o) for outer in once for o in once if outer.start < o.start < outer.end}
            yield call, [o for o in once if id(o) not in inner]


def _requires_grad(outputs: Any) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for v in pytree.tree_leaves(outputs))


def _can_be_skipped(module: nn.Module) -> bool:
    return "forward" not in vars(module) and not module._forward_hooks


def _same_gradients(network: nn.Module, outputs: Tensor, part_outputs: Any) -> bool:
    """Return whether a network and its upper part have the same outputs and gradients."""
    if not isinstance(part_outputs, Tensor) or not torch.equal(part_outputs, outputs):
        return False
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs)
    gradients, part_gradients = (
        torch.autograd.grad((values * weights).sum(), trained, allow_unused=True, retain_graph=True)
        for values in (outputs, part_outputs)
    )
    return all(
        a is b if a is None or b is None else torch.equal(a, b)
        for a, b in zip(gradients, part_gradients, strict=True)
    )


@torch.no_grad()
def _run(network: nn.Module, first: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of the network and the input of one of its modules."""
    passed: list[Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, args: passed.append(args[0]))
    try:
        outputs = network(rows)
    finally:
        hook.remove()
    (first_input,) = passed
    return outputs, first_input


@torch.no_grad()
def _activations(
    network: nn.Module, part: nn.Module, first: nn.Module, inputs: DeviceInputs
) -> Tensor | None:
    """Return the inputs of the first module for all samples.

    The result is None if the inputs are too large, or if ``part`` does not compute the outputs of
    the network from them.
    """
    n, chunks = inputs.shape[0], list[Tensor]()
    chunk = chunk_size(inputs.shape[1:], _CHUNK)
    for start in range(0, n, chunk):
        rows = inputs[slice(start, start + chunk)]
        outputs, activations = _run(network, first, rows)
        if n * activations[0].nbytes > _MAX_BYTES:
            return None
        if not torch.equal(part(_part_inputs(part, activations, rows)), outputs):
            return None
        chunks.append(activations)
    return torch.cat(chunks)
