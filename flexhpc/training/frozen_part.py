"""Compute the activations of the frozen part of a network once, and train only the part above it.

Where the frozen part ends is found by running the network, so this works for all networks whose
frozen part passes its activations to a single module, such as a block of a transformer.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from flexhpc.training.device_inputs import DeviceInputs, chunk_size

_CHUNK = 512
_FEW_ROWS = 7
_MAX_BYTES = 2 * 2**30
"""Maximum size of the activations of all samples."""


class _Call(NamedTuple):
    """A call of a module during a forward pass.

    Attributes:
        module: the module.
        begin: number of calls that had begun before this call began.
        end: number of calls that had begun before this call ended.
        first_input: first positional argument; None if there is none.
        outputs: outputs of the module.
    """

    module: nn.Module
    begin: int
    end: int
    first_input: Any
    outputs: Any


class UpperPart(nn.Module):
    """The part of a network that begins with one of its modules.

    The network runs as usual, but the modules that end before this module begins are skipped: they
    return zeros.

    Args:
        network: the network.
        first: the module with which the part begins.
        skipped: the modules that are skipped, each with its outputs for ``rows``.
        rows: a batch of inputs of the network.
    """

    def __init__(
        self, network: nn.Module, first: nn.Module, skipped: list[tuple[nn.Module, Any]],
        rows: Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = network
        self._first = (first,)  # in a tuple, because it is a module of the network already
        self._row = rows[:1]

        def without_rows(value: Any) -> Any:
            is_batch = isinstance(value, Tensor) and value.shape[:1] == rows.shape[:1]
            return value[:0].detach().clone() if is_batch else value

        self._skipped = [(m, pytree.tree_map(without_rows, outputs)) for m, outputs in skipped]

    def forward(self, activations: Tensor) -> Any:
        """Return the outputs of the network for a batch of inputs of the first module."""
        rows = self._row.expand(len(activations), *self._row.shape[1:]).contiguous()
        with self._skip_frozen_part(activations):
            return self.network(rows)

    @contextlib.contextmanager
    def _skip_frozen_part(self, activations: Tensor) -> Iterator[None]:
        """Pass ``activations`` to the first module instead of computing them."""

        def zeros(value: Any) -> Any:
            is_batch = isinstance(value, Tensor) and value.shape[:1] == (0,)
            return value.new_zeros(len(activations), *value.shape[1:]) if is_batch else value

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
        outputs are random, or if these inputs would need more than 2 GiB.
    """
    network.eval()
    rows = inputs[slice(0, _FEW_ROWS)]
    with precision:
        calls, outputs = _trace(network, rows)
        for call, skipped in _possible_splits(calls):
            if not any(True for each in skipped for _ in each.module.parameters()):
                return None  # there is no frozen part
            part: nn.Module = call.module
            if not isinstance(part, nn.Linear) or call.outputs is not outputs:
                frozen = [(each.module, each.outputs) for each in skipped]
                part = UpperPart(network, call.module, frozen, rows)
            if _same_gradients(network, outputs, part(call.first_input)):
                activations = _activations(network, part, call.module, inputs)
                return None if activations is None else (part, activations)
    return None


def _trace(network: nn.Module, rows: Tensor) -> tuple[list[_Call], Tensor]:
    """Run a network; return the calls of its modules, in the order in which they end, and outputs.

    The network itself is not among the calls.
    """
    calls: list[_Call] = []
    begun = 0
    running: list[tuple[int, Any]] = []

    def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal begun
        running.append((begun, args[0] if args else None))
        begun += 1

    def end(module: nn.Module, _: Any, outputs: Any) -> None:
        calls.append(_Call(module, running[-1][0], begun, running.pop()[1], outputs))

    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            if module is not network:
                hooks.callback(module.register_forward_pre_hook(begin).remove)
                hooks.callback(module.register_forward_hook(end).remove)
        outputs: Tensor = network(rows)
    return calls, outputs


def _possible_splits(calls: list[_Call]) -> Iterator[tuple[_Call, list[_Call]]]:
    """Yield calls with which the trained part may begin; each with the calls that can be skipped.

    The innermost of these calls comes first.
    """
    counts = Counter(call.module for call in calls)
    for call in sorted(calls, key=lambda call: -call.begin):
        before = [other for other in calls if other.end <= call.begin]
        if (
            counts[call.module] == 1
            and isinstance(call.first_input, Tensor)
            and not call.first_input.requires_grad
            and _requires_grad(call.outputs)
            and not any(_requires_grad(other.outputs) for other in before)
        ):
            once = [o for o in before if counts[o.module] == 1 and "forward" not in vars(o.module)]
            inner = {id(o) for outer in once for o in once if outer.begin < o.begin < outer.end}
            yield call, [o for o in once if id(o) not in inner]


def _requires_grad(outputs: Any) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for v in pytree.tree_leaves(outputs))


def _same_gradients(network: nn.Module, outputs: Tensor, part_outputs: Any) -> bool:
    """Return whether both outputs, and the gradients of the sums of their squares, are equal."""
    if not isinstance(part_outputs, Tensor) or not torch.equal(part_outputs, outputs):
        return False
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients, part_gradients = (
        torch.autograd.grad(values.square().sum(), trained, allow_unused=True, retain_graph=True)
        for values in (outputs, part_outputs)
    )
    return all(
        a is b if a is None or b is None else torch.equal(a, b)
        for a, b in zip(gradients, part_gradients, strict=True)
    )


@torch.no_grad()
def _activations(
    network: nn.Module, part: nn.Module, first: nn.Module, inputs: DeviceInputs
) -> Tensor | None:
    """Return the inputs of the first module for all samples; None if they are not sufficient.

    They are sufficient if they do not depend on the other samples of a batch, and if ``part``
    computes the outputs of the network from them.
    """
    n, chunks = inputs.shape[0], list[Tensor]()
    chunk = chunk_size(inputs.shape[1:], _CHUNK)
    passed: list[Tensor] = []
    for start in range(0, n, chunk):
        rows = inputs[slice(start, start + chunk)]
        hook = first.register_forward_pre_hook(lambda _, args: passed.append(args[0]))
        try:
            outputs = network(rows)
            if start == 0:
                network(rows[: max(1, min(n - 1, _FEW_ROWS))])
        finally:
            hook.remove()
        first_rows, *again = passed
        if n * first_rows[0].nbytes > _MAX_BYTES:
            return None
        # Equality, because an input of the upper part that is missing, such as an attention mask,
        # may have hardly any effect before training.
        if not torch.equal(part(first_rows), outputs):
            return None
        for few_rows in again:
            same_rows = first_rows[: len(few_rows)]
            if not torch.allclose(few_rows, same_rows, rtol=1e-3, atol=1e-5):
                return None
        chunks.append(first_rows)
        passed.clear()
    return torch.cat(chunks)
