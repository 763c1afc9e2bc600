"""Custom networks."""

from __future__ import annotations

from torch import nn

from flexhpc.config.sections.custom import CustomModel
from flexhpc.custom.code import accepted, load, run
from flexhpc.custom.time_limit import TimeLimit
from flexhpc.errors import PointError

Shape = tuple[int, ...]


def network(model: CustomModel, shape: Shape, classes: int) -> nn.Module:
    """Build the network with the user's code.

    ``shape`` and ``classes`` are passed if the code has parameters with these names.

    Raises:
        PointError: the code cannot be imported, raises an exception, or does not return a
            torch.nn.Module.
    """
    key = f"model.family: {model.family}"
    make = load(model.family, model.place, pinned=model.version is not None, key="model.family")
    given = accepted(make, {"shape": shape, "classes": classes}) | model.kwargs
    made = run(key, lambda: make(**given), model.seconds)
    if not isinstance(made, nn.Module):
        raise PointError(f"{key} gave a {type(made).__name__}, not a torch.nn.Module")
    _limit_passes(made, TimeLimit(model.seconds, f"{key}: a forward pass"))
    return made


def _limit_passes(network: nn.Module, limit: TimeLimit) -> None:
    """Make a forward pass that exceeds the time limit raise TookTooLong."""

    def begin(module: nn.Module, inputs: object) -> None:
        limit.__enter__()

    def end(module: nn.Module, inputs: object, outputs: object) -> None:
        limit.__exit__(None, None, None)

    for hook in (begin, end):
        vars(hook)["only_watches"] = True  # so that training/manual_backprop.py may skip it
    network.register_forward_pre_hook(begin)
    network.register_forward_hook(end, always_call=True)
