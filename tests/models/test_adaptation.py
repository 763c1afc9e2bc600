"""Pretrained weights, and networks of which only a part is trained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

import flexhpc.training.loop
from flexhpc.config import load_points
from flexhpc.config.pretrained import hash_network_files
from flexhpc.config.sections.model import (
    Adapter,
    Cnn,
    HuggingFaceModel,
    Lora,
    Mixer,
    Mlp,
    Network,
    Peft,
    Timm,
    Vit,
)
from flexhpc.config.sections.training import Adam
from flexhpc.data import draw_subset, load_samples
from flexhpc.errors import InputError, PointError
from flexhpc.measuring.probe import run_training
from flexhpc.models import build, count_parameters
from flexhpc.models.adaptation import PartlyTrained, check_gradients, head_parameters
from flexhpc.search import Probe
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Group
from flexhpc.training.device_inputs import DeviceInputs
from flexhpc.training.frozen_part import split_off_frozen_part
from tests.conftest import Cli
from tests.training.helpers import (
    CPU,
    DIGIT,
    assert_outcomes_close,
    assert_outcomes_equal,
    collect_models,
    probe_data,
    resume,
    run,
    run_with_model,
)

MLP = Mlp(family="mlp", width=8, depth=2)
CNN = Cnn(family="cnn", width=4, depth=2, norm="batch")
LORA = Adapter(lora=Lora(rank=2))
STEPS = Adam(optimizer="adam", lr=1e-2, steps=12)


def adapted(model: Network, adapt: Any, **changes: Any) -> Network:
    return model.model_copy(update={"adapt": adapt, **changes})


@pytest.mark.parametrize(
    ("model", "adapt", "expected"),
    [
        (MLP, "head", 90),
        (MLP, "bias", 90 + 2 * 8),
        (MLP, LORA, 90 + 2 * (64 + 8) + 2 * (8 + 8)),
        (MLP, Adapter(lora=Lora(rank=2, targets=["3"])), 90 + 2 * (8 + 8)),
        (CNN, "head", 90),
        (CNN, "bias", 90 + (4 + 8) * 2),
        (CNN, LORA, 90 + 2 * (9 + 4) + 2 * (9 * 4 + 8)),
        (MLP, Adapter(peft=Peft(method="ia3", kwargs={"feedforward_modules": []})), 90 + 8 + 8),
    ],
)  # fmt: skip
def test_only_the_adapted_part_is_trained(model: Network, adapt: Any, expected: int) -> None:
    model = adapted(model, adapt)
    counts = count_parameters(model, DIGIT, 10)
    assert counts.trained == expected
    adapters = 0 if isinstance(adapt, str) else expected - 90
    plain = count_parameters(adapted(model, None), DIGIT, 10).trained
    assert counts.total == plain + adapters
    start: dict[str, torch.Tensor] = {}

    def make() -> nn.Module:
        network = build(model, DIGIT, 10)
        start.update({name: p.detach().clone() for name, p in network.named_parameters()})
        return network

    torch.manual_seed(0)
    network = make()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        network(torch.randn(4, *DIGIT)).square().sum().backward()
        optimizer.step()
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, start[n])}
    assert changed == {n for n, p in network.named_parameters() if p.requires_grad}
    assert sum(network.get_parameter(n).numel() for n in changed) == expected


def test_frozen_layers_stay_in_eval_mode() -> None:
    def statistics(frozen_norm: str | None, adapt: Any) -> list[torch.Tensor]:
        _, network = run_with_model(STEPS, 20, adapted(CNN, adapt, frozen_norm=frozen_norm))
        return [m.running_mean for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    for adapt in ("head", "bias", LORA):
        assert all((mean == 0).all() for mean in statistics(None, adapt))
        assert all((mean != 0).any() for mean in statistics("train", adapt))
    dropout = adapted(MLP, Adapter(lora=Lora(rank=2, dropout=0.5)))
    network = build(dropout, DIGIT, 10).train()
    inputs = torch.randn(4, *DIGIT)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(parameter)
    assert not torch.equal(network(inputs), network(inputs)), "dropout of adapters is active"


def test_initial_outputs_with_lora_are_those_of_the_network() -> None:
    outputs = []
    for adapt in (None, "head", LORA):
        torch.manual_seed(0)
        outputs.append(build(adapted(MLP, adapt), DIGIT, 10)(torch.ones(2, *DIGIT)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    torch.testing.assert_close(outputs[0], outputs[2], rtol=0, atol=0)


VIT = Vit(family="vit", width=6, depth=2, heads=1)
LAST_BLOCK = Adapter(lora=Lora(rank=2, targets=["blocks.1.attn.qkv", "blocks.1.mlp.fc1"]))


@pytest.mark.parametrize(
    ("model", "adapt"),
    [
        (MLP, "head"), (CNN, "head"), (VIT, "head"), (VIT, LAST_BLOCK), (MLP, LORA), (VIT, "bias"),
        (Mixer(family="mixer", width=6, depth=2), LORA),  # the weights of its head are initially 0
    ],
)  # fmt: skip
def test_activations_of_the_frozen_part_are_computed_once(
    model: Network, adapt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome equals that of a training run that computes them for every batch."""
    training = Adam(optimizer="adam", lr=3e-3, epochs=30, batch_size=8)
    is_split = adapt in ("head", LAST_BLOCK)
    calls: list[nn.Module] = []
    outcomes, numbers = [], []
    for cached in (True, False):
        if not cached:
            name = "split_off_frozen_part"
            monkeypatch.setattr(flexhpc.training.loop, name, lambda *_: None)
        calls.clear()
        hook = nn.modules.module.register_module_forward_hook(lambda m, *_: calls.append(m))
        outcomes.append(run(training, 40, model=adapted(model, adapt)))
        hook.remove()
        first = next(m for m in calls if isinstance(m, nn.Linear | nn.Conv2d))
        numbers.append(calls.count(first))
    assert_outcomes_close(*outcomes, tolerance=1e-3, metrics_tolerance=0.05)
    assert 0 < numbers[0] < numbers[1] / 20 if is_split else numbers[0] >= numbers[1]


