"""A device implemented in Python that computes on the CPU, to test the code paths of accelerators.

Importing this module registers torch's PrivateUse1 backend as device type ``standin``. A tensor on
the device wraps a CPU tensor, and an operation on the device runs on the wrapped tensors. As on a
GPU, an operation fails if it also takes a CPU tensor (scalars, which have no dimension, are
allowed), and ``numpy()`` fails without ``cpu()``. Under autocast, the operations listed below run
in bfloat16 as they do on the CPU. Random operations draw from a generator of the device.

It detects tensors on the wrong device, and results that depend on the device. It cannot detect
errors of kernels, streams, CUDA graphs, memory, several devices and process groups, or limits that
only some accelerators have (no float64, for example).

The registration cannot be undone. It also starts an autograd thread for the device, after which a
forked process cannot run autograd: import this module only in a process that is not forked later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

DEVICE_NAME = "Stand-in device"

_TRANSFERS = ("aten::_to_copy", "aten::copy_", "aten::_local_scalar_dense")
_AUTOCAST = {
    torch.bfloat16: ("linear", "matmul", "conv2d", "scaled_dot_product_attention"),
    torch.float32: ("cross_entropy_loss", "nll_loss"),
}
"""Operations that autocast runs in another precision on the CPU, as far as the tests use them."""


class _Runtime(_DummyBackendModule):
    """The module ``torch.standin``."""

    def __init__(self) -> None:
        self.available = False
        self.generator = torch.Generator()

    def is_available(self) -> bool:
        return self.available

    def get_device_name(self, device: object = None) -> str:
        return DEVICE_NAME

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed_all(self, seed: int) -> None:
        self.generator.manual_seed(seed)

    def get_rng_state(self, device: object = None) -> Tensor:
        return self.generator.get_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        self.generator.set_state(state)


_runtime = _Runtime()
_setup_privateuseone_for_python_backend("standin", backend_module=_runtime)
DEVICE = torch.device("standin", 0)


class DeviceTensor(Tensor):
    """A tensor on the device; ``host`` is the CPU tensor with its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: Tensor) -> DeviceTensor:
        tensor = Tensor._make_wrapper_subclass(
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(),
            dtype=host.dtype, device=DEVICE,
        )  # fmt: skip
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        return _run(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Save the values as of a CPU tensor, which torch.load can restore to any device."""
        return self.host.__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{self.host!r} on {DEVICE}"

    def tolist(self) -> Any:
        """Replace the method of Tensor, which refuses subclasses."""
        return self.host.tolist()


class _Dispatch(TorchDispatchMode):
    """Runs operations that take no tensor of the device: factories and copies to the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on CPU tensors; wrap its outputs if they are on the device."""
    name = func._schema.name
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    on_device = [x for x in tensors if isinstance(x, DeviceTensor)]
    on_cpu = [x for x in tensors if x.dim() > 0 and not isinstance(x, DeviceTensor)]
    if on_device and on_cpu and name not in _TRANSFERS:
        raise RuntimeError(f"{func}: expected all tensors on {DEVICE}, but one is on the CPU")
    wraps = bool(on_device)
    if kwargs.get("device") is not None:
        wraps = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    with _generator(func) if wraps else contextlib.nullcontext():
        out = func(*tree_map(_to_host, args), **tree_map(_to_host, kwargs))
    if name == "aten::copy_":
        return args[0]
    if name == "aten::_local_scalar_dense" or not wraps:
        return out
    modified = {id(x.host): x for x in on_device}  # in-place operations return their argument

    def wrapped(x: Any) -> Any:
        return modified.get(id(x)) if id(x) in modified else _to_device(x)

    return tree_map(wrapped, out)


def _to_host(x: Any) -> Any:
    return x.host if isinstance(x, DeviceTensor) else x


def _to_device(x: Any) -> Any:
    return DeviceTensor(x) if isinstance(x, Tensor) else x


@contextlib.contextmanager
def _generator(func: Any) -> Iterator[None]:
    """Let a random operation draw from the generator of the device."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        yield
        return
    with torch.random.fork_rng([]):
        torch.set_rng_state(_runtime.get_rng_state())
        yield
        _runtime.set_rng_state(torch.get_rng_state())


# torch.tensor(..., device=DEVICE) calls these two kernels without the dispatch mode.
@torch.library.impl("aten::empty_strided", "PrivateUse1")
def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return DeviceTensor(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl("aten::_copy_from", "PrivateUse1")
def _copy_from(source, destination, non_blocking=False):
    _to_host(destination).copy_(_to_host(source))
    return destination


def _autocast_kernel(operation: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def cast(x: Any) -> Any:
        is_cast = isinstance(x, Tensor) and x.dtype in _AUTOCAST
        return x.to(dtype) if is_cast else x

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(DEVICE.type, enabled=False):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return kernel


_library = torch.library.Library("_", "IMPL")  # its registrations last as long as this object
_library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for _dtype, _names in _AUTOCAST.items():
    for _name in _names:
        _kernel = _autocast_kernel(getattr(torch.ops.aten, _name), _dtype)
        torch.library.impl(f"aten::{_name}", "AutocastPrivateUse1")(_kernel)


@contextlib.contextmanager
def available() -> Iterator[torch.device]:
    """Make the device available to ``torch.accelerator``; yield it."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    apply = nn.Module._apply

    def apply_and_keep(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        # On a GPU, Module.to() keeps the attributes of parameters; swapping them does not.
        attributes = [(p, dict(vars(p))) for p in self.parameters()]
        apply(self, *args, **kwargs)
        for parameter, values in attributes:
            vars(parameter).update({k: v for k, v in values.items() if k != "host"})
        return self

    torch.__future__.set_swap_module_params_on_conversion(True)
    _runtime.available = True
    try:
        with _Dispatch(), mock.patch.object(nn.Module, "_apply", apply_and_keep):
            yield DEVICE
    finally:
        _runtime.available = False
        torch.__future__.set_swap_module_params_on_conversion(swaps)
