"""docs/findings.md says what the stored records say, and they say what a run folder does."""

from __future__ import annotations

import json
import lzma
import math
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.findings.page import RECORDS, write
from bench.findings.records import load_records, save_records
from bench.findings.replication import agreement
from flexhpc.analysis.answer import answer
from flexhpc.analysis.comparison import comparisons
from flexhpc.analysis.generalization import correlations, label_pairs
from flexhpc.analysis.reasons import at_edge
from flexhpc.analysis.results import row_of
from flexhpc.api.runs import load
from flexhpc.store.status import PointStatus
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "findings.md"


def failures(statuses: Sequence[PointStatus]) -> list[str]:
    """Verdicts of the training runs that did not fit, at the best value of what was tuned."""
    return [
        p.verdict
        for s in statuses for p in s.record.probes
        if p.arm == s.estimate.arm and p.verdict != "fit"
    ]  # fmt: skip


def test_the_page_is_that_of_the_records(tmp_path: Path) -> None:
    page = tmp_path / "findings.md"
    shutil.copy(PAGE, page)
    made = re.compile(r"(<!-- finding_\w+ -->\n).*?(<!-- end -->)", re.DOTALL)
    page.write_text(made.sub(r"\1gone\n\2", PAGE.read_text()))
    write(page)
    assert page.read_text() == PAGE.read_text()
    for path in RECORDS.glob("*.json.xz"):
        name = path.name.split(".")[0]
        assert f"<!-- {name} -->" in PAGE.read_text()
        for figure in (tmp_path / "findings").glob(f"{name}_*.png"):
            assert (PAGE.parent / "findings" / figure.name).stat().st_size > 10_000
    assert sum(path.stat().st_size for path in RECORDS.iterdir()) < 600_000


def test_every_word_of_the_page_has_its_verdict(tmp_path: Path) -> None:
    """What the prose says of activations is what the records decide."""
    statuses, spec = load_records(RECORDS / "finding_activations.json.xz", tmp_path)
    found = {effect.value: effect for effect in comparisons(statuses, [spec])}
    assert found["gelu"].verdict == found["tanh"].verdict == "larger"
    assert 0.94 < found["leaky_relu"].low < found["leaky_relu"].high < 1.06
    assert found["identity"].verdict == "smaller"
    assert {effect.pairs for effect in found.values()} == {15}
    verdicts = [p.verdict for s in statuses for p in s.record.probes if p.verdict != "fit"]
    unconverged = f"{verdicts.count('unconverged')} of the {len(verdicts)} training runs"
    assert unconverged in PAGE.read_text()
    ratios = [
        s.estimate.emc / s.record.header.params
        for s in statuses if s.point.swept["model.activation"] != "identity"
    ]  # fmt: skip
    assert f"{min(ratios):.2f} to {max(ratios):.2f} samples per parameter" in PAGE.read_text()


def test_optimizers_are_told_by_their_budgets(tmp_path: Path) -> None:
    statuses, spec = load_records(RECORDS / "finding_optimizers.json.xz", tmp_path)
    found = comparisons(statuses, [spec])
    verdicts = {next(k for k, v in e.within.items() if v): e for e in found}
    assert verdicts["training.steps"].verdict == "smaller"
    assert verdicts["training.epochs"].verdict == "larger"
    assert verdicts["training.gradient_evaluations"].verdict == "larger"
    assert {effect.pairs for effect in found} == {15}
    page = PAGE.read_text()
    steps, epochs, gradients = found
    assert f"at 8 units ({steps.most:.2f})" in page
    assert f"at 16 ({steps.least:.2f})" in page
    assert f"(up to {epochs.most:.2f}; {epochs.least:.2f} at 8)" in page
    assert f"({gradients.least:.2f} to {gradients.most:.2f})" in page
    failed = failures(statuses)
    said = " ".join(page.split())
    assert f"Of the {len(failed)} training runs that failed" in said
    assert f"best rate {failed.count('unconverged')} were still improving" in said
    assert f"{failed.count('unstable')} had become unstable" in said
    assert f"only {failed.count('not_fit')} had converged" in said
    edges = [s for s in statuses if at_edge(s)]
    assert f"{len(edges)} of 15 points of SGD at equal gradients" in said
    for one in edges:
        assert one.point.swept["training.optimizer"] == "sgd"
        assert one.point.swept["training.gradient_evaluations"]
        rates = [arm.values["training.lr"] for arm in one.point.arms]
        assert rates[one.estimate.arm] == min(rates), "the lowest that was tried"


