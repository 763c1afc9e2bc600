"""Manual backprop is bitwise equal to autograd, in gradients and in whole training runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Adam, Gd, Muon, Sam, Sgd, Training
from flexhpc.models import build
from flexhpc.training import Callbacks
from flexhpc.training import loop as loop_module
from flexhpc.training.manual_backprop import ManualBackprop, mlp_layers
from tests.training.helpers import assert_outcomes_equal, run

SHORT = {"batch_size": 32, "epochs": 12}
TRAININGS: dict[str, Training] = {
    "adam": Adam(optimizer="adam", lr=1e-2, **SHORT),
    "adam with decay": Adam(optimizer="adam", lr=1e-2, weight_decay=0.1, **SHORT),
    "sgd": Sgd(optimizer="sgd", lr=0.05, clip_norm=1.0, **SHORT),
    "sam": Sgd(optimizer="sgd", lr=0.05, sam=Sam(), momentum=0.0, **SHORT),
    "muon": Muon(optimizer="muon", **SHORT),
    "fp64": Adam(optimizer="adam", lr=1e-2, precision="fp64", **SHORT),
    "in chunks": Gd(optimizer="gd", lr=0.2, epochs=12),
    "shards": Adam(optimizer="adam", lr=1e-2, shards=3, **SHORT),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_runs_are_bitwise_equal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 800 if name == "in chunks" else 150
    manual = run(TRAININGS[name], n, callbacks=Callbacks(forgetting=True))
    assert manual.epochs >= 7
    monkeypatch.setattr(loop_module, "mlp_layers", lambda model, dims: None)
    assert_outcomes_equal(run(TRAININGS[name], n, callbacks=Callbacks(forgetting=True)), manual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "identity", "gelu"])
@pytest.mark.parametrize("change", [{}, {"bias": False}, {"depth": 0}, {"init": "mup"}])
def test_gradients_are_bitwise_equal_to_autograd(
    change: dict[str, object], activation: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    section = Mlp(family="mlp", width=8, depth=2).model_copy(
        update={"activation": activation, **change}
    )
    network = build(section, shape, 10).to(dtype)
    for n in (1, 8, 33):
        inputs, labels = torch.randn(n, *shape, dtype=dtype), torch.randint(10, (n,))
        expected = torch.autograd.grad(
            nn.functional.cross_entropy(network(inputs), labels), list(network.parameters())
        )
        ManualBackprop(mlp_layers(network, 4), 0.0).backward(inputs, labels, n, is_first_chunk=True)
        for parameter, gradient in zip(network.parameters(), expected, strict=True):
            assert torch.equal(parameter.grad, gradient)


def small_mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))


def with_shared_layer() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


def with_tied_weights() -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(4, 2))


def modified(modify: Callable[[nn.Module], object], layer: int | None = 1) -> nn.Module:
    """Return an MLP after ``modify`` of a layer, or of the whole network."""
    network = small_mlp()
    modify(network if layer is None else network[layer])
    return network


def add_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda m, x, y: 2 * y)


@pytest.mark.parametrize(
    ("network", "dims"),
    [
        (nn.Linear(3, 2), 2),
        (nn.Sequential(), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.GELU("tanh"), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.ReLU(), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 2)), 2),
        (nn.Sequential(nn.Tanh(), nn.Linear(3, 2)), 2),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)), 3),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)), 4),
        (with_shared_layer(), 2),
        (with_tied_weights(), 2),
        (modified(add_hook, None), 4),
        (modified(add_hook, 1), 4),
        (modified(add_hook, 2), 4),
        (modified(nn.utils.spectral_norm), 4),
        (modified(lambda layer: prune.random_unstructured(layer, "weight", 0.5)), 4),
        (modified(lambda layer: layer.weight.register_hook(lambda gradient: 0 * gradient)), 4),
        (modified(lambda layer: setattr(layer, "forward", lambda x: x[:, :8])), 4),
    ],
)  # fmt: skip
def test_unsupported_models_use_autograd(network: nn.Module, dims: int) -> None:
    assert mlp_layers(network, dims) is None


def test_a_hook_marked_as_without_effect_is_not_called() -> None:
    network = small_mlp()
    assert mlp_layers(network, 4) is not None

    def hook(*_: object) -> None:
        raise AssertionError

    hook.changes_nothing = True
    network.register_forward_hook(hook)
    assert mlp_layers(network, 4) is not None
    global_hook = nn.modules.module.register_module_forward_hook(lambda m, x, y: 2 * y)
    try:
        assert mlp_layers(network, 4) is None
    finally:
        global_hook.remove()
