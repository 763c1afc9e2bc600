"""Train only a part of a network: the head, the biases, or adapters that peft adds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flexhpc.config.sections.model import Adapter, Lora, Network
from flexhpc.errors import PointError, one_line_message
from flexhpc.imports import imports_without_gc

_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)


class PartlyTrained(nn.Module):
    """A network of which only the head, the biases or adapters are trained.

    All other parameters are frozen. Their layers stay in eval mode: batch normalisation uses its
    running statistics, and dropout is inactive. ``frozen_norm: train`` switches this off.

    Args:
        network: the network; it is changed in place.
        model: the ``model`` section; its ``adapt`` is not None.
        head: names of the parameters of the head.

    Attributes:
        head: the head, if it is the only part that is trained and the inputs of the head do not
            change during training; None otherwise.

    Raises:
        PointError: the adapters cannot be added to this network.
    """

    def __init__(self, network: nn.Module, model: Network, head: set[str]) -> None:
        super().__init__()
        self.network = network
        head_modules = {name.rpartition(".")[0] for name in head}
        frozen = [module for name, module in network.named_modules() if name not in head_modules]
        network.requires_grad_(False)
        if isinstance(model.adapt, Adapter):
            _add_adapters(network, model.adapt, head_modules)
        for name, parameter in network.named_parameters():
            is_bias = model.adapt == "bias" and name.rpartition(".")[2] == "bias"
            if is_bias or name in head:
                parameter.requires_grad_(True)
        self._frozen = frozen if model.frozen_norm != "train" else []
        self._unchanged = {n for n, p in self.named_parameters() if not p.requires_grad}
        heads = [network.get_submodule(name) for name in head_modules]
        fixed = model.adapt == "head" and model.frozen_norm != "train" and len(heads) == 1
        self.head = heads[0] if fixed and isinstance(heads[0], nn.Linear) else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the network."""
        outputs: Tensor = self.network(inputs)
        return outputs

    @torch.no_grad()
    def head_inputs(self, inputs: Tensor) -> Tensor | None:
        """Return the inputs of ``head`` for a batch of inputs of the network, in eval mode.

        The result is None without ``head``, or if the outputs of the network are not those of
        the head.
        """
        if self.head is None:
            return None
        passed: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, args: passed.append(args[0]))
        outputs = self.eval()(inputs)
        hook.remove()
        same = len(passed) == 1 and torch.equal(self.head(passed[0]), outputs)
        return passed[0] if same else None

    def train(self, mode: bool = True) -> PartlyTrained:
        """Set the training mode of all layers except the frozen layers, which stay in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the state of the network without frozen parameters, which need not be saved."""
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name not in self._unchanged}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a state that :meth:`state_dict` returned."""
        frozen = {name: self.get_parameter(name) for name in self._unchanged}
        return super().load_state_dict({**state_dict, **frozen}, *args, **kwargs)


def head_parameters(network: nn.Module, model: Network) -> set[str]:
    """Return the names of the parameters of the head, which is the last linear layer.

    A network with other heads has an attribute ``flexhpc_head`` with the names.

    Raises:
        PointError: the network has no linear layer.
    """
    names: set[str] | None = getattr(network, "flexhpc_head", None)
    if names is not None:
        return names
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise PointError(
            f"model.adapt: {model.family} has no linear layer, so it has no head; use adapt: full"
        )
    return {
        f"{linear[-1]}.{name}" for name, _ in network.get_submodule(linear[-1]).named_parameters()
    }


def _add_adapters(network: nn.Module, adapter: Adapter, head: set[str]) -> None:
    """Add adapters to the layers of a network, in place."""
    peft = _import_peft()
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    layers = [
        name
        for name, module in network.named_modules()
        if name not in head and _is_adaptable(module) and id(module.weight) not in embeddings
    ]
    if adapter.lora is not None:
        key = "model.adapt.lora"
        targets = _target_layers(layers, adapter.lora, network)
        config = {
            "r": adapter.lora.rank,
            "lora_alpha": adapter.lora.alpha or adapter.lora.rank,
            "lora_dropout": adapter.lora.dropout or 0.0,
            "target_modules": targets,
        }
        method = "LORA"
    else:
        assert adapter.peft is not None
        key, method = "model.adapt.peft", adapter.peft.method.upper()
        config = {"target_modules": layers, **(adapter.peft.kwargs or {})}
    methods = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if method not in methods:
        names = ", ".join(sorted(methods))
        raise PointError(f"{key}.method: peft has no method {method}; use one of {names}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft corrects fan_in_fan_out with a warning
            peft.inject_adapter_in_model(methods[method](**config), network)
    except Exception as error:  # peft raises various exceptions for settings it does not support
        raise PointError(f"{key}: peft rejects these settings: {one_line_message(error)}") from None


def _is_adaptable(module: nn.Module) -> bool:
    if type(module).__name__ == "Conv1D":  # the linear layer of GPT-2 in transformers
        return True
    return isinstance(module, _ADAPTABLE) and getattr(module, "groups", 1) == 1


def _target_layers(layers: Sequence[str], lora: Lora, network: nn.Module) -> list[str]:
    """Return the names of the layers that get an adapter.

    Raises:
        PointError: a target matches no layer.
    """
    if lora.targets is None:
        return list(layers)
    names = [name for name, _ in network.named_modules()]
    matched = []
    for target in lora.targets:
        found = [name for name in names if name == target or name.endswith(f".{target}")]
        if not found:
            ends = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise PointError(
                f"model.adapt.lora.targets: no layer is named {target}; the names of the linear "
                f"layers and convolutions end in {ends}"
            )
        matched += found
    return matched


def _import_peft() -> Any:
    try:
        with imports_without_gc():
            import peft
    except ImportError as error:
        raise PointError(
            f"model.adapt: adapters need the package peft, which cannot be imported "
            f"({one_line_message(error)}); install flexhpc[finetuning]"
        ) from None
    return peft
