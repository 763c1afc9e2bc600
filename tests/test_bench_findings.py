"""The numbers in docs/findings.md equal those of the stored records."""

from __future__ import annotations

import copy
import json
import lzma
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, pearsonr, spearmanr
from torch import nn
from torch.nn import functional

from bench.findings.decisions import cost_of_fewest_seeds
from bench.findings.page import (
    RECORDS,
    models_needed,
    prediction_table,
    write_figures,
    write_pages,
)
from bench.findings.records import load_records, save_records
from bench.findings.replication import agreement
from bench.findings.rivals import predictors
from flexhpc.analysis.comparison import compare_as_specified, compare_at_budgets
from flexhpc.analysis.effect import Effect
from flexhpc.analysis.generalization import Correlation, Pair, correlations, label_pairs
from flexhpc.analysis.reasons import best_value_at_edge
from flexhpc.analysis.results import results_row
from flexhpc.analysis.scaling_law import power_laws
from flexhpc.analysis.summary import summarize
from flexhpc.api.runs import load
from flexhpc.store.status import PointStatus
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "findings.md"
DETAILS = PAGE.with_name("findings_details.md")
TEXT = PAGE.read_text() + DETAILS.read_text()
PROSE = " ".join(re.sub(r"<!-- (?:finding_|claim ).*?<!-- end -->", "", TEXT, flags=re.S).split())


def load_finding(name: str, folder: Path) -> tuple[list[PointStatus], Sequence[Effect]]:
    """Return the points of a stored run, and its comparisons, each of 15 pairs of points."""
    statuses, spec = load_records(RECORDS / f"finding_{name}.json.xz", folder)
    effects = compare_as_specified(statuses, [spec]).effects
    assert {effect.pairs for effect in effects} == {15}
    return statuses, effects


def failures(statuses: Sequence[PointStatus]) -> Counter[str]:
    """Count the verdicts of the training runs that did not fit, at the best value of tuned keys."""
    return Counter(
        p.verdict
        for s in statuses for p in s.record.probes
        if p.arm == s.estimate.arm and p.verdict != "fit"
    )  # fmt: skip


def emc_per_parameter(status: PointStatus) -> float:
    return status.estimate.emc / status.record.header.params


def test_generated_parts_of_the_pages_are_up_to_date(tmp_path: Path) -> None:
    generated = re.compile(r"(<!-- (?:finding_|claim )[\w ]+ -->\n).*?(<!-- end -->)", re.DOTALL)
    for page in (PAGE, DETAILS):
        (tmp_path / page.name).write_text(generated.sub(r"\1old\n\2", page.read_text()))
    write_pages(tmp_path, figures=False)
    for page in (PAGE, DETAILS):
        assert (tmp_path / page.name).read_text() == page.read_text()
    for path in RECORDS.glob("*.json.xz"):
        assert f"<!-- {path.name.split('.')[0]} -->" in TEXT
    assert sum(path.stat().st_size for path in RECORDS.iterdir()) < 1_000_000


def test_figures_are_on_the_page(tmp_path: Path) -> None:
    statuses, effects = load_finding("activations", tmp_path)
    path, page = tmp_path / "findings" / "x", "x_emc.png, x_ratios.png, x_generalization.png"
    write_figures(statuses, effects, {1.0: effects, 0.5: effects}, path, page)
    assert {path.name for path in path.parent.iterdir()} == {"x_emc.png", "x_ratios.png"}
    linked = set(re.findall(r"\]\(findings/(\w+\.png)\)", TEXT))
    assert linked == {path.name for path in (PAGE.parent / "findings").iterdir()}
    kinds = ("emc", "ratios", "ratios_over_budget", "generalization")
    for path in RECORDS.glob("*.json.xz"):
        assert not linked.isdisjoint(f"{path.name.split('.')[0]}_{kind}.png" for kind in kinds)


def claim_table(number: int) -> list[list[str]]:
    """Return the rows of the table of a claim, without the head."""
    table = PAGE.read_text().split(f"<!-- claim {number} -->")[1].split("<!-- end -->")[0]
    return [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]


