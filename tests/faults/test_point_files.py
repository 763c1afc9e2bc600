"""Point files that are damaged, or made to harm: one line for that point, the others unaffected."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from flexhpc.errors import PointError
from flexhpc.store import finish, read, read_masks
from flexhpc.store.seal import SIZE, read_sealed
from flexhpc.store.status import open_run
from tests.command import flexhpc
from tests.conftest import FULL
from tests.contents import edited

FLIPS = 2_000 if FULL else 150


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """A copy of a run of three finished points."""
    return Path(shutil.copytree(measured, tmp_path / "runs" / "small"))


def files(run: Path) -> list[Path]:
    folder, _, points = open_run(run)
    return [folder.point(point.id) for point in points]


def unknown_value(file: h5py.File) -> None:
    file["estimate"].attrs["x"] = 1


def text_for_a_number(file: h5py.File) -> None:
    file["probes/0000"].attrs["seconds"] = "x"


def a_number_for_text(file: h5py.File) -> None:
    file["probes/0000"].attrs["verdict"] = 1


def a_time_beyond_the_calendar(file: h5py.File) -> None:
    file["probes/0000"].attrs["finished"] = 1e300


def more_missed_than_drawn(file: h5py.File) -> None:
    file["probes/0000"].attrs["n_errors"] = 10**9


def an_unknown_arm(file: h5py.File) -> None:
    file["probes/0000"].attrs["arm"] = 7


def an_empty_evaluation(file: h5py.File) -> None:
    file.create_group("evaluation")


def a_data_set_as_estimate(file: h5py.File) -> None:
    del file["estimate"]
    file["estimate"] = np.arange(3)


def an_infinite_schema(file: h5py.File) -> None:
    file.attrs["schema"] = np.inf


def a_text_as_schema(file: h5py.File) -> None:
    file.attrs["schema"] = "[/]"


def a_curve_without_end(file: h5py.File) -> None:
    del file["probes/0000/loss_curve"]
    file["probes/0000"].create_dataset("loss_curve", (10**11,), "f4", chunks=(2**20,))


def a_curve_that_unpacks_to_gigabytes(file: h5py.File) -> None:
    del file["probes/0000/loss_curve"]
    file["probes/0000"].create_dataset(
        "loss_curve", (10**9,), "f4", chunks=(2**24,), compression="gzip", fillvalue=0.0
    )


def a_mask_of_another_size(file: h5py.File) -> None:
    del file["probes/0000/fit"]
    file["probes/0000/fit"] = np.zeros(3, np.uint8)


def samples_without_end(file: h5py.File) -> None:
    file.attrs["n_total"] = 2**50


def groups_linked_twice(file: h5py.File) -> None:
    inner = file["estimate"]
    for _ in range(30):
        inner = inner.create_group("a")
        inner.parent["b"] = inner


def a_group_within_itself(file: h5py.File) -> None:
    file["estimate"]["again"] = file["estimate"]


def storage_in_another_file(file: h5py.File) -> None:
    del file["probes/0000/loss_curve"]
    file["probes/0000"].create_dataset("loss_curve", (20,), "f4", external=[("/etc/passwd", 0, 80)])


def a_link_to_another_file(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as target:
        target["x"] = np.arange(5, dtype=np.float32)
    del file["probes/0000/loss_curve"]
    file["probes/0000/loss_curve"] = h5py.ExternalLink(str(other), "x")


def a_soft_link(file: h5py.File) -> None:
    file["probes/0009"] = h5py.SoftLink("/probes/0000")


def a_virtual_data_set(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(5,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(5,))
    del file["probes/0000/loss_curve"]
    file["probes/0000"].create_virtual_dataset("loss_curve", layout)


HARMLESS = (unknown_value,)
HARMFUL = (
    text_for_a_number, a_number_for_text, a_time_beyond_the_calendar, more_missed_than_drawn,
    an_unknown_arm, an_empty_evaluation, a_data_set_as_estimate, an_infinite_schema,
    a_text_as_schema, a_curve_without_end, a_curve_that_unpacks_to_gigabytes, samples_without_end,
    groups_linked_twice, a_group_within_itself, storage_in_another_file, a_link_to_another_file,
    a_soft_link, a_virtual_data_set,
)  # fmt: skip


def looked_at(run: Path, *more: list) -> list[dict]:
    """What the commands that read a run say of its points; none fails or is slow."""
    began = time.process_time()
    for command in (["results", run], ["status", run], *more, ["status", run, "--json"]):
        said = flexhpc(run.parent, *command)
        assert said.returncode == 0, said.stdout + said.stderr
        assert "Traceback" not in said.stdout + said.stderr
    assert time.process_time() - began < 30
    states: list[dict] = json.loads(said.stdout)
    return states


@pytest.mark.parametrize("change", [*HARMLESS, *HARMFUL])
def test_a_file_of_wrong_content_fails_its_point_alone(
    change: Callable[[h5py.File], None], run: Path
) -> None:
    """Even if its checksum is right: whoever changes a file can make one."""
    path = files(run)[0]
    with edited(path) as file:
        change(file)
    bad, *others = looked_at(run)
    assert [one["state"] for one in others] == ["done", "done"]
    if change in HARMLESS:
        assert bad["state"] == "done"
    else:
        assert bad["state"] == "failed"
        assert "not a readable point file" in bad["message"]
        assert "\n" not in bad["message"]


def test_a_mask_of_another_size_is_no_mask(run: Path) -> None:
    path = files(run)[0]
    with edited(path) as file:
        a_mask_of_another_size(file)
    with pytest.raises(PointError, match="not a readable point file"):
        read_masks(path)


def test_a_file_changed_by_another_program_says_so(run: Path) -> None:
    path = files(run)[0]
    with h5py.File(path, "r+") as file:
        file["probes/0000"].attrs["loss"] = 0.0
    bad, *_ = looked_at(run, ["report", run], ["sync", run])
    assert bad["state"] == "failed"
    assert "its checksum is another" in bad["message"]


def test_the_file_of_another_point_is_not_believed(run: Path) -> None:
    one, other, _ = files(run)
    shutil.copyfile(other, one)
    bad, *_ = looked_at(run)
    assert bad["state"] == "failed"
    assert f"it is the file of point {other.stem!r}" in bad["message"]


def test_every_flipped_bit_is_seen_or_harmless(run: Path, tmp_path: Path) -> None:
    """Of a file of the present schema; 511 of its first 512 bytes may hold no more than zeros."""
    path, copy = files(run)[1], tmp_path / "flipped.h5"
    content, right = path.read_bytes(), read(path)
    rng = np.random.default_rng()
    places = [*range(0, len(content), 4096), *rng.integers(0, len(content), FLIPS)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(damaged)
        try:
            found = read(copy)
        except PointError:
            continue
        assert 58 <= place < SIZE, f"a flip at {place} went unseen"
        assert found.estimate == right.estimate


def test_every_cut_is_seen(run: Path, tmp_path: Path) -> None:
    path, copy = files(run)[1], tmp_path / "cut.h5"
    content = path.read_bytes()
    for length in range(0, len(content), 512):
        copy.write_bytes(content[:length])
        with pytest.raises(PointError, match="not a readable point file"):
            read(copy)


def test_what_is_no_plain_file_keeps_nobody_waiting(run: Path) -> None:
    first, second, _ = files(run)
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.mkdir()
    assert [one["state"] for one in looked_at(run)] == ["failed", "failed", "done"]


def test_a_file_without_checksum_of_schema_1_gets_one(run: Path, tmp_path: Path) -> None:
    path = files(run)[0]
    old = tmp_path / "old.h5"
    with h5py.File(path) as new, h5py.File(old, "w") as file:
        for key, value in new.attrs.items():
            file.attrs[key] = value
        for name in new:
            new.copy(name, file)
        file.attrs["schema"] = 1
    right, found = read(path), read(old)
    assert found.estimate == right.estimate
    assert len(found.probes) == len(right.probes)
    with h5py.File(old, "r+") as file:
        file.attrs["schema"] = 2
    with pytest.raises(PointError, match="its checksum is gone"):
        read(old)
    with h5py.File(old, "r+") as file:
        file.attrs["schema"] = 1
    finish(old, right.estimate)
    assert read_sealed(old)[1]
    assert read(old).estimate == right.estimate
    assert read_masks(old).fit.tobytes() == read_masks(path).fit.tobytes()
