from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
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
    append_probe,
    create_point_file,
    read_loss_curves,
    read_masks,
    read_point_file,
    write_estimate,
    write_evaluation,
)
from flexhpc.store.bits import pack_mask, unpack_masks
from flexhpc.store.point_file import JSON_ATTRIBUTE
from tests.conftest import FULL, REPOSITORY
from tests.point_files import edited

N_TOTAL = 1003
ESTIMATE = Estimate(
    emc=70, emc_lo=60, emc_hi=None, level=0.9, estimand="n50", censored="right",
    largest_fit=80, smallest_fail=None, probes=3, cost=1800, unconverged=0, rejected=0,
    width=(0.1, 0.2, 0.3), lapse=(0.0, 0.01, 0.02),
    by_eps={"0.1": EmcInterval(emc=75, emc_lo=70, emc_hi=None, censored="right")},
)  # fmt: skip
HEADER = Header(
    point='{"seed":0}', point_id="ab12", params=77, data_fingerprint="f" * 32, n_total=N_TOTAL,
    n_limit=1000, conflicts=1, unfittable=2, classes=10, bits=2464, n_pool=900,
    conflict_groups="[[[2, 1], 30]]",
)  # fmt: skip


def probe(n: int = 50, repeat: int = 0) -> ProbeRecord:
    rng = np.random.default_rng((0, n, repeat))
    fitted = rng.random(n) < 0.7
    return ProbeRecord(
        n=n, repeat=repeat, seeds={"init": 2**62 + 1, "subset": 2, "labels": 3, "order": 4},
        verdict="not_fit", n_errors=int((~fitted).sum()), train_accuracy=float(fitted.mean()),
        loss=0.25, epochs=12, steps=34, cost=600, seconds=1.5, finished=1e9,
        metrics={"gradient_norm": 0.5}, machine={"host": "h", "device": "d"},
        subset=np.sort(rng.choice(N_TOTAL, n, replace=False)).astype(np.int64), fitted=fitted,
        loss_curve=rng.random(12).astype(np.float32), error_curve=np.arange(12, dtype=np.int32),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A point file without probes."""
    path = tmp_path / "ab12.h5"
    create_point_file(path, HEADER)
    return path


def test_records_and_masks_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "ab" / "ab12.h5"
    assert read_point_file(path) is None
    create_point_file(path, HEADER)
    assert read_point_file(path).probes == []
    assert read_masks(path).in_subset().shape == (0, N_TOTAL)
    probes = [probe(50), probe(80), probe(80, 1)]
    for written in probes:
        append_probe(path, written)
    record, masks = read_point_file(path), read_masks(path)
    assert record.header == HEADER
    assert record.estimate is None
    for stored, written in zip(record.probes, probes, strict=True):
        for key in ("n", "repeat", "seeds", "verdict", "n_errors", "loss", "cost", "seconds",
                    "finished", "metrics", "machine", "epochs", "steps"):  # fmt: skip
            assert getattr(stored, key) == getattr(written, key), key
    for losses, written in zip(read_loss_curves(path), probes, strict=True):
        np.testing.assert_array_equal(losses, written.loss_curve)
    assert masks.n.tolist() == masks.in_subset().sum(axis=1).tolist() == [50, 80, 80]
    assert masks.fitted().sum(axis=1).tolist() == [p.fitted.sum() for p in probes]
    write_estimate(path, ESTIMATE)
    assert read_point_file(path).estimate == ESTIMATE
    assert len(read_point_file(path).probes) == 3
    append_probe(path, probe(90))
    assert read_point_file(path).estimate is None, "a further probe removes the estimate"
    write_estimate(path, replace(ESTIMATE, emc=80, tolerance=0.1))
    refined = read_point_file(path).estimate
    assert (refined.emc, refined.tolerance) == (80, 0.1)
    assert list(tmp_path.rglob("*.part")) == []


def test_an_evaluation_belongs_to_the_arm_of_the_estimate(path: Path) -> None:
    write_estimate(path, ESTIMATE)
    assert not read_point_file(path).has_evaluation({})
    write_evaluation(path, {"asked": {}, "arm": 0, "gap": 0.5})
    assert read_point_file(path).has_evaluation({})
    assert not read_point_file(path).has_evaluation({"n": 5})
    write_estimate(path, replace(ESTIMATE, arm=1))
    assert not read_point_file(path).has_evaluation({})
    assert read_point_file(path).has_evaluation(None), "no evaluation is requested"


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from flexhpc.errors import PointError
from flexhpc.store import append_probe, read_point_file
from tests.store.test_point_file import probe
path, message = Path(sys.argv[1]), None
append_probe(path, probe(60, 0))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
allocated = []
for repeat in range(1, 400):
    try:
        allocated.append(bytearray(2**18))
        append_probe(path, probe(60, repeat))
    except PointError as error:
        allocated[-2:] = []
        message = str(error)
        break
    except MemoryError:
        break
allocated.clear()
print(len(read_point_file(path).probes) == repeat, message)
"""


def test_a_lack_of_memory_is_reported_before_hdf5_crashes(path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(path)], cwd=REPOSITORY, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert result.stderr == ""
    assert result.stdout == (
        f"True {path}: cannot be written (out of memory); its content is unchanged\n"
    )
    assert len(read_point_file(path).probes) > 1


def test_known_probes_are_reused_unless_the_file_was_replaced(path: Path) -> None:
    append_probe(path, probe(50))
    before = read_point_file(path)
    append_probe(path, probe(80))
    after = read_point_file(path, before)
    assert [p.n for p in after.probes] == [50, 80]
    assert after.probes[0] is before.probes[0]
    for sizes in ([], [60], [60, 90, 70]):
        path.unlink()
        create_point_file(path, HEADER)
        for position, n in enumerate(sizes):
            append_probe(path, replace(probe(n), finished=2e9 + position))
        assert [p.n for p in read_point_file(path, after).probes] == sizes


def test_a_long_list_of_conflict_groups_is_stored(tmp_path: Path) -> None:
    groups = json.dumps([[[2, 1], 30]] * 20_000)
    create_point_file(tmp_path / "p.h5", replace(HEADER, conflict_groups=groups))
    assert read_point_file(tmp_path / "p.h5").header.conflict_groups == groups


def test_the_layout_can_be_read_with_h5py_alone(path: Path) -> None:
    written = probe(200)
    append_probe(path, written)
    write_estimate(path, ESTIMATE)
    with h5py.File(path) as file:
        assert {"schema", "point_id", "data_fingerprint", "n_total"} <= set(file.attrs)
        assert json.loads(file.attrs["point"]) == {"seed": 0}
        assert file.attrs["params"] == 77
        group, estimate = file["probes/0000"], file["estimate"].attrs
        seeds = json.loads(group.attrs[JSON_ATTRIBUTE])["seeds"]
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
    np.testing.assert_array_equal(np.flatnonzero(subset), written.subset)
    np.testing.assert_array_equal(np.flatnonzero(fit), written.subset[written.fitted])
    assert not (fit & ~subset).any()


@given(st.sets(st.integers(0, 98)), st.integers(99, 120))
def test_unpack_inverts_pack(ids: set[int], n_total: int) -> None:
    array = np.array(sorted(ids), dtype=np.int64)
    bits = pack_mask(array, n_total)
    assert len(bits) == -(-n_total // 8)
    np.testing.assert_array_equal(np.flatnonzero(unpack_masks(bits, n_total)), array)
    if 0 in ids:
        assert bits[0] & 0x80


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("empty", "is corrupt (empty file)"),
        ("text", "is corrupt (not a point file)"),
        ("no checksum", "is corrupt (not a point file)"),
        ("truncated", "is corrupt (checksum mismatch"),
        ("no probes", "unknown content"),
        ("newer schema", "unsupported schema (99)"),
    ],
)
def test_a_damaged_file_gives_a_one_line_error(path: Path, damage: str, problem: str) -> None:
    append_probe(path, probe())
    content = path.read_bytes()
    contents = {
        "empty": b"", "text": b"not HDF5", "no checksum": content[512:],
        "truncated": content[: len(content) // 2],
    }  # fmt: skip
    if damage in contents:
        path.write_bytes(contents[damage])
    else:
        with edited(path) as file:
            if damage == "no probes":
                del file["probes"]
            else:
                file.attrs["schema"] = 99
    for reader in (read_point_file, read_masks):
        with pytest.raises(PointError) as error:
            reader(path)
        assert str(error.value).startswith(f"{path}: {problem}")
        assert "\n" not in str(error.value)
    if damage != "no probes":
        before = path.read_bytes()
        with pytest.raises(PointError):
            append_probe(path, probe())
        assert path.read_bytes() == before


def write_probes(path: Path, output: int) -> None:
    """Append probes until SIGKILL; write the index of each to a pipe."""
    create_point_file(path, HEADER)
    for i in range(10_000):
        append_probe(path, probe(400, i))
        os.write(output, f"{i}\n".encode())


@pytest.mark.sweeps
def test_no_probe_is_lost_if_the_writer_is_killed(tmp_path: Path) -> None:
    rng, fork = np.random.default_rng(0), multiprocessing.get_context("fork")
    for attempt in range(8 if FULL else 4):
        path = tmp_path / f"{attempt}.h5"
        receiver, sender = os.pipe()
        writer = fork.Process(target=write_probes, args=(path, sender))
        writer.start()
        os.close(sender)
        with open(receiver) as lines:
            written = [int(lines.readline()) for _ in range(rng.integers(1, 60))]
            writer.kill()
            written += map(int, lines.read().split())
        writer.join()
        count = len(read_point_file(path).probes)
        assert count in (written[-1] + 1, written[-1] + 2)
        append_probe(path, probe(10, 0))
        assert len(read_point_file(path).probes) == count + 1


def test_a_point_file_is_unchanged_if_the_disk_is_full(small_disk: Callable[[str], Path]) -> None:
    path = small_disk("300k") / "p.h5"
    create_point_file(path, HEADER)
    count, message = 0, None
    while message is None and count < 1000:
        try:
            append_probe(path, probe(400, count))
            count += 1
        except PointError as error:
            message = str(error)
    assert message is not None
    assert "its content is unchanged" in message
    assert "\n" not in message
    assert count > 3
    assert len(read_point_file(path).probes) == count
    assert [p.name for p in path.parent.iterdir()] == ["p.h5"]