def test_sentences_about_claims_equal_their_tables() -> None:
    per_parameter = [row[5].split(" to ") for row in claim_table(1) if row[2] == "random"]
    ends = [end for row in per_parameter for end in row]
    assert f"{min(ends)} to {max(ends)} samples with random labels per parameter" in PROSE
    saturated = [row[6] for row in claim_table(1) if row[6][0].isdigit()]
    assert sum(int(text.split()[0]) for text in saturated) == 1, "one EMC is saturated"
    *_, sgd = claim_table(3)
    assert f"trains to convergence (EMC ratio {sgd[-1].strip('*')})" in PROSE
    small, large = (
        row[5] for budget in ("2,000 updates", "64,000 updates")
        for row in claim_table(1) if row[0] == "digits" and row[4] == budget
    )  # fmt: skip
    assert f"fit {small} at 2,000 updates and {large} at 64,000 updates" in PROSE
    first, *_, all_depths = claim_table(5)
    ratios = [float(cell.strip("*").split()[0]) for cell in first[5:]]
    assert f"all fit {min(ratios):.1f} to {max(ratios):.1f} times as many" in PROSE
    decided = [cell.startswith("**") for cell in (*first[5:], *all_depths[5:])]
    assert decided == [True] * 4 + [True, False, True, True], "leaky ReLU: only at 2,000 updates"


def test_order_of_families_depends_on_the_size() -> None:
    ratios = {(data, labels, size.split(" to ")[-1]): cells
              for data, labels, size, _, _, *cells in claim_table(2)}  # fmt: skip
    middle = [
        ratio for key, cells in ratios.items() for ratio in cells
        if key[1] == "random" and key[2] in ("2,986", "5,356", "2,130", "4,378", "3,986")
    ]  # fmt: skip
    assert len(middle) == 10
    assert not any(ratio.startswith("**") for ratio in middle), "no difference is decided"
    fashion, cifar = "Fashion-MNIST", "CIFAR-10"
    decided = {key: [cell.strip("*").split()[0] for cell in cells]
               for key, cells in ratios.items() if cells[0].startswith("**")}  # fmt: skip
    cnn_1000, cnn_1700 = (
        decided[fashion, "random", "1,116"][0],
        decided[fashion, "random", "1,756"][0],
    )
    assert f"fits {float(cnn_1000):.1f} times as many samples as an MLP at 1,000" in PROSE
    assert f"1,700 parameters {float(cnn_1700):.1f} times" in PROSE
    (cnn, vit), (large_cnn, large_vit) = (
        decided[cifar, "random", size] for size in ("11,146", "32,266")
    )
    assert f"fits {cnn} and {large_cnn} times as many, and a ViT {vit} and {large_vit}" in PROSE
    assert (
        f"fits {decided[cifar, 'original', '32,266'][0]} times as many samples as an MLP" in PROSE
    )


def test_activations(tmp_path: Path) -> None:
    statuses, effects = load_finding("activations", tmp_path)
    by_value = {effect.value: effect for effect in effects}
    assert by_value["gelu"].verdict == by_value["tanh"].verdict == "larger"
    assert 0.94 < by_value["leaky_relu"].low < by_value["leaky_relu"].high < 1.06
    assert by_value["identity"].verdict == "smaller"
    ratios = [
        emc_per_parameter(s) for s in statuses if s.point.swept["model.activation"] != "identity"
    ]
    assert f"{min(ratios):.2f} to {max(ratios):.2f} samples per parameter" in PROSE


def test_activations_at_three_depths(tmp_path: Path) -> None:
    path = RECORDS / "finding_activations_depth.json.xz"
    statuses, spec = load_records(path, tmp_path)
    comparisons = compare_as_specified(statuses, [spec])
    (decision,) = comparisons.decisions
    assert decision.ended_by == "max_seeds"
    gelu = [effect for effect in comparisons.effects if effect.value == "gelu"]
    assert [effect.verdict for effect in gelu] == [*["not decided"] * 3, "larger"]
    first, second, third = (effect.ratio for effect in gelu[:3])
    assert f"{first:.2f}, {second:.2f} and {third:.2f} at depths 1, 2 and 4" in PROSE
    linear = [s.estimate.emc for s in statuses if s.point.swept["model.activation"] == "identity"]
    assert all(190 <= emc <= 205 for emc in linear), "about 195 at every depth"
    assert "yes" not in {s.estimate.saturated for s in statuses}
    ratios = [
        emc_per_parameter(s) for s in statuses if s.point.swept["model.activation"] != "identity"
    ]
    assert f"fit {min(ratios):.2f} to {max(ratios):.2f} samples per parameter" in PROSE
    shallow = [s for s in statuses if s.point.swept["model.depth"] == 1]
    edges = [s for s in statuses if best_value_at_edge(s)]
    assert f"of {len(edges)} of the {len(shallow)} points with a depth of 1" in PROSE
    assert {s.point.swept["model.depth"] for s in edges} == {1}


