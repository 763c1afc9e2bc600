"""Build custom networks."""

from __future__ import annotations

from torch import nn

from flexhpc.config.sections.custom import CustomModel
from flexhpc.custom.code import accepted_arguments, call_custom_code, import_object
from flexhpc.custom.time_limit import TimeLimit
from flexhpc.errors import PointError
from flexhpc.models.families import Shape
from flexhpc.models.hugging_face import convert_classifier


def build_custom(model: CustomModel, shape: Shape, classes: int) -> nn.Module:
    """Build a network by calling custom code.

    ``shape`` and ``classes`` are passed if the code accepts arguments with these names. The time
    limit ``model.seconds`` applies to the call, and later to each forward pass of the network.

    Raises:
        PointError: the code cannot be imported, raises an exception, exceeds the time limit, or
            does not return a torch.nn.Module.
    """
    key = f"model.family: {model.family}"
    target = import_object(model.family, model.user_code, key="model.family")
    options = accepted_arguments(target, {"shape": shape, "classes": classes}) | model.kwargs
    result = call_custom_code(key, lambda: target(**options), model.seconds)
    if not isinstance(result, nn.Module):
        raise PointError(f"{key} returned a {type(result).__name__}, not a torch.nn.Module")
    convert_classifier(result, model.family, shape)
    _limit_forward_time(result, TimeLimit(model.seconds, f"{key}: a forward pass"))
    return result


def _limit_forward_time(network: nn.Module, limit: TimeLimit) -> None:
    """Register hooks that raise TimeLimitExceeded if a forward pass exceeds the time limit."""

    def start_timer(module: nn.Module, inputs: object) -> None:
        limit.__enter__()

    def stop_timer(module: nn.Module, inputs: object, outputs: object) -> None:
        limit.__exit__(None, None, None)

    for hook in (start_timer, stop_timer):
        vars(hook)["changes_nothing"] = True  # so that training/manual_backprop.py may skip it
    network.register_forward_pre_hook(start_timer)
    network.register_forward_hook(stop_timer, always_call=True)
