"""Load pretrained weights into a network."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flexhpc.config.pretrained import hash_network_files, weights_file
from flexhpc.config.sections.model import Network
from flexhpc.errors import PointError, one_line_message

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts commonly store the state_dict in a file."""
_OPTIONAL = ("num_batches_tracked", "position_ids")
"""Ends of the names of buffers that not all versions of torch and transformers store."""
_MAX_NAMES, _MAX_LENGTH = 3, 80


def check_unchanged(model: Network) -> None:
    """Raise PointError if the files of a network have changed since the spec was read."""
    if model.weights is None:
        return
    try:
        unchanged = hash_network_files(model.family, model.pretrained) == model.weights
    except OSError as error:
        raise PointError(f"model.pretrained: {one_line_message(error)}") from None
    if not unchanged:
        raise PointError(
            f"model.pretrained: a file of {model.family} has changed since the sweep was started, "
            "or is missing on this machine; run the sweep again to measure the affected points "
            "again"
        )


def load_pretrained(network: nn.Module, model: Network, head: set[str]) -> None:
    """Load the weights ``model.pretrained`` into a network.

    Parameters of the head keep their initial values if the file does not contain them, or contains
    them with another shape.

    Args:
        network: the network, on the CPU.
        model: the ``model`` section.
        head: names of the parameters of the head.

    Raises:
        PointError: the file cannot be read or does not match the network.
    """
    assert model.pretrained is not None
    key = f"model.pretrained: {model.pretrained}"
    weights = _read_weights(model.pretrained)
    expected = network.state_dict()
    if not any(name in expected for name in weights):  # as saved by DataParallel
        weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
    replaced = {
        name for name in head if name not in weights or weights[name].shape != expected[name].shape
    }
    prefixes = tuple({name.rpartition(".")[0] + "." for name in head})
    missing = [n for n in expected if n not in weights and n not in head]
    missing = [n for n in missing if not n.endswith(_OPTIONAL)]
    unexpected = [n for n in weights if n not in expected and not n.startswith(prefixes)]
    unexpected = [n for n in unexpected if not n.endswith(_OPTIONAL)]
    different = [
        f"{n[:_MAX_LENGTH]} {tuple(weights[n].shape)} instead of {tuple(expected[n].shape)}"
        for n in expected
        if n in weights and n not in head and weights[n].shape != expected[n].shape
    ]
    problems = [
        f"{label} {_short_list(names)}"
        for label, names in (
            ("lacks", missing), ("also contains", unexpected), ("contains", different)
        )
        if names
    ]  # fmt: skip
    if problems:
        raise PointError(
            f"{key} does not match {model.family}: it {'; it '.join(problems)}; use the weights of "
            "this network"
        )
    kept = {n: w for n, w in weights.items() if n in expected and n not in replaced}
    wrong = [
        n for n, w in kept.items()
        if w.is_floating_point() != expected[n].is_floating_point()
        or not bool(torch.isfinite(w).all())
    ]  # fmt: skip
    if wrong:
        raise PointError(f"{key}: {_short_list(wrong)}: must contain finite floating-point numbers")
    try:
        network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise PointError(f"{key} cannot be loaded ({one_line_message(error)})") from None


def _read_weights(path: str) -> dict[str, Tensor]:
    """Read a state_dict from a file, without running code that the file contains.

    Raises:
        PointError: the file cannot be read or contains no state_dict.
    """
    key = f"model.pretrained: {path}"
    try:
        file = weights_file(path)
        content: Any
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except PointError:
        raise
    except Exception as error:  # damaged files raise many types of exceptions
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise PointError(
                f"{key} contains objects other than tensors, which are not loaded because they can "
                "run code; store only the state_dict, or use safetensors"
            ) from None
        raise PointError(f"{key} cannot be read ({one_line_message(error)})") from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    items = content.items() if isinstance(content, Mapping) else ()
    weights = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not weights:
        raise PointError(f"{key} does not contain a state_dict (names and tensors)")
    return weights


def _short_list(names: list[str]) -> str:
    text = ", ".join(name[:_MAX_LENGTH] for name in names[:_MAX_NAMES])
    return f"{text} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else text
