"""Random input: a one-line error or a correct result; no traceback, no hang.

    python -m tests.faults.fuzz --count 10000

Prints the seed and a table: inputs tried, accepted, rejected with a one-line error, broken. Prints
broken inputs, and exits with status 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from flexhpc.config import Point, load_points
from flexhpc.data import load_samples
from flexhpc.data.packed import verify_packed
from flexhpc.data.prepare import pack_data_set
from flexhpc.errors import InputError, PointError
from flexhpc.launch.profile import load_profile
from flexhpc.store import RunFolder, read_claim, read_masks, read_point_file
from flexhpc.store.status import StatusReader, open_run
from flexhpc.training import checkpoint
from tests.barrier import Barrier
from tests.conftest import REPOSITORY
from tests.data.test_packed import section, write_sources
from tests.data.writers import write_text
from tests.faults.checkpoints import saved_checkpoint
from tests.faults.site import SPEC
from tests.sweeps import measure_undisturbed

MAX_SECONDS = 30
"""CPU seconds that reading one input may take."""
EDGE_CASES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**290, 1e-320, 1e308, float("inf"), float("nan"), "",
    "x", "\x00", "[/]", "$x$", "../..", "/dev/zero", "a:b", "é", [], {}, [[]], [1, "x"],
    {"tune": [1, 2]}, {"mode": "on"}, "1e3", "no", "-rf", "9" * 400, {"a": {"b": {"c": 1}}},
]  # fmt: skip


BINARY = ("point file", "checkpoint", "data file")
"""Kinds that are tried four times as often: most damage is detected by the same few checks."""


class TooSlow(BaseException):
    """Reading an input took more than ``MAX_SECONDS``."""


@dataclass
class Fuzzer:
    """Tries random inputs of one kind.

    Attributes:
        make: writes an input to a folder; returns its description and a function that reads it.
    """

    make: Callable[[Path, np.random.Generator], tuple[Any, Callable[[], object]]]
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def run(self, folder: Path, rng: np.random.Generator) -> None:
        """Try one input."""
        description, read_input = self.make(folder, rng)
        self.counts["tried"] += 1
        try:
            with time_limit(), contextlib.redirect_stderr(io.StringIO()):
                read_input()
        except (InputError, PointError) as error:
            self.counts["rejected"] += 1
            if isinstance(error, PointError) and "\n" in str(error):
                self._record(description, "an error of several lines")
        except BaseException:
            self._record(description, traceback.format_exc())
        else:
            self.counts["accepted"] += 1

    def _record(self, description: Any, reason: str) -> None:
        self.counts["broken"] += 1
        self.broken.append(f"{str(description)[:2000]}\n{reason}")


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise TooSlow after ``MAX_SECONDS`` of CPU time, which other processes do not affect."""

    def raise_too_slow(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, raise_too_slow)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def choose(rng: np.random.Generator, values: list[Any]) -> Any:
    """Return a random element; unlike ``rng.choice``, of any type."""
    return values[int(rng.integers(len(values)))]


