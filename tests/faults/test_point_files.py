"""Point files that are damaged, or made to harm: one line for that point, the others unaffected."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from flexhpc.errors import PointError
from flexhpc.launch.prepare import open_folder, prepare
from flexhpc.store import read, read_masks
from flexhpc.store.seal import SIZE
from flexhpc.store.status import open_run
from flexhpc.tracking.quiet import mlflow_client
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


def a_schema_to_come(file: h5py.File) -> None:
    file.attrs["schema"] = 99


def curves_of_gigabytes_in_all(file: h5py.File) -> None:
    for number in range(20, 40):
        file.copy("probes/0000", f"probes/{number:04}")
        del file[f"probes/{number:04}/loss_curve"]
        file[f"probes/{number:04}"].create_dataset("loss_curve", (2**24,), "f4", chunks=(2**20,))


def a_thousand_attributes(file: h5py.File) -> None:
    for number in range(1_001):
        file["estimate"].attrs[f"x{number}"] = 1


def an_endless_attribute(file: h5py.File) -> None:
    file["estimate"].attrs["x"] = np.zeros(4_000, "f8")
    file["estimate"].attrs.create("y", np.zeros(10_001, "u1"))


def an_attribute_that_points(file: h5py.File) -> None:
    file["estimate"].attrs["x"] = file["probes"].ref


def a_named_type(file: h5py.File) -> None:
    file["estimate/x"] = np.dtype("f8")


def a_curve_of_two_axes(file: h5py.File) -> None:
    del file["probes/0000/loss_curve"]
    file["probes/0000/loss_curve"] = np.zeros((5, 4), np.float32)


def a_curve_of_text(file: h5py.File) -> None:
    del file["probes/0000/loss_curve"]
    file["probes/0000/loss_curve"] = np.array([b"a", b"b"])


def packed_in_an_unknown_way(file: h5py.File) -> None:
    del file["probes/0000/loss_curve"]
    file["probes/0000"].create_dataset("loss_curve", (20,), "f4", compression="lzf")


def groups_too_deep(file: h5py.File) -> None:
    file.create_group("a/b/c/d/e/f")


HARMLESS = (unknown_value,)
HARMFUL = (
    text_for_a_number, a_number_for_text, a_time_beyond_the_calendar, more_missed_than_drawn,
    an_unknown_arm, an_empty_evaluation, a_data_set_as_estimate, an_infinite_schema,
    a_text_as_schema, a_curve_without_end, a_curve_that_unpacks_to_gigabytes, samples_without_end,
    groups_linked_twice, a_group_within_itself, storage_in_another_file, a_link_to_another_file,
    a_soft_link, a_virtual_data_set, a_schema_to_come, curves_of_gigabytes_in_all,
    a_thousand_attributes, an_endless_attribute, an_attribute_that_points, a_named_type,
    a_curve_of_two_axes, a_curve_of_text, packed_in_an_unknown_way, groups_too_deep,
)  # fmt: skip
UNTOUCHED = 2
"""Points whose files are left as they were."""


@pytest.fixture
def run_of_all_kinds(measured: Path, tmp_path: Path) -> Path:
    """A run with a finished point for each kind of harm: copies of one that was measured."""
    count = len(HARMLESS) + len(HARMFUL) + UNTOUCHED
    spec = tmp_path / "kinds.yaml"
    text = (measured.parent.parent / "small.yaml").read_text()
    spec.write_text(
        text.replace("name: small", "name: kinds").replace(
            "[4, 8, 12]", str([*range(4, 4 + count)])
        )
    )
    prepared = prepare(spec, (), tmp_path / "runs")
    open_folder(prepared, "made", None)
    (donor, *_) = files(measured)
    for path, point in zip(files(prepared.run.path), prepared.points, strict=True):
        path.parent.mkdir(exist_ok=True)
        shutil.copy(donor, path)
        with edited(path) as file:
            file.attrs["point_id"], file.attrs["point"] = point.id, point.canonical
    return prepared.run.path


def looked_at(run: Path, *more: list) -> list[dict]:
    """Return the states that the commands that read a run report; none may fail."""
    for command in (["results", run], ["status", run], *more, ["status", run, "--json"]):
        said = flexhpc(run.parent, *command)
        fails = command[0] in ("results", "status")  # if a point failed
        assert said.returncode in ((0, 1) if fails else (0,)), said.stdout + said.stderr
        assert "Traceback" not in said.stdout + said.stderr
    states: list[dict] = json.loads(said.stdout)
    return states


def test_files_of_wrong_content_fail_their_points_alone(run_of_all_kinds: Path) -> None:
    """Even if their checksums are right: whoever changes a file can make one. In every command."""
    run = run_of_all_kinds
    for path, change in zip(files(run), [*HARMLESS, *HARMFUL], strict=False):
        with edited(path) as file:
            change(file)
    good = len(HARMLESS) + UNTOUCHED
    points = looked_at(
        run, ["report", run], ["results", run, "--format", "csv"],
        ["compare", run, "--by", "model"], ["masks", run], ["sync", run],
    )  # fmt: skip
    changes = [*HARMLESS, *HARMFUL, *[None] * UNTOUCHED]
    for point, change in zip(points, changes, strict=True):
        expected = "failed" if change in HARMFUL else "done"
        assert point["state"] == expected, change
        if change in HARMFUL:
            newer = change is a_schema_to_come
            why = "unsupported schema (99)" if newer else "is corrupt"
            assert why in point["message"], change
            assert "\n" not in point["message"]
            assert len(point["message"]) < 600
    client = mlflow_client(f"sqlite:///{run}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "kinds"]
    logged = client.search_runs(
        [experiment.experiment_id], "tags.`flexhpc.kind` = 'point'", max_results=1000
    )
    assert len(logged) == good
    page = (run / "report" / "index.html").read_text()
    assert page.count("is corrupt") >= len(HARMFUL) - 1
    assert "root:x:" not in page, "of /etc/passwd"


def test_a_mask_of_another_size_is_no_mask(run: Path) -> None:
    path = files(run)[0]
    with edited(path) as file:
        a_mask_of_another_size(file)
    with pytest.raises(PointError, match="is corrupt"):
        read_masks(path)


def test_a_file_changed_by_another_program_says_so(run: Path) -> None:
    path = files(run)[0]
    with h5py.File(path, "r+") as file:
        file["probes/0000"].attrs["loss"] = 0.0
    bad, *_ = looked_at(run, ["report", run], ["sync", run])
    assert bad["state"] == "failed"
    assert "checksum mismatch" in bad["message"]


def test_the_file_of_another_point_is_not_believed(run: Path) -> None:
    one, other, _ = files(run)
    shutil.copyfile(other, one)
    bad, *_ = looked_at(run)
    assert bad["state"] == "failed"
    assert f"belongs to point {other.stem!r}" in bad["message"]


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
        with pytest.raises(PointError, match="is corrupt"):
            read(copy)


def test_what_is_no_plain_file_keeps_nobody_waiting(run: Path) -> None:
    first, second, _ = files(run)
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.mkdir()
    assert [one["state"] for one in looked_at(run)] == ["failed", "failed", "done"]