def test_to_convergence_sgd_fits_fewer(tmp_path: Path) -> None:
    statuses, spec = load_records(RECORDS / "finding_convergence.json.xz", tmp_path)
    (effect,) = comparisons(statuses, [spec])
    assert effect.verdict == "smaller"
    assert (effect.pairs, effect.most < 1) == (15, True)
    assert effect.singles == pytest.approx([0.9, 0.75, 0.75], abs=0.03), "a tenth, a quarter"
    said = " ".join(PAGE.read_text().split())
    assert f"trains to convergence ({effect.ratio_text})" in said
    ends = {
        (s.point.swept["seed"], s.point.swept["model.width"], s.point.swept["training.optimizer"]):
        s.estimate.emc
        for s in statuses
    }  # fmt: skip
    pairs_of = [(ends[seed, width, "sgd"], ends[seed, width, "gd"]) for seed, width, _ in ends]
    assert all(sgd < gd for sgd, gd in pairs_of), "all 15 pairs"
    twelve = [
        math.exp(statistics.fmean(math.log(ends[seed, 12, kind]) for seed in range(5)))
        for kind in ("gd", "sgd")
    ]
    assert f"{twelve[0]:.0f} instead of 371, SGD {twelve[1]:.0f} instead of 307" in said
    per_parameter = [s.estimate.emc / s.record.header.params for s in statuses]
    assert f"is {max(per_parameter):.2f} samples per parameter" in said
    assert f"fit {min(per_parameter):.2f} to {max(per_parameter):.2f} (finding 3" in said
    lowest = [
        s for s in statuses
        if s.estimate.arm == min(range(len(s.point.arms)),
                                 key=lambda i, s=s: s.point.arms[i].values["training.lr"])
    ]  # fmt: skip
    of_gd = [s for s in lowest if s.point.swept["training.optimizer"] == "gd"]
    parts = f"{len(of_gd)} of GD, {len(lowest) - len(of_gd)} of SGD"
    assert f"the best in {len(lowest)} of {len(statuses)} points ({parts})" in said
    failed = failures(statuses)
    ended = f"{failed.count('not_fit')} had converged to a worse fit and {failed.count('unstable')}"
    of_failed = f"Of the {len(failed)} training runs that failed at the best rate"
    assert f"{of_failed} {ended} had become" in said
    longest = max(p.epochs for s in statuses for p in s.record.probes)
    assert f"{longest:,} epochs" in said
    minutes = [
        sum(p.seconds for p in s.record.probes) / 60
        for s in statuses if s.point.swept["training.optimizer"] == "gd"
    ]  # fmt: skip
    assert f"{min(minutes):.0f} to {max(minutes):.0f} minutes" in said


def test_families_are_told_by_labels_and_size(tmp_path: Path) -> None:
    statuses, spec = load_records(RECORDS / "finding_families.json.xz", tmp_path)
    found = {(e.within["data.labels"], e.value): e for e in comparisons(statuses, [spec])}
    verdicts = {key: effect.verdict for key, effect in found.items()}
    assert verdicts == {
        ("random", "cnn"): "larger", ("random", "vit"): "larger",
        ("original", "cnn"): "larger", ("original", "vit"): "smaller",
    }  # fmt: skip
    assert {effect.pairs for effect in found.values()} == {15}
    said = " ".join(PAGE.read_text().split())
    for family in ("cnn", "vit"):
        assert found["original", family].sizes_text in said
        assert found["random", family].least < 0.95
        assert found["random", family].most > 1.5, "the order turns over"
    (random, _) = answer(statuses, list(found.values()))[-2:]
    turns = "1.99 at the smallest size, 0.89 at the largest"
    assert f"cnn larger on average ({found['random', 'cnn'].ratio_text}), {turns}" in random

    per_parameter: dict[str, list[float]] = {"random": [], "original": []}
    for s in statuses:
        assert s.estimate.censored == "none"
        labels = s.point.swept["data.labels"]
        per_parameter[labels].append(s.estimate.emc / s.record.header.params)
    for labels in ("random", "original"):
        low, high = min(per_parameter[labels]), max(per_parameter[labels])
        assert f"{low:.2f} to {high:.2f}" in said

    models = label_pairs(statuses)
    assert len(models) == 9
    perceptrons = sorted((m for m in models if m.family == "mlp"), key=lambda m: m.params)
    assert [m.test_accuracy for m in perceptrons] == sorted(m.test_accuracy for m in perceptrons)
    ratios = [math.exp(m.excess) for m in perceptrons]
    assert ratios == sorted(ratios, reverse=True)
    assert f"from {ratios[0]:.2f} to {ratios[-1]:.2f}" in said
    pearson, spearman = correlations(models, "test_accuracy")[:2]
    assert f"{pearson.value:.2f} [{pearson.lower:.2f}, {pearson.upper:.2f}] (Pearson)" in said
    assert spearman.lower < 0 < spearman.upper

    edges = Counter(
        (s.point.swept["data.labels"], s.point.swept["model.family"])
        for s in statuses if at_edge(s)
    )  # fmt: skip
    assert edges == {("original", "cnn"): 15, ("random", "cnn"): 4, ("original", "vit"): 2}
    failed = Counter(failures(statuses))
    assert f"Of the {failed.total()} training runs that failed" in said
    assert f"best rate {failed['unconverged']} were still improving" in said
    assert "not_fit" not in failed


def test_a_record_that_is_kept_gives_the_same_results(measured: Path, tmp_path: Path) -> None:
    path = save_records(measured, tmp_path)
    again, spec = load_records(path, tmp_path)
    assert spec == (measured / "sweep.yaml").read_text()
    for one, there in zip(load(measured), again, strict=True):
        rows = row_of(there), row_of(one.status)
        assert {k: v for k, v in rows[0].items() if not k.startswith("touched_")} == {
            k: v for k, v in rows[1].items() if not k.startswith("touched_")
        }
        assert there.history == one.status.history
    assert all(line.endswith(": agrees") for line in agreement(measured, path))
    stored = json.loads(lzma.decompress(path.read_bytes()))
    for point in stored["points"].values():
        point["estimate"]["emc"] *= 10
    path.write_bytes(lzma.compress(json.dumps(stored).encode()))
    assert all(line.endswith(": mean outside the interval") for line in agreement(measured, path))
    with pytest.raises(FileNotFoundError):
        load_records(tmp_path / "none.json.xz", tmp_path)