def test_optimizers_at_equal_budgets(tmp_path: Path) -> None:
    statuses, effects = load_finding("optimizers", tmp_path)
    verdicts = {next(k for k, v in e.within.items() if v): e.verdict for e in effects}
    assert verdicts == {
        "training.steps": "smaller", "training.epochs": "larger",
        "training.gradient_evaluations": "larger",
    }  # fmt: skip
    steps, epochs, gradients = effects
    assert f"at 8 units ({steps.max_ratio:.2f})" in PROSE
    assert f"at 16 ({steps.min_ratio:.2f})" in PROSE
    assert f"(up to {epochs.max_ratio:.2f}; {epochs.min_ratio:.2f} at 8)" in PROSE
    assert f"({gradients.min_ratio:.2f} to {gradients.max_ratio:.2f})" in PROSE
    failed = failures(statuses)
    assert f"Of the {failed.total()} training runs that failed" in PROSE
    assert f"best learning rate, {failed['unconverged']} were still improving" in PROSE
    assert f"{failed['unstable']} had become unstable" in PROSE
    assert f"only {failed['not_fit']} had converged" in PROSE
    edges = [s for s in statuses if best_value_at_edge(s)]
    assert f"{len(edges)} of the 15 points of SGD with a budget of 200,000 per-sample" in PROSE
    for status in edges:
        assert status.point.swept["training.optimizer"] == "sgd"
        assert status.point.swept["training.gradient_evaluations"]
        rates = [arm.values["training.lr"] for arm in status.point.arms]
        assert rates[status.estimate.arm] == min(rates)


def test_optimizers_trained_to_convergence(tmp_path: Path) -> None:
    statuses, (effect,) = load_finding("convergence", tmp_path)
    assert effect.verdict == "smaller"
    assert effect.max_ratio < 1
    assert effect.size_ratios == pytest.approx([0.93, 0.78, 0.76], abs=0.03)
    assert f"trains to convergence (EMC ratio {effect.ratio_text})" in PROSE
    emc = {
        (s.point.swept["seed"], s.point.swept["model.width"], s.point.swept["training.optimizer"]):
        s.estimate.emc
        for s in statuses
    }  # fmt: skip
    assert all(emc[seed, width, "sgd"] < emc[seed, width, "gd"] for seed, width, _ in emc)
    gd, sgd = (
        math.exp(statistics.fmean(math.log(emc[seed, 12, kind]) for seed in range(5)))
        for kind in ("gd", "sgd")
    )
    assert f"{gd:.0f} instead of 371, SGD {sgd:.0f} instead of 307" in PROSE
    ratios = [emc_per_parameter(s) for s in statuses]
    assert f"is {max(ratios):.2f} samples per parameter" in PROSE
    assert f"fit {min(ratios):.2f} to {max(ratios):.2f} samples per parameter (finding 3" in PROSE
    lowest = []
    for s in statuses:
        rates = [arm.values["training.lr"] for arm in s.point.arms]
        if rates[s.estimate.arm] == min(rates):
            lowest.append(s.point.swept["training.optimizer"])
    parts = f"{lowest.count('gd')} of GD, {lowest.count('sgd')} of SGD"
    assert f"the best in {len(lowest)} of {len(statuses)} points ({parts})" in PROSE
    failed = failures(statuses)
    assert (
        f"Of the {failed.total()} training runs that failed at the best learning rate, "
        f"{failed['not_fit']} had converged without fitting all samples and "
        f"{failed['unstable']} had become" in PROSE
    )
    longest = max(p.epochs for s in statuses for p in s.record.probes)
    assert f"{longest:,} epochs" in PROSE
    minutes = [
        sum(p.seconds for p in s.record.probes) / 60
        for s in statuses if s.point.swept["training.optimizer"] == "gd"
    ]  # fmt: skip
    assert f"{min(minutes):.0f} to {max(minutes):.0f} minutes" in PROSE


