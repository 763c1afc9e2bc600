"""Token ids with padding, sequences with one label per token, and text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flexhpc
from flexhpc.config import load_points
from flexhpc.config.sections.data import IGNORED, PADDING, KeyValue, RandomTokens
from flexhpc.config.sections.files import Arrays, Text
from flexhpc.config.sections.model import HuggingFaceModel
from flexhpc.data import Samples, load_samples
from flexhpc.errors import InputError, PointError
from flexhpc.models import build
from flexhpc.training.losses import cross_entropy
from tests.conftest import Cli

IDS = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0], [3, 2, 1, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
PADDED = np.where(MASK, IDS, PADDING)


def load(folder: Path, **arrays: Any) -> Samples:
    path = folder / f"{len([*folder.iterdir()])}.npz"
    np.savez(path, **arrays)
    return load_samples(Arrays(source="arrays", path=str(path)), 0)


def test_token_ids_are_padded_and_not_standardised(tmp_path: Path) -> None:
    samples = load(tmp_path, input_ids=IDS, attention_mask=MASK, labels=[0, 1, 0, 1])
    np.testing.assert_array_equal(samples.select_inputs(np.arange(4)), PADDED)
    assert samples.source.token_labels is None
    assert samples.classes == 2


def test_sequences_have_one_label_per_token(tmp_path: Path) -> None:
    labels = np.where(MASK, IDS, IGNORED)
    labels[0, :2] = IGNORED
    samples = load(tmp_path, input_ids=IDS, attention_mask=MASK, labels=labels)
    np.testing.assert_array_equal(samples.source.token_labels, labels)
    np.testing.assert_array_equal(samples.select_inputs(np.arange(4)), np.where(MASK, IDS, 0))
    assert samples.classes == 8
    fingerprint = samples.fingerprint
    labels[0, 1] = 2
    other = load(tmp_path, input_ids=IDS, attention_mask=MASK, labels=labels)
    assert other.fingerprint != fingerprint


def test_the_fingerprints_of_token_ids_and_features_differ(tmp_path: Path) -> None:
    tokens = load(tmp_path, input_ids=IDS, labels=[0, 1, 0, 1])
    features = load(tmp_path, x=IDS, labels=[0, 1, 0, 1])
    assert tokens.fingerprint != features.fingerprint
    with pytest.raises(PointError, match="attention_mask has no effect without input_ids"):
        load(tmp_path, x=IDS, attention_mask=MASK, labels=[0, 1, 0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_mask": MASK[:, :3]}, "attention_mask must contain integers of shape"),
        ({"attention_mask": MASK * 0}, "sample 0 has no tokens"),
        ({"token_type_ids": MASK}, "token_type_ids other than 0 are not supported"),
        ({"labels": IDS[:, :2]}, "labels of tokens must be integers of shape (4, 4)"),
        ({"labels": IDS * 0 + IGNORED}, "sample 0 has no label"),
        ({"labels": IDS - 5}, "sample 0 has a label below 0"),
        ({"labels": IDS}, "sample 1 has a label where it is padded"),
        ({"input_ids": IDS - 1}, "input_ids must not be negative where attention_mask is 1"),
        ({"x_test": IDS, "y_test": [0, 1, 0, 1]}, "test arrays are not supported with input_ids"),
        (
            {"labels": IDS * 0 + [*[IGNORED] * 3, 1], "attention_mask": MASK[:, ::-1]},
            "sample 1 is padded before its last token",
        ),
    ],
)
def test_invalid_tokens_give_one_message(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arrays = {"input_ids": IDS, "attention_mask": MASK, "labels": [0, 1, 0, 1], **changes}
    with pytest.raises(PointError, match=re.escape(message)):
        load(tmp_path, **arrays)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": IDS, "mask": MASK}, "unknown key mask"),
        ({"attention_mask": MASK}, "missing key input_ids"),
        ({"pixel_values": IDS, "input_ids": IDS}, "unknown key pixel_values"),
    ],
)
def test_mappings_have_known_keys(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        flexhpc.measure("mlp", (inputs, [0, 1, 0, 1]))


def write_tokenizer(path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["[UNK]", "[CLS]", *"abcdef"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 1)]
    )
    tokenizer.enable_padding(length=16)  # ignored
    tokenizer.save(str(path / "tokenizer.json"))


def text_section(folder: Path, table: str, **keys: Any) -> Text:
    write_tokenizer(folder)
    path = folder / f"{len([*folder.iterdir()])}.csv"
    path.write_text(table)
    location = {"path": str(path), "tokenizer": str(folder)}
    return Text(source="text", **location, **keys)


def test_text_is_truncated_and_padded(tmp_path: Path) -> None:
    table = "text,label\na b c d,x\nb z,y\n"
    short = text_section(tmp_path, table, target="label", length=1)
    with pytest.raises(PointError, match=r"length: must be above 1, the number of special tokens"):
        load_samples(short, 0)
    data = text_section(tmp_path, table, target="label", length=4)
    samples = load_samples(data, 0)
    expected = [[1, 2, 3, 4], [1, 3, 0, PADDING]]
    assert samples.select_inputs(np.arange(2)).tolist() == expected
    assert samples.labels.tolist() == [0, 1]


def test_only_answers_have_labels(tmp_path: Path) -> None:
    table = "text,reply\na b,c d\nb,e\n"
    samples = load_samples(text_section(tmp_path, table, answer="reply"), 0)
    assert samples.select_inputs(np.arange(2)).tolist() == [[1, 2, 3, 4, 5], [1, 3, 6, 0, 0]]
    expected = [[IGNORED] * 3 + [4, 5], [IGNORED] * 2 + [6] + [IGNORED] * 2]
    assert samples.source.token_labels.tolist() == expected
    short = text_section(tmp_path, table, answer="reply", length=4)
    with pytest.raises(PointError, match=r"row 1 has 5 tokens; increase data\.length \(4\)"):
        load_samples(short, 0)


def test_different_answers_to_one_prompt_are_conflicts(tmp_path: Path) -> None:
    rows = ["a b,c", "a b,d e", "a b,c f", "a,b c", "a,b d", "b,c", "b,c d", "a b c,d"]
    data = text_section(tmp_path, "\n".join(["text,reply", *rows]), answer="reply")
    samples = load_samples(data, 0)
    assert samples.conflict_groups == [((1, 1), 1), ((2, 1), 1)]
    assert samples.unfittable == 2
    facts = KeyValue(source="key_value", vocabulary=2, key_length=3, value_length=1, size=4)
    assert load_samples(facts, 0).conflicts == 0
    tokens = RandomTokens(source="random_tokens", vocabulary=2, length=9, prompt=2, size=32)
    assert load_samples(tokens, 0).conflicts == 4


def test_text_without_classes_has_random_labels(tmp_path: Path) -> None:
    data = text_section(tmp_path, "text\na b\nc\nd\ne\n", labels="random", classes=3)
    samples = load_samples(data, 0)
    assert samples.classes == 3
    assert len({*samples.labels.tolist()}) > 1


def test_cells_of_a_text_table_are_read_as_they_are(tmp_path: Path) -> None:
    table = 'text,reply\n"NA", 1\n7,01\n'
    data = text_section(tmp_path, table, answer="reply")
    assert load_samples(data, 0).source.token_labels.tolist() == [[IGNORED] * 2 + [0]] * 2
    for empty in ("text,reply\n", "text,reply\na,\n"):
        with pytest.raises(PointError, match=r"has no rows|sample 0 has no label"):
            load_samples(text_section(tmp_path, empty, answer="reply"), 0)


def test_attention_masks_and_losses_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = transformers.BertConfig(vocab_size=8, intermediate_size=32, num_labels=2, **sizes)
    bert.save_pretrained(tmp_path / "bert")
    gpt2 = transformers.GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2, bos_token_id=0)
    gpt2.save_pretrained(tmp_path / "gpt2")
    ids, mask = torch.from_numpy(IDS), torch.from_numpy(MASK)
    padded = torch.from_numpy(PADDED).float()
    for kind in ("bert", "gpt2"):
        model = HuggingFaceModel(family=f"hf:{tmp_path / kind}")
        if kind == "gpt2":
            with pytest.raises(PointError, match="has no token for padding"):
                build(model, (4,), 2)(padded)
            with pytest.raises(PointError, match="a sequence ends in the token for padding"):
                build(model.model_copy(update={"kwargs": {"pad_token_id": 6}}), (4,), 2)(padded)
            model = model.model_copy(update={"kwargs": {"pad_token_id": 8}})
        network = build(model, (4,), 2).eval()
        full = network(ids[:1].float())
        torch.testing.assert_close(network(padded)[:1], full)
        for row, length in enumerate(MASK.sum(axis=1)):  # padding has no effect on the logits
            torch.testing.assert_close(
                network(padded)[row : row + 1], network(padded[row : row + 1, :length])
            )
    network = build(HuggingFaceModel(family=f"hf:{tmp_path / 'gpt2'}", task="causal_lm"), (4,), 8)
    labels = ids.where(mask.bool(), IGNORED)
    labels[0, 0] = IGNORED
    loss = cross_entropy(network.eval()(ids.float()), labels, reduction="mean")
    network._forward_hooks.clear()
    network._forward_pre_hooks.clear()
    start = torch.zeros(4, 1, dtype=torch.int64)
    with_start = torch.cat([start, ids], dim=1), torch.cat([start + IGNORED, labels], dim=1)
    rows = zip(*with_start, strict=True)
    losses = [network(input_ids=i[None], labels=y[None]).loss for i, y in rows]
    expected = torch.stack(losses).mean()  # transformers averages over all tokens of a batch
    torch.testing.assert_close(loss, expected)


SPEC = """\
name: text
fixed:
  data: {{source: text, path: text.csv, tokenizer: ., {data}}}
  model: {{{model}}}
  training: {{optimizer: adam, lr: 1e-2, steps: 60}}
  search: {{policy: bisection, start: 4, tolerance: 0.5}}