def mutate_value(value: Any, rng: np.random.Generator) -> Any:
    """Replace a random part of nested plain values with an edge case."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = choose(rng, list(value))
        kept = {k: v for k, v in value.items() if k != key or rng.random() < 0.9}
        name = key if rng.random() < 0.9 else str(choose(rng, EDGE_CASES))
        return {**kept, name: mutate_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = int(rng.integers(len(value)))
        return [*value[:index], mutate_value(value[index], rng), *value[index + 1 :]]
    return choose(rng, EDGE_CASES)


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, remove, repeat or truncate random bytes."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        start, size = int(rng.integers(max(1, len(damaged)))), int(rng.integers(1, 16))
        draw = rng.random()
        if draw < 0.5 and damaged:
            damaged[start] ^= 1 << int(rng.integers(8))
        elif draw < 0.7:
            damaged[start : start + size] = rng.bytes(size)
        elif draw < 0.8:
            del damaged[start : start + size]
        elif draw < 0.9:
            damaged[start:start] = damaged[start : start + size]
        else:
            del damaged[start:]
    return bytes(damaged)


def comparable(value: Any) -> Any:
    """Convert nested dataclasses, arrays and tensors to values that ``==`` compares."""
    if is_dataclass(value):
        return [comparable(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def specs() -> Fuzzer:
    """Mutate the included specs, as values or as text."""
    paths = sorted((REPOSITORY / "sweeps").glob("*.yaml"))
    included = [(path.read_text(), yaml.safe_load(path.read_text())) for path in paths]

    def make(folder: Path, rng: np.random.Generator) -> Any:
        text, value = choose(rng, included)
        for _ in range(int(rng.integers(1, 4))):
            value = mutate_value(value, rng)
        dumped = yaml.safe_dump(value).encode()
        content = mutate_bytes(text.encode(), rng) if rng.random() < 0.3 else dumped
        path = folder / "spec.yaml"
        path.write_bytes(content)
        return content, lambda: load_points(path)

    return Fuzzer(make)


def overrides() -> Fuzzer:
    """Generate ``--set`` options with random keys and edge cases."""
    keys = ["model.width", "data", "training.lr", "seed", "name", "grid", "search.at_once", "x.y.z",
            "training.gates.plateau", "evaluate.n", "", ".", "model..x", "fixed.model"]  # fmt: skip

    def make(folder: Path, rng: np.random.Generator) -> Any:
        Barrier(folder)
        path = write_text(folder / "spec.yaml", SPEC)
        value = choose(rng, EDGE_CASES)
        text = json.dumps(value) if rng.random() < 0.5 else str(value)
        options = [f"{choose(rng, keys)}={text}" for _ in range(int(rng.integers(1, 3)))]
        return options, lambda: load_points(path, options)

    return Fuzzer(make)


def profiles() -> Fuzzer:
    """Mutate the included profiles, and one with most keys."""
    keys = {
        "partition": "x", "time": "1:00:00", "sbatch": {"mail-type": "FAIL"}, "setup": ["x"],
        "container": {"runtime": "podman", "image": "x", "binds": ["/x"]}, "nodes": 1,
    }  # fmt: skip
    valid = [yaml.safe_load(p.read_text()) or {} for p in (REPOSITORY / "hpc/profiles").glob("*")]
    valid += [{"cluster": "slurm", **keys}, {"cluster": "local", "workers": 2}]

    def make(folder: Path, rng: np.random.Generator) -> Any:
        value = mutate_value(choose(rng, valid), rng)
        path = write_text(folder / "profile.yaml", yaml.safe_dump(value))
        return value, lambda: load_profile(path)

    return Fuzzer(make)


def point_files(run: Path) -> Fuzzer:
    """Damage a point file: it is read as it was written, or rejected."""
    folder, _, points = open_run(run)
    point: Point = points[0]
    content = folder.point_file(point.id).read_bytes()
    expected = read_point_file(folder.point_file(point.id))

    def make(folder: Path, rng: np.random.Generator) -> Any:
        run = RunFolder(folder)
        path = run.point_file(point.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutate_bytes(content, rng))

        def read_input() -> None:
            (status,) = StatusReader(run, [point]).read()
            if status.state == "failed":
                raise PointError(status.message)
            record = read_point_file(path)
            assert comparable(record) == comparable(expected), "damage was not detected"
            with contextlib.suppress(PointError):
                read_masks(path).fitted()

        return "bytes", read_input

    return Fuzzer(make)


def checkpoint_files(saved: Path) -> Fuzzer:
    """Damage a checkpoint: it is loaded as it was saved, or rejected."""
    content, expected = saved.read_bytes(), checkpoint.load(saved, "k")

    def make(folder: Path, rng: np.random.Generator) -> Any:
        path = folder / "probe.ckpt"
        path.write_bytes(mutate_bytes(content, rng))

        def read_input() -> None:
            if (loaded := checkpoint.load(path, "k")) is None:
                raise PointError("not a checkpoint")
            assert comparable(loaded) == comparable(expected), "damage was not detected"

        return "bytes", read_input

    return Fuzzer(make)


def claims() -> Fuzzer:
    """Mutate a claim, as values or as text."""
    valid = {"state": "running", "token": "x", "launch": "x", "host": "x:1", "pid": 1, "birth": 1.0,
             "beat": 1.0, "progress": {"n": 3, "epoch": 2}}  # fmt: skip

    def make(folder: Path, rng: np.random.Generator) -> Any:
        path = folder / "x.claim.json"
        text = json.dumps(mutate_value(valid, rng)).encode()
        path.write_bytes(mutate_bytes(text, rng) if rng.random() < 0.3 else text)

        def read_input() -> None:
            if (claim := read_claim(path)) is not None:
                claim.holder_is_alive(path)

        return text, read_input

    return Fuzzer(make)


def _more_sources(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield further sources and their keys, for files of ``write_sources`` and for new files."""
    yield "arrays", {"path": str(folder / "formats" / "deflated.npz")}
    yield "arrays", {"path": str(folder / "formats" / "x.npy"), "target": "y.npy"}
    pd.DataFrame({"a": np.arange(12) / 7, "y": np.arange(12) % 3}).to_parquet(folder / "t.parquet")
    (folder / "t.csv.gz").write_bytes(gzip.compress(b"a,y\n1,0\n2,1\n3,0\n"))
    for name in ("t.parquet", "t.csv.gz"):
        yield "table", {"path": str(folder / name), "target": "y"}
    packed = pack_data_set("mnist", {"root": str(folder / "mnist")}, out=folder / "m.packed")
    yield "mnist", {"root": str(packed.path)}


