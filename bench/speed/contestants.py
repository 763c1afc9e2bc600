"""Ways to train a network until it fits, with accuracy over all samples after every epoch.

Each is a function (network, inputs, labels, epochs) that trains with Adam and batches of ``BATCH``
and returns nothing. What a peer does by itself beside that (checkpoints, logs, bars) is off.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from flexhpc.config.sections.training import Training
from flexhpc.config.variants import variants
from flexhpc.training import Callbacks, ProbeData, train

BATCH, RATE, LOOKED_AT = 128, 1e-3, 1024
Contestant = Callable[[nn.Module, Tensor, Tensor, int], None]


def flexhpc(
    network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, curves: str = "looks"
) -> None:
    """One probe, with what its gates read."""
    asked = {"optimizer": "adam", "lr": RATE, "batch_size": BATCH, "epochs": epochs}
    asked |= {"gates": {"plateau": {"mode": "off"}}, "curves": curves}
    training = variants("training")["adam"].model_validate(asked)
    assert isinstance(training, Training)
    device = device_of(network)
    data = ProbeData(inputs=inputs.to(device), labels=labels.to(device), init_seed=0, order_seed=0)
    train(training, lambda: network, data, Callbacks())


def _loaders(
    inputs: Tensor, labels: Tensor, batch: int = BATCH
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    data = TensorDataset(inputs, labels)
    return DataLoader(data, batch, shuffle=True), DataLoader(data, LOOKED_AT)


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's parameters are."""
    return next(network.parameters()).device


def _moved(network: nn.Module, batches: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches where the network is."""
    device = device_of(network)
    for x, y in batches:
        yield x.to(device), y.to(device)


def _accuracy(network: nn.Module, batches: DataLoader[Any]) -> float:
    network.eval()
    with torch.no_grad():
        right = sum(float((network(x).argmax(1) == y).sum()) for x, y in _moved(network, batches))
    network.train()
    return right


def data_loader(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """A loop as tutorials write it."""
    shuffled, plain = _loaders(inputs, labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(epochs):
        for x, y in _moved(network, shuffled):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        _accuracy(network, plain)


def data_loader_fits(
    network: nn.Module, inputs: Tensor, labels: Tensor, batch: int, rate: float, steps: int
) -> bool:
    """The same loop until all samples are right; False if so many updates were not enough."""
    shuffled, plain = _loaders(inputs, labels, batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    done = 0
    while done < steps:
        for x, y in _moved(network, shuffled):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        done += len(shuffled)
        if _accuracy(network, plain) == len(labels):
            return True
    return False


def resident(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """A loop by somebody careful: tensors in memory, one fused update."""
    device = device_of(network)
    inputs, labels = inputs.to(device), labels.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    for _ in range(epochs):
        network.train()
        for ids in torch.randperm(len(labels), device=device).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs[ids]), labels[ids]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            looks = zip(inputs.split(LOOKED_AT), labels.split(LOOKED_AT), strict=True)
            sum(int((network(x).argmax(1) == y).sum()) for x, y in looks)


def _kind(network: nn.Module) -> str:
    return device_of(network).type


def lightning(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Lightning's Trainer, with a validation loop over the same samples."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.right = network, 0

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return functional.cross_entropy(self.network(x), y)

        def validation_step(self, batch: Any, _: int) -> None:
            x, y = batch
            self.right += int((self.network(x).argmax(1) == y).sum())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator=_kind(network), devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Module(), *_loaders(inputs, labels))


def accelerate(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """The tutorial's loop, prepared by Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=_kind(network) == "cpu")
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    prepared = accelerator.prepare(network, optimizer, *_loaders(inputs, labels))
    network, optimizer, shuffled, plain = prepared
    for _ in range(epochs):
        for x, y in shuffled:
            optimizer.zero_grad()
            accelerator.backward(functional.cross_entropy(network(x), y))
            optimizer.step()
        _accuracy(network, plain)


def skorch(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """skorch's classifier, with accuracy on the training set after every epoch."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import EpochScoring

    scoring = EpochScoring("accuracy", on_train=True, lower_is_better=False, use_caching=False)
    NeuralNetClassifier(
        network, device=_kind(network), criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam, lr=RATE, batch_size=BATCH, max_epochs=epochs,
        train_split=None, verbose=0,
        iterator_train__shuffle=True, callbacks=[("accuracy", scoring)], warm_start=True,
    ).fit(inputs.numpy(), labels.numpy())  # fmt: skip


def floor(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """The products and convolutions alone: once forward and backward per batch, and a look."""
    layers: list[tuple[nn.Module, Tensor]] = []
    callbacks = [
        module.register_forward_hook(lambda m, given, _: layers.append((m, given[0].detach())))
        for module in network.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    with torch.no_grad():
        network(inputs[:BATCH].to(device_of(network)))
    for hook in callbacks:
        hook.remove()
    with torch.no_grad():
        for _ in range(epochs * -(-len(labels) // BATCH)):
            for place, (layer, given) in enumerate(layers):
                out = _apply(layer, given)
                _backward(layer, given, out, to_input=place > 0)
                _apply(layer, given)  # of the look


def _apply(layer: nn.Module, given: Tensor) -> Tensor:
    out: Tensor = layer(given)
    return out


def _backward(layer: nn.Module, given: Tensor, out: Tensor, *, to_input: bool) -> None:
    """Take the gradients of a layer's weight, and of its input but for the first one."""
    if isinstance(layer, nn.Conv2d):
        torch.ops.aten.convolution_backward(
            out, given, layer.weight, None, layer.stride, layer.padding, layer.dilation, False,
            [0, 0], layer.groups, [to_input, True, False],
        )  # fmt: skip
        return
    assert isinstance(layer, nn.Linear)
    flat, back = given.reshape(-1, given.shape[-1]), out.reshape(-1, out.shape[-1])
    back.T @ flat
    if to_input:
        back @ layer.weight


CONTESTANTS: dict[str, Contestant] = {
    "flexhpc": partial(flexhpc, curves="batches"), "flexhpc, curves of looks": flexhpc,
    "DataLoader loop": data_loader, "resident loop": resident,
    "Lightning": lightning, "Accelerate": accelerate, "skorch": skorch, "floor": floor,
}  # fmt: skip
NEEDS = {"Lightning": "lightning", "Accelerate": "accelerate", "skorch": "skorch"}


def at_hand() -> dict[str, Contestant]:
    """Return the contestants whose packages are installed."""
    return {k: v for k, v in CONTESTANTS.items() if k not in NEEDS or find_spec(NEEDS[k])}


def quiet(*contestants: str) -> None:
    """Let none of these print or warn between the figures."""
    import logging

    warnings.simplefilter("ignore")
    if "Lightning" in contestants:
        import_module("lightning")  # it sets its own levels
    for name in ("lightning", "lightning.pytorch", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
