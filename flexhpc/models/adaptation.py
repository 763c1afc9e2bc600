"""Train only a part of a network: the head, the biases, or adapters that peft adds."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flexhpc.config.sections.model import Adapter, Network
from flexhpc.errors import PointError, one_line_message
from flexhpc.imports import imports_without_gc


class PartlyTrained(nn.Module):
    """A network of which only the head, the biases or adapters are trained.

    All other parameters are frozen. Their layers stay in eval mode: batch normalisation uses its
    running statistics, and dropout is inactive. ``frozen_norm: train`` switches this off.

    Args:
        network: the network; it is changed in place.
        model: the ``model`` section; its ``adapt`` is not None.
        head: names of the parameters of the head.

    Raises:
        PointError: the adapters cannot be added to this network, or nothing would be trained.
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
            is_bias = model.adapt == "bias" and "bias" in name.rpartition(".")[2]
            if (is_bias and parameter.ndim == 1) or name in head:
                parameter.requires_grad_(True)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise PointError(
                f"model.adapt: nothing would be trained, because {model.family} has no head of its "
                "own (its last layer shares the weights of the embedding); use full or lora"
            )
        self._frozen = frozen if model.frozen_norm != "train" else []
        parameters = self.named_parameters(remove_duplicate=False)
        self._unchanged = {name for name, p in parameters if not p.requires_grad}
        leaves = not any(list(network.get_submodule(name).children()) for name in head_modules)
        self.frozen_part_is_fixed = model.frozen_norm != "train" and leaves
        """Whether all frozen layers stay in eval mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the network."""
        outputs: Tensor = self.network(inputs)
        return outputs

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


def head_parameters(network: nn.Module, model: Network, classes: int) -> set[str]:
    """Return the names of the parameters of the head, which is the last linear layer.

    A network with another head has an attribute ``flexhpc_head`` with the names.

    Raises:
        PointError: the last linear layer does not have ``classes`` outputs.
    """
    names: set[str] | None = getattr(network, "flexhpc_head", None)
    if names is not None:
        return names
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear or network.get_submodule(linear[-1]).out_features != classes:
        last = f"its last linear layer {linear[-1]} is not" if linear else "it has no"
        raise PointError(
            f"model.adapt: cannot find the head of {model.family}, because {last} a linear layer "
            f"with {classes} outputs; define the head last, or use adapt: full"
        )
    head = network.get_submodule(linear[-1])
    return {f"{linear[-1]}.{name}" for name, _ in head.named_parameters()}


def check_gradients(network: nn.Module, logits: Tensor) -> None:
    """Raise PointError if a trained parameter does not affect the outputs of a network.

    For example, an adapter has no effect if the network uses the weights of a layer without calling
    the layer.
    """
    logits.sum().backward()
    unused = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        names = ", ".join(name.removeprefix("network.") for name in unused[:2])
        raise PointError(
            f"model.adapt: {len(unused)} trained parameters have no effect on the outputs, such as "
            f"{names}; select other layers with targets"
        )


def _add_adapters(network: nn.Module, adapter: Adapter, head: set[str]) -> None:
    """Add adapters to the layers of a network, in place."""
    peft = _import_peft()
    torch.backends.mha.set_fastpath_enabled(False)  # it would ignore adapters of frozen layers
    layers = _default_layers(network, head, only_linear=adapter.lora is None)
    options: dict[str, Any] = {}
    if adapter.lora is not None:
        key, method = "model.adapt.lora", "LORA"
        layers = _matching_layers(network, layers, adapter.lora.targets, head)
        options = {"r": adapter.lora.rank, "lora_alpha": adapter.lora.alpha or adapter.lora.rank,
                   "lora_dropout": adapter.lora.dropout or 0.0}  # fmt: skip
    else:
        assert adapter.peft is not None
        key, method = "model.adapt.peft", adapter.peft.method.upper()
    if not layers:
        raise PointError(f"{key}: the network has no layer besides the head that can be adapted")
    # A pattern is matched against whole names, and a list against the ends of names.
    options["target_modules"] = "|".join(map(re.escape, layers))
    if adapter.peft is not None:
        options |= adapter.peft.kwargs or {}
    methods = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if method not in methods:
        names = ", ".join(sorted(methods))
        raise PointError(f"{key}.method: peft has no method {method}; use one of {names}")
    modules = {name: network.get_submodule(name) for name in head}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft corrects fan_in_fan_out with a warning
            peft.inject_adapter_in_model(methods[method](**options), network)
    except Exception as error:  # peft raises various exceptions for settings it does not support
        raise PointError(f"{key}: peft rejects these settings: {one_line_message(error)}") from None
    if any(network.get_submodule(name) is not module for name, module in modules.items()):
        raise PointError(f"{key}: target_modules contains the head, which is trained fully")


def _default_layers(network: nn.Module, head: set[str], *, only_linear: bool) -> list[str]:
    """Return the names of the linear layers and of the convolutions without groups.

    The head and layers that share their weights with an embedding are omitted, and so are
    subclasses of these layers, because peft would copy them for the adapters.
    """
    shared = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    kinds = [nn.Linear] if only_linear else [nn.Linear, nn.Conv1d, nn.Conv2d]
    return [
        name
        for name, module in network.named_modules()
        # Conv1D is the linear layer of GPT-2 in transformers.
        if (type(module) in kinds or type(module).__name__ == "Conv1D")
        and getattr(module, "groups", 1) == 1
        and name not in head
        and id(module.weight) not in shared
    ]


def _matching_layers(
    network: nn.Module, layers: list[str], targets: list[str] | None, head: set[str]
) -> list[str]:
    """Return the layers whose name, or the end of whose name, is one of ``targets``.

    Raises:
        PointError: a target matches no layer.
    """
    if targets is None:
        return layers
    names = [name for name, _ in network.named_modules() if name not in head]
    matched: dict[str, None] = {}
    for target in targets:
        found = [name for name in names if name == target or name.endswith(f".{target}")]
        if not found:
            ends = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise PointError(
                f"model.adapt.lora.targets: no layer is named {target}; the names of the linear "
                f"layers and convolutions end in {ends}"
            )
        matched |= dict.fromkeys(found)
    return [*matched]


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