def data_files(folder: Path) -> Fuzzer:
    """Damage a file of each format for which flexhpc has a loader."""
    valid = []
    for source, keys in [*write_sources(folder).items(), *_more_sources(folder)]:
        path = keys.get("root") or keys.get("path")
        if path is None:
            continue
        files = [Path(path)] if Path(path).is_file() else sorted(Path(path).rglob("*"))
        valid += [(source, keys, file, file.read_bytes()) for file in files if file.is_file()]

    def make(_: Path, rng: np.random.Generator) -> Any:
        source, keys, file, content = choose(rng, valid)
        damaged = mutate_bytes(content, rng)

        def read_input() -> None:
            load_samples.__globals__["_load_source_cached"].cache_clear()
            file.write_bytes(damaged)
            try:
                if file.suffix == ".packed":
                    verify_packed(file)
                load_samples(section(source=source, **keys), 0)
            finally:
                file.write_bytes(content)

        return f"{source} {file.name}", read_input

    return Fuzzer(make)


def main() -> int:
    """Fuzz all kinds; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(2**31)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with TemporaryDirectory(prefix="flexhpc-fuzz-") as folder:
        fuzzers = fuzz(Path(folder), np.random.default_rng(arguments.seed), arguments.count)
    keys = ("tried", "accepted", "rejected", "broken")
    print(f"| input | {' | '.join(keys)} |\n|{' --- |' * 5}")
    for kind, fuzzer in fuzzers.items():
        print(f"| {kind} | {' | '.join(str(fuzzer.counts[key]) for key in keys)} |")
        for description in fuzzer.broken[:3]:
            print(description, file=sys.stderr)
    return 1 if any(fuzzer.broken for fuzzer in fuzzers.values()) else 0


def fuzz(folder: Path, rng: np.random.Generator, count: int) -> dict[str, Fuzzer]:
    """Try ``count`` inputs of each kind, each kind in its own folder."""
    fuzzers = {
        "spec": specs(),
        "--set": overrides(),
        "profile": profiles(),
        "point file": point_files(measure_undisturbed(folder / "run", SPEC)),
        "checkpoint": checkpoint_files(saved_checkpoint(folder)),
        "claim": claims(),
        "data file": data_files(folder / "data"),
    }
    for kind, fuzzer in fuzzers.items():
        inner = folder / kind.replace(" ", "-")
        inner.mkdir()
        for _ in range(count * (4 if kind in BINARY else 1)):
            fuzzer.run(inner, rng)
    return fuzzers


if __name__ == "__main__":
    sys.exit(main())