@pytest.mark.parametrize(
    ("network", "adapt"), [(CNN, "head"), (CNN, "bias"), (CNN, LORA), (VIT, LAST_BLOCK)]
)
def test_an_interrupted_training_run_gives_the_same_result(
    network: Network, adapt: Any, tmp_path: Path
) -> None:
    model, checkpoint = adapted(network, adapt), tmp_path / "checkpoint"
    assert_outcomes_equal(
        resume(STEPS, 30, [3, 4], checkpoint, model=model), run(STEPS, 30, model=model)
    )
    state = build(model, DIGIT, 10).state_dict()
    assert not any("0.weight" in name and "lora" not in name for name in state), "frozen"
    heads = [value for value in state.values() if value.ndim == 2 and len(value) == 10]
    assert len(heads) == 1, "the head is saved once"


def save_network(path: Path, model: Network, classes: int = 10, seed: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    network = build(model, DIGIT, classes)
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"state_dict": network.state_dict()}, path)
    return network


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "model.safetensors"])
@pytest.mark.parametrize("classes", [10, 3])
def test_pretrained_weights_are_loaded(name: str, classes: int, tmp_path: Path) -> None:
    stored = save_network(tmp_path / name, CNN, classes)
    path = tmp_path if name == "model.safetensors" else tmp_path / name
    torch.manual_seed(0)
    network = build(CNN.model_copy(update={"pretrained": str(path)}), DIGIT, 10)
    torch.manual_seed(0)
    fresh = build(CNN, DIGIT, 10)
    for key, value in network.state_dict().items():
        is_head = key.startswith(list(network.state_dict())[-1].rpartition(".")[0])
        source = fresh if is_head and classes != 10 else stored
        torch.testing.assert_close(value, source.state_dict()[key], rtol=0, atol=0)


class RunsCode:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (eval, ("open('executed', 'w')",))


class RunsCommand:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (os.system, ("touch executed",))


def write_incomplete(path: Path) -> None:
    state = build(MLP, DIGIT, 10).state_dict()
    torch.save({name: value for name, value in state.items() if name != "3.bias"}, path)


def write_damaged(path: Path) -> None:
    path.write_bytes(b"no weights")


