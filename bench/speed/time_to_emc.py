"""Measure how long flexhpc and a hand-written bisection take to find an EMC to within 20 %.

Usage: python -m bench.speed.time_to_emc [--rounds 3] [--models NAME,...]
The hand-written script doubles n until a training run fails, and then bisects. It trains once at
each n, in a loop over a DataLoader that computes the accuracy after every epoch, and prints the
middle of its bracket (docs/search.md gives the variation between seeds). flexhpc measures one point
with ``flexhpc sweep``, ``tolerance: 0.2`` and one worker, including MLflow and the report. Prints
medians of wall times (seconds).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml
from torch import nn

from bench.common import FLEXHPC, markdown_head, markdown_row
from bench.speed.loops import data_loader_epochs
from flexhpc.config import load_points
from flexhpc.config.sections.model import Network
from flexhpc.config.sections.training import Adam
from flexhpc.data import load_samples
from flexhpc.models import build

START, MAX_RATIO = 16, 1.2
COMMON: dict[str, Any] = {
    "data": {"source": "digits", "labels": "random"},
    "training": {"optimizer": "adam", "lr": 6.0e-3, "batch_size": 64, "steps": 1000},
    "search": {"tolerance": 0.2},
}
MODELS: dict[str, dict[str, Any]] = {
    "MLP 64-12-10": {"family": "mlp", "width": 12, "depth": 1},
    "CNN of 8 and 16 channels": {"family": "cnn", "width": 8, "depth": 2},
    "ViT of width 8": {"family": "vit", "width": 8, "depth": 1, "heads": 2, "patch": 4},
}


def write_spec(model: str, seed: int, folder: Path) -> Path:
    path = folder / f"emc_{seed}.yaml"
    fixed = {**COMMON, "model": MODELS[model]}
    path.write_text(yaml.safe_dump({"name": path.stem, "seed": seed, "fixed": fixed}))
    return path


def by_hand(spec: Path) -> float:
    """Run the hand-written bisection; return the middle of the bracket."""
    (point,) = load_points(spec)[1]
    samples = load_samples(point.data, point.seed)
    generator = torch.Generator().manual_seed(point.seed)
    training, model = point.training, point.model
    assert isinstance(training, Adam)
    assert isinstance(model, Network)
    assert training.steps is not None
    steps, batch_size = training.steps, training.batch_size

    def fits(n: int) -> bool:
        ids = samples.pool[torch.randperm(len(samples.pool), generator=generator)[:n].numpy()]
        inputs = torch.from_numpy(samples.select_inputs(ids))
        labels = torch.from_numpy(samples.labels[ids])
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network: nn.Module = build(model, samples.shape, samples.classes)
        epochs = -(-steps // -(-n // batch_size))
        counts = islice(
            data_loader_epochs(network, inputs, labels, batch_size, training.lr), epochs
        )
        return any(count == n for count in counts)

    fitted, failed = 0, START
    while fits(failed):
        fitted, failed = failed, 2 * failed
    while fitted and failed > MAX_RATIO * fitted:
        middle = (fitted + failed) // 2
        fitted, failed = (middle, failed) if fits(middle) else (fitted, middle)
    return (fitted + failed) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--by-hand", type=Path, metavar="SPEC", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.by_hand:
        torch.set_num_threads(1)
        print(by_hand(options.by_hand))
        return
    columns = ["time of flexhpc, s", "time of bisection, s", "EMC by flexhpc", "EMC by bisection"]
    print(markdown_head(["network", *columns]))
    for model in options.models.split(","):
        seconds: tuple[list[float], list[float]] = ([], [])
        emcs: tuple[list[str], list[str]] = ([], [])
        for seed in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                spec = write_spec(model, seed, Path(folder))
                for measure, times, results in zip(
                    (by_flexhpc, in_new_process), seconds, emcs, strict=True
                ):
                    start = time.monotonic()
                    results.append(measure(spec))
                    times.append(time.monotonic() - start)
        medians = [f"{statistics.median(times):.1f}" for times in seconds]
        print(markdown_row([model, *medians, *map(", ".join, emcs)]), flush=True)


def by_flexhpc(spec: Path) -> str:
    """Run ``flexhpc sweep``; return the EMC with its interval."""
    profile = spec.with_name("one.yaml")
    profile.write_text("cluster: local\nworkers: 1\n")
    runs = spec.parent / "runs"
    options = ["--profile", str(profile), "--runs", str(runs)]
    subprocess.run([FLEXHPC, "sweep", str(spec), *options], check=True, capture_output=True)
    results = [FLEXHPC, "results", str(runs / spec.stem), "--format", "json"]
    (row,) = yaml.safe_load(subprocess.check_output(results))
    return f"{row['emc']:.0f} [{row['emc_lo']:.0f}, {row['emc_hi']:.0f}]"


def in_new_process(spec: Path) -> str:
    """Run the hand-written bisection in a new process; return the EMC."""
    command = [sys.executable, "-m", "bench.speed.time_to_emc", "--by-hand", str(spec)]
    return f"{float(subprocess.check_output(command, text=True)):.0f}"


if __name__ == "__main__":
    main()
