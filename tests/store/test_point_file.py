from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.errors import PointError
from flexhpc.search import EmcInterval, Estimate
from flexhpc.store import (
    Header,
    ProbeRecord,
    append,
    create,
    read,
    read_masks,
    write_estimate,
    write_evaluation,
)
from flexhpc.store.bits import pack, unpack
from flexhpc.store.point_file import AS_TEXT
from tests.conftest import FULL, REPOSITORY
from tests.contents import edited

N_TOTAL = 1003
ESTIMATE = Estimate(
    emc=70, emc_lo=60, emc_hi=None, level=0.9, estimand="n50", censored="right",
    largest_fit=80, smallest_fail=None, probes=3, cost=1800, unconverged=0, rejected=0,
    width=(0.1, 0.2, 0.3), lapse=(0.0, 0.01, 0.02),
    by_eps={"0.1": EmcInterval(emc=75, emc_lo=70, emc_hi=None, censored="right")},
)  # fmt: skip


def header() -> Header:
    return Header(
        point='{"seed":0}', point_id="ab12", params=77, data_fingerprint="f" * 32, n_total=N_TOTAL,
        n_limit=1000, conflicts=1, unfittable=2, classes=10, bits=2464,
        n_pool=900, conflict_groups="[[[2, 1], 30]]",
    )  # fmt: skip


def probe(n: int = 50, repeat: int = 0, seed: int = 0) -> ProbeRecord:
    rng = np.random.default_rng((seed, n, repeat))
    fitted = rng.random(n) < 0.7
    return ProbeRecord(
        n=n, repeat=repeat, seeds={"init": 2**62 + 1, "subset": 2, "labels": 3, "order": 4},
        verdict="not_fit", n_errors=int((~fitted).sum()), train_accuracy=float(fitted.mean()),
        loss=0.25, epochs=12, steps=34, cost=600, seconds=1.5, finished=1e9,
        metrics={"gradient_norm": 0.5}, machine={"host": "h", "device": "d"},
        subset=np.sort(rng.choice(N_TOTAL, n, replace=False)).astype(np.int64), fitted=fitted,
        loss_curve=rng.random(12).astype(np.float32), error_curve=np.arange(12, dtype=np.int32),
    )  # fmt: skip


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ab" / "ab12.h5"
    assert read(path) is None
    create(path, header())
    assert read(path).probes == []
    probes = [probe(50), probe(80), probe(80, 1)]
    for one in probes:
        append(path, one)
    record = read(path)
    assert record.header == header()
    assert record.estimate is None
    for stored, one in zip(record.probes, probes, strict=True):
        for key in ("n", "repeat", "seeds", "verdict", "n_errors", "loss", "cost", "seconds",
                    "finished", "metrics", "machine", "epochs", "steps"):  # fmt: skip
            assert getattr(stored, key) == getattr(one, key), key
        np.testing.assert_array_equal(stored.loss_curve, one.loss_curve)
    write_estimate(path, ESTIMATE)
    assert read(path).estimate == ESTIMATE
    assert len(read(path).probes) == 3
    append(path, probe(90))
    assert read(path).estimate is None, "a further probe removes it"
    write_estimate(path, replace(ESTIMATE, emc=80, tolerance=0.1))
    assert (read(path).estimate.emc, read(path).estimate.tolerance) == (80, 0.1)
    assert list(tmp_path.rglob("*.part")) == []