def write_pickle(path: Path, content: type = RunsCode) -> None:
    torch.save({"a": content()}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    {
        "missing": (lambda path: None, "no such file or folder"),
        "damaged": (write_damaged, "cannot be read"),
        "code": (write_pickle, "objects other than tensors"),
        "command": (partial(write_pickle, content=RunsCommand), "objects other than tensors"),
        "number": (lambda path: torch.save(3, path), "does not contain a state_dict"),
        "other": (
            lambda path: save_network(path, MLP.model_copy(update={"depth": 3})),
            "does not match mlp: it also contains 7.weight, 7.bias",
        ),
        "incomplete": (write_incomplete, "it lacks 3.bias; use"),
        "wider": (
            lambda path: save_network(path, MLP.model_copy(update={"width": 9})),
            r"it contains 1.weight \(9, 64\) instead of \(8, 64\)",
        ),
    }.values(),
)
def test_weights_that_cannot_be_used_give_one_message(
    write: Callable[[Path], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "weights.pt")
    model = MLP.model_copy(update={"pretrained": str(tmp_path / "weights.pt")})
    with pytest.raises(PointError, match=message) as error:
        build(model, DIGIT, 10)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("model.pretrained: ")
    assert not (tmp_path / "executed").exists()


SPEC = """\
name: head
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, depth: 2, pretrained: PATH, adapt: head}
  training: {optimizer: adam, lr: 1e-2, steps: 300}
  search: {policy: bisection, start: 8, tolerance: 1}
"""


@pytest.mark.sweeps
def test_a_changed_weights_file_is_another_point(tmp_path: Path, cli: Cli, profile: Path) -> None:
    weights, spec = tmp_path / "weights.pt", tmp_path / "head.yaml"
    spec.write_text(SPEC.replace("PATH", str(weights)))
    save_network(weights, MLP)
    cli("sweep", spec, "--profile", profile)
    assert "0 to measure" in cli("plan", spec).stdout
    (first,) = json.loads(cli("results", "runs/head", "--format", "json").stdout)
    assert (first["params"], first["params_total"]) == (90, 682)
    (before,) = load_points(spec)[1]
    moved = tmp_path / "moved.pt"
    moved.write_bytes(weights.read_bytes())
    (copy,) = load_points(spec, [f"model.pretrained={moved}"])[1]
    assert copy.id == before.id
    save_network(weights, MLP, seed=6)
    (after,) = load_points(spec)[1]
    assert after.id != before.id
    assert "1 to measure" in cli("plan", spec).stdout
    with pytest.raises(PointError, match="has changed since the sweep was started"):
        build(before.model, DIGIT, 10)


def test_weights_must_exist_when_a_spec_is_read(tmp_path: Path) -> None:
    spec = tmp_path / "head.yaml"
    spec.write_text(SPEC.replace("PATH", str(tmp_path)))
    with pytest.raises(InputError, match=r"head.yaml:4: model.pretrained: .* contains neither"):
        load_points(spec)


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        (Adapter(lora=Lora(rank=1, targets=["query"])), "no layer is named query; .* in 1, 3"),
        (Adapter(peft=Peft(method="lorax")), "peft has no method LORAX; use one of"),
        (Adapter(peft=Peft(method="lora", kwargs={"rank": 3})), "peft rejects these settings"),
    ],
)
def test_adapters_that_cannot_be_added_give_one_message(adapt: Any, message: str) -> None:
    with pytest.raises(PointError, match=message) as error:
        build(adapted(MLP, adapt), DIGIT, 10)
    assert "\n" not in str(error.value)


def test_timm_networks_are_adapted() -> None:
    model = Timm(family="timm:resnet10t", adapt="head", kwargs={"stem_width": 8})
    assert count_parameters(model, (3, 32, 32), 7).trained == 7 * 513


def tiny_config(kind: str, folder: Path, layers: int = 1) -> HuggingFaceModel:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}
    if kind == "bert":
        config = transformers.BertConfig(vocab_size=40, intermediate_size=32, **sizes)
    elif kind == "vit":
        config = transformers.ViTConfig(
            intermediate_size=32, image_size=8, patch_size=4, num_channels=1, **sizes
        )
    else:
        config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2)
    config.save_pretrained(folder)
    return HuggingFaceModel(family=f"hf:{folder}")