def test_optimizers_until_saturation(tmp_path: Path) -> None:
    statuses, spec = load_records(RECORDS / "finding_optimizers_saturation.json.xz", tmp_path)
    comparisons = compare_as_specified(statuses, [spec])
    assert {effect.verdict for effect in comparisons.effects} == {"not decided"}
    by_budget = compare_at_budgets(statuses, comparisons.requests)
    full, half, quarter = (by_budget[factor][-1].ratio_text for factor in (1.0, 0.5, 0.25))
    assert f"SGD is {full} times" in PROSE
    assert f"the ratios are {quarter} and {half}" in PROSE
    assert not any(best_value_at_edge(status) for status in statuses)
    ratios = [emc_per_parameter(status) for status in statuses]
    assert f"fit {min(ratios):.2f} to {max(ratios):.2f} samples per parameter" in PROSE


@pytest.mark.parametrize(
    ("name", "test", "value"),
    [("Pearson", pearsonr, 0.4), ("Spearman", spearmanr, 0.385), ("Kendall", kendalltau, 0.262)],
)
def test_number_of_models_for_a_correlation(name: str, test: Any, value: float) -> None:
    """All three values are those of a bivariate normal distribution with correlation 0.4."""
    correlation = Correlation(
        name=name, value=value, lower=0, upper=1, jackknife_min=None, jackknife_max=None
    )
    count = models_needed(correlation)
    x, noise = np.random.default_rng(0).normal(size=(2, 2000, count))
    y = 0.4 * x + math.sqrt(1 - 0.4**2) * noise
    detected = [test(*samples).pvalue < 0.05 for samples in zip(x, y, strict=True)]
    assert np.mean(detected) == pytest.approx(0.9, abs=0.03)


def test_test_accuracy_of_omitted_families_is_predicted() -> None:
    """Test accuracy is a function of the EMC with random labels alone."""
    models = [
        Pair(
            name=f"{family} {params}", family=family, params=params, emc_original=original,
            emc_random=random, test_accuracy=0.1 * math.log(random), gap=0,
        )
        for family, params, original, random in (
            ("mlp", 10, 50, 20), ("mlp", 20, 40, 35), ("cnn", 30, 90, 60), ("cnn", 10, 80, 70),
            ("vit", 20, 70, 10), ("vit", 30, 60, 50),
        )
    ]  # fmt: skip
    rivals = {model.name: {"log(margin)": -math.log(model.emc_random)} for model in models}
    _, _, *rows = prediction_table(models, rivals)
    perfect = {row.split(" | ")[0][2:]: row for row in rows if row.endswith(" | 1.00 |")}
    assert list(perfect) == ["log(EMC random)", "log(margin)"]
    assert "| 1.00 [1.00, 1.00] |" in perfect["log(EMC random)"]
    assert "| -1.00 [-1.00, -1.00] |" in perfect["log(margin)"]
    assert len(prediction_table(models, {})) == 2 + 4
    assert prediction_table(models[:4], {}) == [], "two families"


