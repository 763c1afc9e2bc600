"""Input at random: an error in a line, or a right result; never a traceback, a hang, much memory.

    python -m tests.faults.fuzz --count 10000

Prints its seed and a table: tried, taken (no error), refused (a line), broken. Exits with 1 if
anything was broken, and keeps the input that did it.
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

from flexhpc.config import Point, checked
from flexhpc.data import load_samples
from flexhpc.data.packed import verify_packed as check_packed
from flexhpc.data.prepare import prepare
from flexhpc.errors import InputError, PointError
from flexhpc.launch.load_profile import load_profile
from flexhpc.store import RunFolder, read, read_claim, read_masks
from flexhpc.store.status import StatusReader, open_run
from flexhpc.training import checkpoint
from tests.barrier import Barrier
from tests.conftest import REPOSITORY
from tests.data.test_formats import write_formats
from tests.data.test_packed import quiet, section, write_sources
from tests.data.writers import written
from tests.faults.site import SPEC

LONGEST = 30
"""CPU seconds that reading one input may take."""
NASTY: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**290, 1e-320, 1e308, float("inf"), float("nan"), "",
    "x", "\x00", "[/]", "$x$", "../..", "/dev/zero", "a:b", "é", [], {}, [[]], [1, "x"],
    {"tune": [1, 2]}, {"mode": "on"}, "1e3", "no", "-rf", "9" * 400, {"a": {"b": {"c": 1}}},
]  # fmt: skip


BYTES = ("point file", "checkpoint", "data file")
"""Kinds of which four times as many are tried: most damage hits the same few checks."""


class TooSlow(BaseException):
    """One of them took longer than it may."""


@dataclass
class Fuzzer:
    """Tries one kind of input, again and again.

    Attributes:
        make: makes an input in a folder; returns what to show of it, and what reads it.
    """

    make: Callable[[Path, np.random.Generator], tuple[Any, Callable[[], object]]]
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def once(self, folder: Path, rng: np.random.Generator) -> None:
        shown, look = self.make(folder, rng)
        self.counts["tried"] += 1
        try:
            with in_time(), contextlib.redirect_stderr(io.StringIO()):
                look()
        except (InputError, PointError) as error:
            self.counts["refused"] += 1
            if isinstance(error, PointError) and "\n" in str(error):
                self._break(shown, "an error of several lines")
        except BaseException:
            self._break(shown, traceback.format_exc())
        else:
            self.counts["taken"] += 1

    def _break(self, shown: Any, reason: str) -> None:
        self.counts["broken"] += 1
        self.broken.append(f"{str(shown)[:2000]}\n{reason}")


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Raise TooSlow after ``LONGEST`` seconds of CPU time, which other processes do not change."""

    def late(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def pick(rng: np.random.Generator, things: list[Any]) -> Any:
    """Return one of them."""
    return things[int(rng.integers(len(things)))]


def changed(value: Any, rng: np.random.Generator) -> Any:
    """Return nested plain values with something nasty at some place."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = pick(rng, list(value))
        kept = {k: v for k, v in value.items() if k != key or rng.random() < 0.9}
        name = key if rng.random() < 0.9 else str(pick(rng, NASTY))
        return {**kept, name: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = int(rng.integers(len(value)))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return pick(rng, NASTY)


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes of which some are changed, left out, doubled or cut off."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at, size = int(rng.integers(max(1, len(damaged)))), int(rng.integers(1, 16))
        how = rng.random()
        if how < 0.5 and damaged:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif how < 0.7:
            damaged[at : at + size] = rng.bytes(size)
        elif how < 0.8:
            del damaged[at : at + size]
        elif how < 0.9:
            damaged[at:at] = damaged[at : at + size]
        else:
            del damaged[at:]
    return bytes(damaged)


def plain(value: Any) -> Any:
    """Nested lists of plain values, to compare."""
    if is_dataclass(value):
        return [plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def specs() -> Fuzzer:
    """Specs that come with flexhpc, changed as values or as text."""
    paths = sorted((REPOSITORY / "sweeps").glob("*.yaml"))
    known = [(path.read_text(), yaml.safe_load(path.read_text())) for path in paths]

    def make(folder: Path, rng: np.random.Generator) -> Any:
        text, value = pick(rng, known)
        for _ in range(int(rng.integers(1, 4))):
            value = changed(value, rng)
        dumped = yaml.safe_dump(value).encode()
        content = flipped(text.encode(), rng) if rng.random() < 0.3 else dumped
        path = folder / "spec.yaml"
        path.write_bytes(content)
        return content, lambda: checked(path)

    return Fuzzer(make)


def overrides() -> Fuzzer:
    """``--set`` with keys and values at random."""
    keys = ["model.width", "data", "training.lr", "seed", "name", "grid", "search.at_once", "x.y.z",
            "training.gates.plateau", "evaluate.n", "", ".", "model..x", "fixed.model"]  # fmt: skip

    def make(folder: Path, rng: np.random.Generator) -> Any:
        Barrier(folder)
        path = written(folder / "spec.yaml", SPEC)
        value = pick(rng, NASTY)
        shown = json.dumps(value) if rng.random() < 0.5 else str(value)
        given = [f"{pick(rng, keys)}={shown}" for _ in range(int(rng.integers(1, 3)))]
        return given, lambda: checked(path, given)

    return Fuzzer(make)


def profiles() -> Fuzzer:
    """Profiles that come with flexhpc, with all that they could say."""
    every = {
        "partition": "x", "time": "1:00:00", "sbatch": {"mail-type": "FAIL"}, "setup": ["x"],
        "container": {"runtime": "podman", "image": "x", "binds": ["/x"]}, "nodes": 1,
    }  # fmt: skip
    known = [yaml.safe_load(p.read_text()) or {} for p in (REPOSITORY / "hpc/profiles").glob("*")]
    known += [{"cluster": "slurm", **every}, {"cluster": "local", "workers": 2}]

    def make(folder: Path, rng: np.random.Generator) -> Any:
        value = changed(pick(rng, known), rng)
        path = written(folder / "profile.yaml", yaml.safe_dump(value))
        return value, lambda: load_profile(path)

    return Fuzzer(make)


def point_files(run: Path) -> Fuzzer:
    """Point files whose bytes are damaged: corrupt, or what was measured."""
    folder, _, points = open_run(run)
    point: Point = points[0]
    content, right = folder.point(point.id).read_bytes(), read(folder.point(point.id))

    def make(place: Path, rng: np.random.Generator) -> Any:
        here = RunFolder(place)
        path = here.point(point.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(flipped(content, rng))

        def look() -> None:
            (status,) = StatusReader(here, [point]).read()
            if status.state == "failed":
                raise PointError(status.message)
            assert plain(read(path)) == plain(right), "damage went unseen"
            with contextlib.suppress(PointError):
                read_masks(path).fitted()

        return "bytes", look

    return Fuzzer(make)


def checkpoints(saved: Path) -> Fuzzer:
    """Checkpoints whose bytes are damaged: none, or what was saved."""
    content, right = saved.read_bytes(), checkpoint.load(saved, "k")

    def make(folder: Path, rng: np.random.Generator) -> Any:
        path = folder / "one.ckpt"
        path.write_bytes(flipped(content, rng))

        def look() -> None:
            if (found := checkpoint.load(path, "k")) is None:
                raise PointError("not a checkpoint")
            assert plain(found) == plain(right), "damage went unseen"

        return "bytes", look

    return Fuzzer(make)


def claims() -> Fuzzer:
    """Claims of wrong content."""
    good = {"state": "running", "token": "x", "launch": "x", "host": "x:1", "pid": 1, "birth": 1.0,
            "beat": 1.0, "progress": {"n": 3, "epoch": 2}}  # fmt: skip

    def make(folder: Path, rng: np.random.Generator) -> Any:
        path = folder / "x.claim.json"
        text = json.dumps(changed(good, rng)).encode()
        path.write_bytes(flipped(text, rng) if rng.random() < 0.3 else text)

        def look() -> None:
            if (claim := read_claim(path)) is not None:
                claim.live(path)

        return text, look

    return Fuzzer(make)


def _more_sources(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write a small set of each format that others made; yields the keys that read it."""
    write_formats(folder)
    for source, name in (
        ("arrays", "keras.npz"), ("arrays", "deflated.npz"), ("webdataset", "tars/a.tar"),
        ("image_table", "parquet/train-1.parquet"), ("hugging_face", "hf"),
    ):  # fmt: skip
        yield source, {"path": str(folder / name)}
    yield "arrays", {"path": str(folder / "x.npy"), "target": "y.npy"}
    pd.DataFrame({"a": np.arange(12) / 7, "y": np.arange(12) % 3}).to_parquet(folder / "t.parquet")
    (folder / "t.csv.gz").write_bytes(gzip.compress(b"a,y\n1,0\n2,1\n3,0\n"))
    for name in ("t.parquet", "t.csv.gz"):
        yield "table", {"path": str(folder / name), "target": "y"}
    packed = prepare("mnist", {"root": str(folder / "mnist")}, (), folder / "m.packed", quiet)
    yield "mnist", {"root": str(packed.path)}


def data_files(folder: Path) -> Fuzzer:
    """A file of every format that is read by a loader of ours, with damaged bytes."""
    known = []
    for source, keys in [*write_sources(folder).items(), *_more_sources(folder)]:
        place = keys.get("root") or keys.get("path")
        if place is None:
            continue
        files = [Path(place)] if Path(place).is_file() else sorted(Path(place).rglob("*"))
        known += [(source, keys, file, file.read_bytes()) for file in files if file.is_file()]

    def make(_: Path, rng: np.random.Generator) -> Any:
        source, keys, file, content = pick(rng, known)
        damaged = flipped(content, rng)

        def look() -> None:
            load_samples.__globals__["_load"].cache_clear()
            file.write_bytes(damaged)
            try:
                if file.suffix == ".packed":
                    check_packed(file)
                load_samples(section(source=source, **keys), 0)
            finally:
                file.write_bytes(content)

        return f"{source} {file.name}", look

    return Fuzzer(make)


def main() -> int:
    """Try every kind; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(2**31)))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with TemporaryDirectory(prefix="flexhpc-fuzz-") as folder:
        found = fuzz(Path(folder), np.random.default_rng(asked.seed), asked.count)
    keys = ("tried", "taken", "refused", "broken")
    print(f"| input | {' | '.join(keys)} |\n|{' --- |' * 5}")
    for kind, fuzzer in found.items():
        print(f"| {kind} | {' | '.join(str(fuzzer.counts[key]) for key in keys)} |")
        for what in fuzzer.broken[:3]:
            print(what, file=sys.stderr)
    return 1 if any(fuzzer.broken for fuzzer in found.values()) else 0


def fuzz(folder: Path, rng: np.random.Generator, count: int) -> dict[str, Fuzzer]:
    """Try so many of every kind in a folder of their own."""
    from tests.faults.made import a_checkpoint, a_run

    made = {
        "spec": specs(),
        "--set": overrides(),
        "profile": profiles(),
        "point file": point_files(a_run(folder / "run")),
        "checkpoint": checkpoints(a_checkpoint(folder)),
        "claim": claims(),
        "data file": data_files(folder / "data"),
    }
    for kind, fuzzer in made.items():
        place = folder / kind.replace(" ", "-")
        place.mkdir()
        for _ in range(count * (4 if kind in BYTES else 1)):
            fuzzer.once(place, rng)
    return made


if __name__ == "__main__":
    sys.exit(main())
