"""Plain training loops that report whether a network fits n samples within its budget.

Imports nothing from flexhpc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_optimizer import SOAP, Muon, Shampoo
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from tests.reference.data import Samples

Section = Mapping[str, Any]
Shape = tuple[int, ...]
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU,
}  # fmt: skip


def train(model: Section, training: Section, samples: Samples, n: int, seed: int) -> bool:
    """Train a fresh network on a fresh random subset of ``n`` samples; return whether all fit.

    Training ends with the first epoch after which all samples are fitted, or with the budget.
    """
    torch.manual_seed(seed)
    subset = torch.randperm(len(samples.labels))[:n]
    inputs, labels = samples.inputs[subset], samples.labels[subset]
    net = build(model, tuple(inputs.shape[1:]), samples.classes)
    # The fewest batches of at most batch_size; their sizes differ by at most one sample.
    batches = 1 if training["optimizer"] == "gd" else math.ceil(n / training["batch_size"])
    budget = training["steps"] if "steps" in training else training["epochs"] * batches
    optimizer = make_optimizer(training, net.parameters())
    cosine = training.get("schedule") == "cosine"
    schedule = CosineAnnealingLR(optimizer, T_max=budget) if cosine else None
    updates = 0
    while updates < budget:
        net.train()
        for batch in torch.randperm(n).tensor_split(batches)[: budget - updates]:
            loss = functional.cross_entropy(net(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            updates += 1
        if not math.isfinite(loss.item()):
            return False
        if count_missed(net, inputs, labels) == 0:
            return True
    return False


@torch.no_grad()
def count_missed(net: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    """Return the number of misclassified samples in eval mode."""
    net.eval()
    return int((net(inputs).argmax(1) != labels).sum())


def build(model: Section, shape: Shape, classes: int) -> nn.Module:
    """Return an untrained network: (n, *shape) -> (n, classes)."""
    return _BUILDERS[model["family"]](model, shape, classes)


def _linear(model: Section, shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def _mlp(model: Section, shape: Shape, classes: int) -> nn.Module:
    activation = _ACTIVATIONS[model.get("activation", "relu")]
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(shape)
    for _ in range(model["depth"]):
        layers += [nn.Linear(features, model["width"]), activation()]
        features = model["width"]
    return nn.Sequential(*layers, nn.Linear(features, classes))


def _cnn(model: Section, shape: Shape, classes: int) -> nn.Module:
    activation = _ACTIVATIONS[model.get("activation", "relu")]
    layers: list[nn.Module] = []
    channels, out = shape[0], model["width"]
    for _ in range(model["depth"]):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), activation()]
        channels, out = out, 2 * out
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


def _vit_or_mixer(model: Section, shape: Shape, classes: int) -> nn.Module:
    from timm.models import MlpMixer, VisionTransformer

    sizes = {"img_size": shape[1], "patch_size": model["patch"], "embed_dim": model["width"]}
    if model["family"] == "vit":
        sizes |= {"depth": model["depth"], "num_heads": model["heads"]}
    else:
        sizes |= {"num_blocks": model["depth"]}
    kind = VisionTransformer if model["family"] == "vit" else MlpMixer
    return kind(in_chans=shape[0], num_classes=classes, **sizes)


def _resnet(model: Section, shape: Shape, classes: int) -> nn.Module:
    """Build a stem of three 3x3 convolutions and two stages of basic blocks.

    The stem does not downsample, as usual for CIFAR.
    """
    from timm.models.resnet import BasicBlock, ResNet

    width, depth = model["width"], model["depth"]
    assert depth == 2, "one block in each of two stages"
    resnet = ResNet(
        BasicBlock, (1, 1), channels=(width, 2 * width), in_chans=shape[0], num_classes=classes,
        stem_type="deep", stem_width=width // 2,
    )  # fmt: skip
    resnet.conv1[0].stride = (1, 1)
    resnet.maxpool = nn.Identity()
    resnet.layer3 = resnet.layer4 = nn.Identity()
    return resnet


_BUILDERS: Mapping[str, Callable[[Section, Shape, int], nn.Module]] = {
    "linear": _linear, "mlp": _mlp, "cnn": _cnn,
    "vit": _vit_or_mixer, "mixer": _vit_or_mixer, "resnet": _resnet,
}  # fmt: skip


def make_optimizer(training: Section, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of the ``training`` section of a recipe."""
    name, weights = training["optimizer"], list(parameters)
    options = {"lr": training["lr"], "weight_decay": training.get("weight_decay", 0.0)}
    if name in ("sgd", "gd"):
        return torch.optim.SGD(weights, momentum=training["momentum"], **options)
    if name == "muon":  # matrices and kernels; vectors by AdamW with a tenth of the learning rate
        matrices = [weight for weight in weights if weight.dim() > 1]
        vectors = [weight for weight in weights if weight.dim() <= 1]
        return Muon([
            {"params": matrices, "use_muon": True, **options},
            {"params": vectors, "use_muon": False, **options, "lr": training["lr"] / 10},
        ])  # fmt: skip
    classes: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "shampoo": Shampoo, "soap": SOAP,
    }  # fmt: skip
    return classes[name](weights, **options)