def test_margins_norms_and_sharpness_of_a_linear_network() -> None:
    torch.manual_seed(0)
    network, inputs = nn.Linear(3, 2).double(), torch.randn(6, 3).double()
    labels = network(inputs).argmax(dim=1)
    initial = copy.deepcopy(network)
    with torch.no_grad():
        network.weight *= 5
        network.bias *= 5
    values = predictors(network, initial, inputs, labels)
    weights, logits = network.weight.detach(), network(inputs).detach()
    margins = (logits[:, 0] - logits[:, 1]).abs()
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in network.parameters()))

    def loss(vector: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(inputs @ vector[:6].view(2, 3).T + vector[6:], labels)

    vector = torch.cat([p.detach().flatten() for p in network.parameters()])
    hessian = torch.autograd.functional.hessian(loss, vector)
    expected = {
        "log(median margin)": float(margins.median()),
        "log(median distance from the decision boundary)": float(
            (margins / (weights[0] - weights[1]).norm()).median()
        ),
        "log(norm of the parameters)": norm,
        "log(distance from the initial parameters)": 0.8 * norm,
        "log(sharpness)": float(torch.linalg.eigvalsh(hessian)[-1]),
    }
    assert values == pytest.approx({k: math.log(v) for k, v in expected.items()}, abs=1e-3)


def test_cost_of_the_fewest_seeds(tmp_path: Path) -> None:
    """With three of five seeds, less than half of the subsets have the verdict of all seeds."""
    statuses, spec = load_records(RECORDS / "finding_convergence.json.xz", tmp_path)
    costs = [cost_of_fewest_seeds(statuses, spec, same) for same in (0.0, 0.5, 1.0)]
    assert costs == pytest.approx([0.4, 0.8, 0.8], abs=0.05)


def test_families_by_labels_and_size(tmp_path: Path) -> None:
    statuses, effects = load_finding("families", tmp_path)
    by_labels = {(e.within["data.labels"], e.value): e for e in effects}
    assert {key: effect.verdict for key, effect in by_labels.items()} == {
        ("random", "cnn"): "larger", ("random", "vit"): "larger",
        ("original", "cnn"): "larger", ("original", "vit"): "smaller",
    }  # fmt: skip
    for family in ("cnn", "vit"):
        assert by_labels["original", family].sizes_text in PROSE
        assert by_labels["random", family].min_ratio < 0.95
        assert by_labels["random", family].max_ratio > 1.5, "the order depends on the size"
    (random,) = (s for s in summarize(statuses, effects) if s.startswith("EMC (random) compared"))
    cnn = by_labels["random", "cnn"]
    sizes = f"{cnn.max_ratio:.2f} at the smallest size, {cnn.min_ratio:.2f} at the largest"
    assert f"cnn larger at this budget (mean ratio {cnn.ratio_text}), {sizes}" in random

    assert {s.estimate.censored for s in statuses} == {"none"}
    for labels in ("random", "original"):
        ratios = [emc_per_parameter(s) for s in statuses if s.point.swept["data.labels"] == labels]
        assert f"{min(ratios):.2f} to {max(ratios):.2f}" in PROSE

    models = label_pairs(statuses)
    assert len(models) == 9
    perceptrons = sorted((m for m in models if m.family == "mlp"), key=lambda m: m.params)
    assert [m.test_accuracy for m in perceptrons] == sorted(m.test_accuracy for m in perceptrons)
    ratios = [math.exp(m.log_ratio) for m in perceptrons]
    assert ratios == sorted(ratios, reverse=True)
    assert f"from {ratios[0]:.2f} to {ratios[-1]:.2f}" in PROSE
    pearson, spearman = correlations(models, "test_accuracy")[:2]
    assert f"{pearson.value:.2f} [{pearson.lower:.2f}, {pearson.upper:.2f}] (Pearson)" in PROSE
    assert spearman.lower < 0 < spearman.upper

    edges = Counter(
        (s.point.swept["data.labels"], s.point.swept["model.family"])
        for s in statuses if best_value_at_edge(s)
    )  # fmt: skip
    assert edges == {("original", "cnn"): 15, ("random", "cnn"): 4, ("original", "vit"): 2}


@pytest.mark.parametrize(("name", "count"), [("", 32), ("_600", 31)])
def test_generalization_of_34_models(name: str, count: int, tmp_path: Path) -> None:
    statuses, _ = load_records(RECORDS / f"finding_generalization{name}.json.xz", tmp_path)
    models = label_pairs(statuses)
    assert (len(statuses), len(models)) == (68, count)
    pearson, spearman, _, partial = correlations(models, "test_accuracy")
    for result in (pearson, spearman, partial):
        assert f"{result.value:.2f} [{result.lower:.2f}, {result.upper:.2f}]" in PROSE
    assert re.search(rf"would need .*?{models_needed(pearson)}\b.*? independent models", PROSE)
    edges = [s.point.swept["model.family"] for s in statuses if best_value_at_edge(s)]
    assert (len(edges), edges.count("cnn")) == (18, 15)
    if not name:
        accuracies = [model.test_accuracy for model in models]
        assert f"{min(accuracies):.2f} to {max(accuracies):.2f}, differ little" in PROSE


def test_families_at_three_sizes(tmp_path: Path) -> None:
    statuses, spec = load_records(RECORDS / "finding_families_size.json.xz", tmp_path)
    effects = compare_as_specified(statuses, [spec]).effects
    by_size = {(e.within.get("model.match_params"), e.value): e for e in effects}
    for family, name in (("cnn", "the CNN fits"), ("vit", "the ViT")):
        smallest, *others = (by_size[size, family] for size in ("1000", "2000", "4000", None))
        assert smallest.verdict == "larger"
        assert {effect.verdict for effect in others} == {"not decided"}
        assert f"{name} {smallest.ratio_text} times" in PROSE
    for size in ("2000", "4000"):
        cnn, vit = (by_size[size, family].ratio for family in ("cnn", "vit"))
        assert f"{cnn:.2f} and {vit:.2f}" in PROSE
    ratios = [emc_per_parameter(s) for s in statuses]
    assert f"The EMCs are {min(ratios):.2f} to {max(ratios):.2f} samples per parameter" in PROSE
    assert sum(s.estimate.saturated == "no" for s in statuses) == len(statuses) - 1 == 8


def test_families_on_cifar(tmp_path: Path) -> None:
    statuses, spec = load_records(RECORDS / "finding_families_cifar.json.xz", tmp_path)
    effects = compare_as_specified(statuses, [spec]).effects
    ratios = {
        (e.within["data.labels"], e.within.get("model.match_params"), e.value): e for e in effects
    }
    undecided = {key for key, effect in ratios.items() if effect.verdict == "not decided"}
    assert undecided == {
        ("original", "11000", "cnn"),
        *((labels, "4000", kind) for labels in ("random", "original") for kind in ("cnn", "vit")),
    }
    assert {ratios[key].verdict for key in set(ratios) - undecided} == {"smaller"}
    assert f"original labels ({ratios['original', '11000', 'cnn'].ratio:.2f})" in PROSE
    cnn, vit = (ratios["random", "32000", family].ratio_text for family in ("cnn", "vit"))
    assert f"the CNN fits {cnn} times and the ViT {vit} times" in PROSE
    smallest = [effect.ratio for (_, size, _), effect in ratios.items() if size == "4000"]
    assert f"of {min(smallest):.2f} to {max(smallest):.2f})" in PROSE
    others = [
        effect for (labels, size, _), effect in ratios.items()
        if size == "11000" or (labels, size) == ("original", "32000")
    ]  # fmt: skip
    assert all(effect.high < 1 for effect in others)
    values = [effect.ratio for effect in others]
    assert f"the ratios are {min(values):.2f} to {max(values):.2f}" in PROSE
    for labels in ("random", "original"):
        values = [emc_per_parameter(s) for s in statuses if s.point.swept["data.labels"] == labels]
        assert f"{min(values):.2f} to {max(values):.2f}" in PROSE
    assert "yes" not in {s.estimate.saturated for s in statuses}
    edges = [s.estimate.arm for s in statuses if best_value_at_edge(s)]
    assert f"the best at {edges.count(0)} of {len(statuses)} points" in PROSE
    laws = power_laws(statuses, ["data.labels", "model.family"])
    slopes = {tuple(law.within.values()): law.slope_text for law in laws}
    random, original = slopes["random", "mlp"], slopes["original", "mlp"]
    assert f"grows with exponent {random} in the number of parameters with random" in PROSE
    assert f"labels and {original} with original labels" in PROSE
    exponents = sorted(text.split()[0] for text in slopes.values())
    assert f"(exponents of {exponents[0]} to {exponents[-1]})" in PROSE


def test_stored_records_give_the_results_of_the_run(small_run: Path, tmp_path: Path) -> None:
    path = save_records(small_run, tmp_path)
    restored, spec = load_records(path, tmp_path)
    assert spec == (small_run / "sweep.yaml").read_text()
    for original, status in zip(load(small_run), restored, strict=True):
        original_row, row = (
            {k: v for k, v in results_row(s).items() if not k.startswith("touched_")}
            for s in (original.status, status)
        )
        assert row == original_row
        assert status.history == original.status.history
    assert all(line.endswith(": agrees") for line in agreement(small_run, path))
    stored = json.loads(lzma.decompress(path.read_bytes()))
    for point in stored["points"].values():
        point["estimate"]["emc"] *= 10
    path.write_bytes(lzma.compress(json.dumps(stored).encode()))
    assert all(line.endswith(": mean outside the interval") for line in agreement(small_run, path))
    with pytest.raises(FileNotFoundError):
        load_records(tmp_path / "none.json.xz", tmp_path)