@pytest.mark.parametrize("kind", ["bert", "gpt2", "vit"])
def test_networks_of_transformers_need_no_wrapper(kind: str, tmp_path: Path) -> None:
    model = tiny_config(kind, tmp_path)
    shape = DIGIT if kind == "vit" else (6,)
    inputs = torch.randint(40, (5, *shape)).float()
    for adapt in (None, "head", LORA):
        network = build(adapted(model, adapt), shape, 3)
        assert network(inputs).shape == (5, 3)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert count_parameters(adapted(model, adapt), shape, 3).trained == trained
        if adapt == "head":
            assert trained == 16 * 3 + (0 if kind == "gpt2" else 3)
    if kind != "vit":
        with pytest.raises(PointError, match=r"set data\.standardise: none"):
            network(inputs + 0.5)


@pytest.mark.parametrize(("kind", "saved"), [
    ("bert", "BertModel"), ("bert", "BertForSequenceClassification"), ("bert", "BertForMaskedLM"),
    ("vit", "ViTForImageClassification"), ("gpt2", "GPT2LMHeadModel"),
])  # fmt: skip
def test_weights_saved_by_transformers_are_loaded(kind: str, saved: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_config(kind, tmp_path)
    shape = DIGIT if kind == "vit" else (6,)
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    stored = getattr(transformers, saved)(config)
    stored.save_pretrained(tmp_path)
    loaded = model.model_copy(update={"pretrained": str(tmp_path)})
    if saved == "GPT2LMHeadModel":
        causal = loaded.model_copy(update={"task": "causal_lm"})
        assert build(causal, shape, 9)(torch.zeros(2, 6)).shape == (2, 40, 6)
    network = build(loaded, shape, 3)
    base = getattr(stored, "base_model", stored)
    prefix = f"{network.base_model_prefix}."
    for name, value in base.state_dict().items():
        torch.testing.assert_close(network.state_dict()[prefix + name], value, rtol=0, atol=0)
    trained = count_parameters(adapted(loaded, "head"), shape, 3).trained
    pooler = 16 * 16 + 16 if saved == "BertForMaskedLM" else 0
    assert trained == 16 * 3 + (0 if kind == "gpt2" else 3) + pooler


def test_other_weights_and_settings_of_transformers_give_one_message(tmp_path: Path) -> None:
    model = tiny_config("bert", tmp_path)
    build(model, (6,), 3).save_pretrained(tmp_path)
    wider = model.model_copy(
        update={"pretrained": str(tmp_path), "kwargs": {"intermediate_size": 33}}
    )
    with pytest.raises(PointError, match=r"does not match .* or has another shape of them"):
        build(wider, (6,), 3)
    with pytest.raises(PointError, match="has no key num_hiden_layers"):
        build(model.model_copy(update={"kwargs": {"num_hiden_layers": 2}}), (6,), 3)
    with pytest.raises(
        PointError, match="token ids must be from 0 to 39, or -1 for padding, not from 0 to 40"
    ):
        build(model, (6,), 3)(torch.tensor([[0.0, 40.0]]))
    with pytest.raises(PointError, match=r"sequences of 513 tokens are longer than the 512 posit"):
        build(model, (513,), 3)
    changed = model.model_copy(update={"weights": "0" * 16})
    with pytest.raises(PointError, match="has changed since the sweep was started"):
        build(changed, (6,), 3)
    missing = HuggingFaceModel(family=f"hf:{tmp_path}/other")
    with pytest.raises(PointError, match=r"hf:.*other"):
        build(missing, (6,), 3)


def test_a_changed_configuration_in_the_cache_is_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hash_network_files("hf:tiny", None) is None
    references, snapshot = (tmp_path / "models--tiny" / name for name in ("refs", "snapshots/0"))
    references.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (references / "main").write_text("0")
    (snapshot / "config.json").write_text("{}")
    first = hash_network_files("hf:tiny", None)
    assert first == hash_network_files(f"hf:{snapshot}", None)
    (snapshot / "config.json").write_text('{"n_layer": 1}')
    assert hash_network_files("hf:tiny", None) not in (None, first)


def test_no_token_is_predicted_from_itself_or_later_tokens(tmp_path: Path) -> None:
    for kind in ("bert", "gpt2"):
        model = tiny_config(kind, tmp_path / kind).model_copy(update={"task": "causal_lm"})
        network = build(model, (6,), 9).eval()
        tokens = torch.randint(9, (3, 6)).float()
        changed = tokens.clone()
        changed[:, 3:] = (changed[:, 3:] + 1) % 9
        with torch.no_grad():
            first, second = network(tokens), network(changed)
        torch.testing.assert_close(first[:, :, :4], second[:, :, :4])
        assert not torch.allclose(first[:, :, 4:], second[:, :, 4:])
    with pytest.raises(PointError, match="nothing would be trained"):
        build(adapted(model, "head"), (6,), 9)


class TwoLinear(nn.Module):
    def __init__(self, head_first: bool = False) -> None:
        super().__init__()
        if head_first:
            self.fc = nn.Linear(20, 10)
        self.a = nn.ModuleDict({"fc": nn.Linear(64, 20)})
        if not head_first:
            self.fc = nn.Linear(20, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.a["fc"](inputs.flatten(1)).relu()
        logits: torch.Tensor = self.fc(hidden)
        return logits


class NoisyFeatures(TwoLinear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.a["fc"](inputs.flatten(1))
        logits: torch.Tensor = self.fc(hidden - hidden.mean(dim=0))
        return logits


class UnusedLayer(TwoLinear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = functional.linear(inputs.flatten(1), self.a["fc"].weight)
        logits: torch.Tensor = self.fc(hidden)
        return logits


HEAD = {"fc.weight", "fc.bias"}


def test_adapters_are_added_to_all_layers_but_the_head() -> None:
    network = PartlyTrained(TwoLinear(), adapted(MLP, LORA), HEAD)
    assert type(network.network.fc) is nn.Linear
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 210 + 2 * (64 + 20)


def test_adapters_without_effect_and_heads_that_are_not_last_are_rejected() -> None:
    network = PartlyTrained(UnusedLayer(), adapted(MLP, LORA), set(HEAD))
    with pytest.raises(PointError, match=r"2 trained parameters have no effect .* a\.fc\.lora_A"):
        check_gradients(network, network(torch.ones(2, *DIGIT)))
    with pytest.raises(PointError, match=r"last linear layer a\.fc is not .* with 10 outputs"):
        head_parameters(TwoLinear(head_first=True), MLP, 10)
    assert head_parameters(TwoLinear(), MLP, 10) == HEAD


class ChangingFeatures(TwoLinear):
    """The inputs of the head depend on the weights of the head."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.a["fc"](inputs.flatten(1))
        logits: torch.Tensor = self.fc(hidden * (1 + self.fc.weight.detach().abs().sum()))
        return logits


class TwoRowsPerSample(TwoLinear):
    """The head is applied to two rows for each sample."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.a["fc"](inputs.flatten(1)).repeat_interleave(2, dim=0)
        logits: torch.Tensor = self.fc(hidden).view(len(inputs), 2, -1).sum(dim=1)
        return logits


class GatedHead(nn.Module):
    """The frozen layer affects the outputs only through a gate whose initial value is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = nn.Linear(64, 20), nn.Linear(20, 10)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.a(inputs.flatten(1))
        logits: torch.Tensor = self.fc(inputs.flatten(1)[:, :20])
        return logits + self.gate * hidden[:, :10]


def split(
    network: nn.Module, inputs: torch.Tensor, precision: Any = None
) -> tuple[nn.Module, torch.Tensor] | None:
    data = replace(probe_data(len(inputs)), inputs=inputs)
    device_inputs = DeviceInputs(data, double=False)
    return split_off_frozen_part(network, device_inputs, precision or nullcontext())


def test_with_bf16_only_the_head_is_split_off() -> None:
    images, bf16 = torch.randn(20, *DIGIT), torch.autocast("cpu", torch.bfloat16)
    for adapt in ("head", LAST_BLOCK):
        network = build(adapted(VIT, adapt), DIGIT, 10)
        assert split(network, images) is not None
        assert (split(network, images, bf16) is not None) == (adapt == "head")


def test_networks_that_cannot_be_split_are_evaluated_as_a_whole(tmp_path: Path) -> None:
    images = torch.randn(20, *DIGIT)
    assert split(PartlyTrained(TwoLinear(), adapted(MLP, "head"), HEAD), images) is not None
    for other in (NoisyFeatures, ChangingFeatures, TwoRowsPerSample):
        assert split(PartlyTrained(other(), adapted(MLP, "head"), HEAD), images) is None
    assert split(PartlyTrained(GatedHead(), adapted(MLP, "head"), HEAD | {"gate"}), images) is None

    targets = ["layer.1.attention.self.query", "layer.1.output.dense"]
    model = tiny_config("bert", tmp_path, layers=2)
    network = build(adapted(model, Adapter(lora=Lora(rank=2, targets=targets))), (6,), 3)
    tokens = torch.randint(40, (20, 6)).float()
    for end in (20, 15):
        tokens[end:, 4:] = -1  # padding
        part, inputs = split(network, tokens) or (network, tokens)
        assert inputs.shape == (20, 6 * 16 + 6)
        for rows in (slice(4, 7), slice(13, 20)):
            torch.testing.assert_close(part(inputs[rows]), network(tokens[rows]))
    torch.testing.assert_close(network(tokens[4:7]), network(tokens)[4:7])


def test_a_causal_language_model_predicts_facts(tmp_path: Path) -> None:
    tiny_config("gpt2", tmp_path / "gpt2")
    spec = tmp_path / "facts.yaml"
    spec.write_text(
        f"""\
name: facts
fixed:
  data: {{source: key_value, vocabulary: 8, key_length: 3, value_length: 2, size: 100}}
  model: {{family: "hf:{tmp_path / "gpt2"}", task: causal_lm, adapt: {{lora: {{rank: 4}}}}}}
  training: {{optimizer: adamw, lr: 1e-2, steps: 400}}
"""
    )
    (point,) = load_points(spec)[1]
    samples = load_samples(point.data, point.seed)
    networks: list[nn.Module] = []
    outcome, subset, _ = run_training(
        point, samples, Probe(6, 0), Group(CPU), collect_models(networks)
    )
    assert outcome.verdict == "fit"
    tokens = torch.from_numpy(samples.inputs.rows[subset])
    with torch.no_grad():
        logits = networks[0](tokens)
        changed = tokens.clone()
        changed[:, 3:] = 0
        torch.testing.assert_close(networks[0](changed)[:, :, :4], logits[:, :, :4])
    assert (logits.argmax(dim=1)[:, 3:] == tokens[:, 3:]).all()
    with pytest.raises(PointError, match="64 different tokens are more than the 40 tokens"):
        build(point.model, (6,), 64)


def test_weights_of_a_probe_are_saved_and_loaded(tmp_path: Path, cli: Cli) -> None:
    weights, spec = tmp_path / "folder" / "mlp.safetensors", tmp_path / "mlp.yaml"
    text = SPEC.replace(", pretrained: PATH, adapt: head", "")
    spec.write_text(text)
    assert "verdict fit" in cli("probe", spec, "--n", "10", "--save", weights).stdout
    (point,) = load_points(spec, [f"model.pretrained={weights}"])[1]
    network = build(point.model, DIGIT, 10).eval()
    samples = load_samples(point.data, point.seed)
    seeds = ProbeSeeds.derive(point.seed, 10, 0, nested=False)
    subset = draw_subset(samples.pool, 10, seeds.subset)
    logits = network(torch.from_numpy(samples.select_inputs(subset)))
    assert logits.argmax(dim=1).tolist() == samples.labels[subset].tolist()


def test_labels_name_the_method(tmp_path: Path) -> None:
    spec = tmp_path / "methods.yaml"
    spec.write_text(
        "name: methods\nfixed:\n  model: {family: mlp, width: 4, depth: 1}\ngrid:\n"
        "  model.adapt: [full, head, {lora: {rank: 4}}, {peft: {method: loha}}]\n"
    )
    labels = [point.label for point in load_points(spec)[1]]
    assert labels == ["full", "head", "lora rank=4", "peft method=loha"]