def test_an_evaluation_belongs_to_the_arm_of_the_estimate(tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    create(path, header())
    write_estimate(path, ESTIMATE)
    assert not read(path).has_evaluation({})
    write_evaluation(path, {"asked": {}, "arm": 0, "gap": 0.5})
    assert read(path).has_evaluation({})
    assert not read(path).has_evaluation({"n": 5})
    write_estimate(path, replace(ESTIMATE, arm=1))
    assert not read(path).has_evaluation({})
    assert read(path).has_evaluation(None), "no evaluation is requested"


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from flexhpc.errors import PointError
from flexhpc.search import EmcInterval, Estimate
from flexhpc.store import append, read
from tests.store.test_point_file import probe
path, ends = Path(sys.argv[1]), {}
append(path, probe(60, 0))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
held = []
for repeat in range(1, 400):
    try:
        held.append(bytearray(2**18))
        append(path, probe(60, repeat))
    except PointError as error:
        held[-2:] = []
        ends["said"] = str(error)
        break
    except MemoryError:
        break
held.clear()
print(len(read(path).probes) == repeat, ends.get("said"))
"""


def test_too_little_memory_is_said_before_hdf5_finds_out(tmp_path: Path) -> None:
    path = tmp_path / "ab12.h5"
    create(path, header())
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(path)], cwd=REPOSITORY, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == (
        f"True {path}: cannot be written (out of memory); its content is unchanged\n"
    )
    assert len(read(path).probes) > 1


def test_probes_read_before_are_not_read_again(tmp_path: Path) -> None:
    """Unless it is another file, with as many probes or fewer, in the same place."""
    path = tmp_path / "ab12.h5"
    create(path, header())
    append(path, probe(50))
    before = read(path)
    append(path, probe(80))
    after = read(path, before)
    assert [p.n for p in after.probes] == [50, 80]
    assert after.probes[0] is before.probes[0]
    for others in ([], [60], [60, 90, 70]):
        path.unlink()
        create(path, header())
        for place, n in enumerate(others):
            append(path, replace(probe(n), finished=2e9 + place))
        assert [p.n for p in read(path, after).probes] == others


def test_a_long_list_of_conflict_groups_is_stored(tmp_path: Path) -> None:
    groups = json.dumps([[[2, 1], 30]] * 20_000)
    create(tmp_path / "p.h5", replace(header(), conflict_groups=groups))
    assert read(tmp_path / "p.h5").header.conflict_groups == groups


def test_the_layout_is_the_contract(tmp_path: Path) -> None:
    """Read with h5py alone, as somebody without flexhpc would."""
    path, one = tmp_path / "p.h5", probe(200)
    create(path, header())
    append(path, one)
    write_estimate(path, ESTIMATE)
    with h5py.File(path) as file:
        assert {"schema", "point_id", "data_fingerprint", "n_total"} <= set(file.attrs)
        assert json.loads(file.attrs["point"]) == {"seed": 0}
        assert file.attrs["params"] == 77
        group, estimate = file["probes/0000"], file["estimate"].attrs
        seeds = json.loads(group.attrs[AS_TEXT])["seeds"]
        assert seeds == {"init": 2**62 + 1, "subset": 2, "labels": 3, "order": 4}
        expected = {
            "seed_init": 2**62 + 1, "metric.gradient_norm": 0.5, "machine.host": "h", "n": 200,
            "verdict": "not_fit",
        }  # fmt: skip
        assert {key: group.attrs[key] for key in expected} == expected
        assert (estimate["emc"], estimate["by_eps.0.1.emc"]) == (70, 75)
        assert "emc_hi" not in estimate
        assert group["subset"].shape == (-(-N_TOTAL // 8),)
        subset = np.unpackbits(group["subset"][:])[:N_TOTAL].astype(bool)
        fit = np.unpackbits(group["fit"][:])[:N_TOTAL].astype(bool)
    np.testing.assert_array_equal(np.flatnonzero(subset), one.subset)
    np.testing.assert_array_equal(np.flatnonzero(fit), one.subset[one.fitted])
    assert not (fit & ~subset).any()


@given(st.sets(st.integers(0, 98)), st.integers(99, 120))
def test_masks_pack_and_unpack(ids: set[int], n_total: int) -> None:
    array = np.array(sorted(ids), dtype=np.int64)
    bits = pack(array, n_total)
    assert len(bits) == -(-n_total // 8)
    np.testing.assert_array_equal(np.flatnonzero(unpack(bits, n_total)), array)
    if 0 in ids:
        assert bits[0] & 0x80


def test_masks_of_a_point(tmp_path: Path) -> None:
    path, probes = tmp_path / "p.h5", [probe(30), probe(60)]
    create(path, header())
    assert read_masks(path).drawn().shape == (0, N_TOTAL)
    for one in probes:
        append(path, one)
    masks = read_masks(path)
    assert masks.n.tolist() == [30, 60]
    assert masks.drawn().sum(axis=1).tolist() == [30, 60]
    assert masks.fitted().sum(axis=1).tolist() == [p.fitted.sum() for p in probes]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no probes", "newer"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "p.h5"
    create(path, header())
    append(path, probe())
    content = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        with edited(path) as file:
            if damage == "no probes":
                del file["probes"]
            else:
                file.attrs["schema"] = 99
    for use in (lambda: read(path), lambda: read_masks(path)):
        with pytest.raises(PointError) as caught:
            use()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    if damage in ("empty", "text", "cut", "newer"):
        before = path.read_bytes()
        with pytest.raises(PointError):
            append(path, probe())
        assert path.read_bytes() == before


def write_probes(path: Path, said: int) -> None:
    """Append probes without end, and tell of each."""
    create(path, header())
    for i in range(10_000):
        append(path, probe(400, i))
        os.write(said, f"{i}\n".encode())


@pytest.mark.sweeps
def test_a_writer_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    rng, fork = np.random.default_rng(0), multiprocessing.get_context("fork")
    for attempt in range(8 if FULL else 4):
        path = tmp_path / f"{attempt}.h5"
        heard, said_to = os.pipe()
        writer = fork.Process(target=write_probes, args=(path, said_to))
        writer.start()
        os.close(said_to)
        with open(heard) as lines:
            said = [int(lines.readline()) for _ in range(rng.integers(1, 60))]
            writer.kill()
            said += map(int, lines.read().split())
        writer.join()
        count = len(read(path).probes)
        assert count in (said[-1] + 1, said[-1] + 2)
        append(path, probe(10, 0))
        assert len(read(path).probes) == count + 1


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/mounts").exists(), reason="mounting needs root"
)
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(mount)], check=False
    )
    if done.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        path = mount / "p.h5"
        create(path, header())
        count, full = 0, None
        while full is None and count < 1000:
            try:
                append(path, probe(400, count))
                count += 1
            except PointError as error:
                full = str(error)
        assert full is not None
        assert "its content is unchanged" in full
        assert "\n" not in full
        assert count > 3
        assert len(read(path).probes) == count
        assert [p.name for p in mount.iterdir()] == ["p.h5"]
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
