"""Training loops that bench.speed compares, as functions of (network, inputs, labels, epochs).

Each loop except :func:`floor` trains with Adam in batches of ``BATCH`` and computes the accuracy
after every epoch. Checkpoints, logs and progress bars of other libraries are disabled.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from flexhpc.config.sections.training import Adam
from flexhpc.training import Callbacks, ProbeData, train

BATCH, RATE, EVAL_BATCH = 128, 1e-3, 1024
TrainingLoop = Callable[[nn.Module, Tensor, Tensor, int], None]


def flexhpc(
    network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, curves: str = "evaluation"
) -> None:
    """Train as flexhpc trains a probe, including the metrics of its convergence gates."""
    section = {"optimizer": "adam", "lr": RATE, "batch_size": BATCH, "epochs": epochs}
    section |= {"gates": {"plateau": {"mode": "off"}}, "curves": curves}
    training = Adam.model_validate(section)
    device = device_of(network)
    data = ProbeData(inputs=inputs.to(device), labels=labels.to(device), init_seed=0, order_seed=0)
    train(training, lambda: network, data, Callbacks())


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _loaders(
    inputs: Tensor, labels: Tensor, batch_size: int = BATCH
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return a shuffled loader for training and an ordered loader for the evaluation."""
    data = TensorDataset(inputs, labels)
    return DataLoader(data, batch_size, shuffle=True), DataLoader(data, EVAL_BATCH)


def _on_device(network: nn.Module, batches: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    device = device_of(network)
    for x, y in batches:
        yield x.to(device), y.to(device)


def _count_correct(network: nn.Module, batches: DataLoader[Any]) -> int:
    network.eval()
    with torch.no_grad():
        correct = sum(
            int((network(x).argmax(1) == y).sum()) for x, y in _on_device(network, batches)
        )
    network.train()
    return correct


def data_loader_epochs(
    network: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = BATCH, lr: float = RATE
) -> Iterator[int]:
    """Train without end in a loop over a DataLoader, as in tutorials.

    Yields:
        Number of correctly classified samples after each epoch.
    """
    shuffled, in_order = _loaders(inputs, labels, batch_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    while True:
        for x, y in _on_device(network, shuffled):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        yield _count_correct(network, in_order)


def data_loader(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Train for ``epochs`` epochs with :func:`data_loader_epochs`."""
    for _ in islice(data_loader_epochs(network, inputs, labels), epochs):
        pass


def resident(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Train in a plain loop over tensors on the device, with a fused optimizer."""
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
            batches = zip(inputs.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)
            sum(int((network(x).argmax(1) == y).sum()) for x, y in batches)


def lightning(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Train with Lightning's Trainer and a validation loop over the same samples."""
    import lightning

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.correct = network, 0

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return functional.cross_entropy(self.network(x), y)

        def validation_step(self, batch: Any, _: int) -> None:
            x, y = batch
            self.correct += int((self.network(x).argmax(1) == y).sum())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator=device_of(network).type, devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Module(), *_loaders(inputs, labels))


def accelerate(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Train like :func:`data_loader_epochs`, with objects prepared by Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device_of(network).type == "cpu")
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    prepared = accelerator.prepare(network, optimizer, *_loaders(inputs, labels))
    network, optimizer, shuffled, in_order = prepared
    for _ in range(epochs):
        for x, y in shuffled:
            optimizer.zero_grad()
            accelerator.backward(functional.cross_entropy(network(x), y))
            optimizer.step()
        _count_correct(network, in_order)


def floor(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Compute only the matrix products and convolutions of training and evaluation."""
    layers: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda m, args, _: layers.append((m, args[0].detach())))
        for module in network.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    with torch.no_grad():
        network(inputs[:BATCH].to(device_of(network)))
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for _ in range(epochs * -(-len(labels) // BATCH)):
            for index, (layer, inputs) in enumerate(layers):
                out = layer(inputs)
                _backward(layer, inputs, out, to_input=index > 0)
                layer(inputs)  # the evaluation


def _backward(layer: nn.Module, inputs: Tensor, out: Tensor, *, to_input: bool) -> None:
    """Compute the gradient of a layer's weight and, if ``to_input``, of the layer's input."""
    if isinstance(layer, nn.Conv2d):
        torch.ops.aten.convolution_backward(
            out, inputs, layer.weight, None, layer.stride, layer.padding, layer.dilation, False,
            [0, 0], layer.groups, [to_input, True, False],
        )  # fmt: skip
        return
    assert isinstance(layer, nn.Linear)
    flat, back = inputs.reshape(-1, inputs.shape[-1]), out.reshape(-1, out.shape[-1])
    back.T @ flat
    if to_input:
        back @ layer.weight


LOOPS: dict[str, TrainingLoop] = {
    "flexhpc": partial(flexhpc, curves="batches"), "flexhpc, curves by evaluation": flexhpc,
    "DataLoader loop": data_loader, "resident loop": resident,
    "Lightning": lightning, "Accelerate": accelerate, "floor": floor,
}  # fmt: skip
PACKAGES = {"Lightning": "lightning", "Accelerate": "accelerate"}


def installed_loops() -> dict[str, TrainingLoop]:
    """Return the loops whose packages are installed."""
    return {k: v for k, v in LOOPS.items() if k not in PACKAGES or find_spec(PACKAGES[k])}


def silence(*loops: str) -> None:
    """Disable logs and warnings of these loops."""
    warnings.simplefilter("ignore")
    if "Lightning" in loops:
        import_module("lightning")  # its import sets the levels of its loggers
    for name in ("lightning", "lightning.pytorch", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