"""


def test_a_sweep_on_answers(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path)
    rng = np.random.default_rng(0)
    words = np.array([*"abcdef"])[rng.integers(0, 6, (40, 5))]
    rows = [f"{' '.join(row[:3])},{' '.join(row[3:])}" for row in words]
    Path("text.csv").write_text("\n".join(["text,reply", *rows]))
    gpt = "family: gpt, width: 8, depth: 1"
    Path("text.yaml").write_text(SPEC.format(data="answer: reply", model=gpt))
    cli("sweep", "text.yaml")
    (result,) = json.loads(cli("results", "runs/text", "--format", "json").stdout)
    assert result["status"] == "done"
    assert result["emc"] >= 1
    wrong = {
        ("answer: reply", "family: mlp, width: 8"): "text contains sequences of tokens",
        ("answer: reply, labels: random", gpt): "labels: has no effect with answer",
        ("target: reply", gpt): "gpt predicts tokens, but text has one label per sample",
        ("column: text", gpt): "give exactly one of target, answer and labels: random",
        ("labels: random", gpt): "classes: is required without target",
    }
    for (data, model), message in wrong.items():
        Path("text.yaml").write_text(SPEC.format(data=data, model=model))
        with pytest.raises(InputError, match=message):
            load_points(Path("text.yaml"), [])


def test_measure_a_mapping_of_a_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=8, intermediate_size=8, pad_token_id=0, **sizes)
    config.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.arange(6) < rng.integers(2, 7, (30, 1))
    inputs = {"input_ids": torch.from_numpy(rng.integers(0, 8, (30, 6))), "attention_mask": mask}
    options: dict[str, Any] = {
        "training": {"optimizer": "adam", "lr": 1e-2, "steps": 60},
        "search": {"policy": "bisection", "start": 4, "tolerance": 0.5},
    }
    found = flexhpc.measure({"family": f"hf:{tmp_path}"}, (inputs, [0, 1] * 15), **options)
    assert found.emc >= 1

    def bert() -> Any:
        """Return a network that shares its configuration with the other networks."""
        return transformers.AutoModelForSequenceClassification.from_config(config)

    custom = flexhpc.measure(bert, (inputs, [0, 1] * 15), version="1", **options)
    assert (custom.probes.n.tolist(), custom.probes.loss.tolist()) == (
        found.probes.n.tolist(), found.probes.loss.tolist(),
    )  # fmt: skip
    labels = np.where(mask, np.asarray(inputs["input_ids"]), IGNORED)
    model = {"family": f"hf:{tmp_path}", "task": "causal_lm"}
    assert flexhpc.measure(model, (inputs, labels), **options).emc >= 1
    with pytest.raises(PointError, match="predicts one class per sample"):
        flexhpc.measure({"family": f"hf:{tmp_path}"}, (inputs, labels), **options)
    with pytest.raises(PointError, match="predicts tokens, but each sample has one label"):
        flexhpc.measure(model, (inputs, [0, 1] * 15), **options)
    with pytest.raises(PointError, match=r"data\.labels: has no effect with one label per token"):
        flexhpc.measure(model, (inputs, labels), labels="random", **options)
