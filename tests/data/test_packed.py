"""Packed files: bitwise equal to their sources; damage is detected."""

from __future__ import annotations

import io
import itertools
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flexhpc.config.sections.data import Data
from flexhpc.config.variants import variants
from flexhpc.data import load_samples, load_test_set
from flexhpc.data.dataset import Source, Split
from flexhpc.data.packed import MAGIC, open_packed, verify_packed, write_packed
from flexhpc.data.prepare import pack_data_set
from flexhpc.errors import InputError, PointError
from tests.conftest import Cli
from tests.data.test_formats import write_formats
from tests.data.test_uci import ADULT, ADULT_TEST, CREDIT, as_csv, covtype_rows
from tests.data.writers import (
    RNG,
    cifar_batch,
    load,
    one_line_error,
    section,
    write_cifar5m,
    write_cifar10,
    write_cifar100,
    write_images,
    write_mnist,
)


def write_sources(folder: Path) -> dict[str, dict[str, Any]]:
    """Write a small data set for each source; return the keys of its ``data`` section."""
    for split in ("train", "t10k"):
        images = RNG.integers(0, 3, (40, 28, 28), dtype=np.uint8)
        labels = RNG.integers(0, 10, 40, dtype=np.uint8)
        images[5], labels[5], images[7] = images[3], (labels[3] + 1) % 10, images[3]
        write_mnist(folder / "mnist", zipped=False, images=images, labels=labels, split=split)
    shutil.copytree(folder / "mnist", folder / "fashion_mnist")
    batches = [cifar_batch(4, "labels", 10) for _ in range(6)]
    write_cifar10(folder / "cifar10", batches[:5], batches[5])
    fine = cifar_batch(50, "fine_labels", 100)
    fine["coarse_labels"] = [label % 20 for label in fine["fine_labels"]]
    write_cifar100(folder / "cifar100", fine)
    write_cifar5m(folder / "cifar5m", {0: 5, 1: 6})
    write_images(folder / "images" / "train", {"a": 3, "b": 70})
    write_images(folder / "images" / "val", {"a": 2, "b": 1})
    rows = [f"{RNG.normal() if i % 4 else ''},{'pq'[i % 2]},{i % 3}" for i in range(30)]
    for name, text in {
        "adult/adult.data": ADULT * 4, "adult/adult.test": ADULT_TEST,
        "covtype/covtype.data": as_csv(covtype_rows()), "credit/uci_credit_card.csv": CREDIT,
        "t.csv": "a,b,y\n" + "\n".join(rows),
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    formats = folder / "formats"
    formats.mkdir()
    write_formats(formats)
    roots = ("mnist", "fashion_mnist", "cifar10", "cifar100", "cifar5m", "adult", "covtype",
             "credit")  # fmt: skip
    return {name: {"root": str(folder / name)} for name in roots} | {
        "image_folder": {"root": str(folder / "images")},
        "table": {"path": str(folder / "t.csv"), "target": "y"},
        "arrays": {"path": str(formats / "keras.npz")},
        "image_table": {"path": str(formats / "parquet"), "split": "train", "test_split": "test"},
        "hugging_face": {"path": str(formats / "hf")},
        "webdataset": {"path": str(formats / "tars")},
        "digits": {},
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Keys of a small data set for each source; tests must not change its files."""
    return write_sources(tmp_path_factory.mktemp("sources"))


SOURCES = [
    name
    for name, cls in variants("data").items()
    if issubclass(cls, Data) and not cls.seeded and not cls.aliases and name != "text"
]
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"labels": "corrupted", "corruption": 0.3, "test_fraction": 0.2, "inputs": "permuted"},
)


@pytest.mark.parametrize("source", SOURCES)
def test_packed_file_is_bitwise_equal_to_its_source(
    tmp_path: Path, source: str, sources: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert source in sources, f"add {source} to write_sources in tests/data/test_packed.py"
    keys = sources[source]
    all_settings = (*SETTINGS, *([{"merge": "coarse"}] if source == "cifar100" else []))
    sections = [section(source=source, **keys, **settings) for settings in all_settings]
    originals = [(load_samples(data, 3), _test_rows(data)) for data in sections]
    packed = pack_data_set(source, keys)
    key = sections[0].location_key()
    name = source if key is None else Path(keys[key]).stem
    assert packed.path == Path("data") / f"{name}.packed"
    verify_packed(packed.path)
    if key is not None:
        keys = {**keys, key: str(packed.path)}
    load_samples.__globals__["_load_source_cached"].cache_clear()
    for settings, (plain, test) in zip(all_settings, originals, strict=True):
        data = section(source=source, **keys, **settings)
        samples = load_samples(data, 3)
        assert isinstance(samples.inputs.rows.base, np.memmap)
        for name in ("fingerprint", "conflicts", "unfittable", "n_limit", "classes"):
            assert getattr(samples, name) == getattr(plain, name)
        for name in ("labels", "pool"):
            np.testing.assert_array_equal(getattr(samples, name), getattr(plain, name))
        for name in ("mean", "deviation"):
            moment, original = (getattr(s.inputs, name) for s in (samples, plain))
            np.testing.assert_array_equal(moment, original)
        ids = np.arange(len(samples.labels))
        np.testing.assert_array_equal(samples.select_inputs(ids), plain.select_inputs(ids))
        assert np.array_equal(_test_rows(data), test)


def _test_rows(data: Data) -> np.ndarray:
    """Return labels and inputs of a test set as one array; an empty array if there is none."""
    try:
        test = load_test_set(data, 3)
    except PointError:
        return np.empty(0)
    inputs = test.select_inputs(np.arange(len(test.labels)))
    return np.c_[test.labels, inputs.reshape(len(test.labels), -1)]


def test_packed_file_in_the_default_folder_is_preferred(
    tmp_path: Path, sources: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sources["adult"]["root"], "data")
    pack_data_set("adult", {"root": "data"})
    samples = load("adult")
    assert "adult.packed" in samples.source.name
    assert samples.fingerprint == load("adult", **sources["adult"]).fingerprint


@pytest.mark.parametrize(
    ("packed_keys", "keys", "error"),
    [
        ({}, {"side": 7}, None),
        ({}, {"side": 7, "colour": "rgb"}, None),
        ({"side": 7}, {"side": 7}, None),
        ({"side": 7}, {"side": 7, "colour": "grey"}, None),
        ({"side": 7, "colour": "grey"}, {"side": 7, "colour": "grey"}, None),
        ({"side": 7}, {}, "was packed with side: 7, but the point has side: None"),
        ({"side": 7}, {"side": 5}, "was packed with side: 7, but the point has side: 5"),
        ({"colour": "grey"}, {"colour": "grey", "side": 7}, "side: None, but .* has side: 7"),
        ({"colour": "grey"}, {}, "was packed with colour: grey"),
    ],
)
def test_packed_file_is_used_only_for_matching_keys(
    tmp_path: Path, packed_keys: dict, keys: dict, error: str | None, sources: dict
) -> None:
    cifar10 = sources["cifar10"]
    packed = pack_data_set("cifar10", {**cifar10, **packed_keys}, out=tmp_path / "c")
    data = section(source="cifar10", root=packed.path, **keys)
    if error is not None:
        with pytest.raises(PointError, match=error):
            load_samples(data, 0)
        return
    original = section(source="cifar10", **cifar10, **keys)
    plain, samples = load_samples(original, 0), load_samples(data, 0)
    assert samples.fingerprint == plain.fingerprint
    np.testing.assert_array_equal(samples.inputs.rows, plain.inputs.rows)
    np.testing.assert_array_equal(_test_rows(data), _test_rows(original))


@pytest.fixture
def packed(tmp_path: Path, sources: dict) -> Path:
    return pack_data_set("mnist", sources["mnist"], out=tmp_path / "m.packed").path


def test_packed_file_of_a_different_source_is_rejected(tmp_path: Path, packed: Path) -> None:
    with one_line_error("packed with source: mnist, but the point has source: cifar10"):
        load("cifar10", root=packed)
    with one_line_error(r"data\.root: .* is already packed"):
        pack_data_set("mnist", {"root": str(packed)}, out=tmp_path / "n")


def test_packed_table_with_different_keys_is_rejected(tmp_path: Path, sources: dict) -> None:
    packed = pack_data_set("table", sources["table"], ("data.drop=[a]",), tmp_path / "t").path
    with one_line_error(r"packed with drop: \['a'\], but the point has drop: None"):
        load("table", path=packed, target="y")
    assert load("table", path=packed, target="y", drop=["a"]).shape == (2,)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def flip_bit(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def flip_bit_in(member: str) -> Callable[[Path], None]:
    """Return a function that flips a bit at the end of a member, or of its name if it is empty."""

    def damage(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(member) or member.encode()
        flip_bit(path, path.read_bytes().index(content) + len(content) - 1)

    return damage


WRONG_CONTENT: dict[str, tuple[str, bytes | None, bytes | None]] = {
    "pickled": ("labels.npy", None, npy(np.array([{}, 1], dtype=object))),
    "column-major": ("inputs.npy", None, npy(np.asfortranarray(np.zeros((40, 4), np.uint8)))),
    "beyond the end": ("inputs.npy", b"(40, 1, 28, 28)", b"(999999, 28, 28)"),
    "negative": ("inputs.npy", b"(40, 1, ", b"(40, -1,"),
    "no labels": ("labels.npy", None, None),
    "one class": ("header.json", b'"classes": 10', b'"classes": 1'),
    "text": ("header.json", b'"classes": 10', b'"classes": "[/]"'),
    "compressed": ("header.json", b"", b""),
}
"""Member, replaced bytes (None: the whole member) and new bytes (None: the member is removed)."""


@pytest.mark.parametrize("kind", WRONG_CONTENT)
def test_wrong_content_with_valid_checksums_is_one_error_message(packed: Path, kind: str) -> None:
    """An attacker can compute the checksums of a changed file, or compress a bomb."""
    name, before, after = WRONG_CONTENT[kind]
    with zipfile.ZipFile(packed) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = members.pop(name)
    assert before is None or before in content
    if after is not None:
        members[name] = after if before is None else content.replace(before, after)
    method = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(packed, "w", method) as archive:
        for member in members:
            archive.writestr(member, members[member])
    with one_line_error(f"{packed}: "):
        open_packed(packed)


def test_damage_is_detected_when_a_file_is_opened_or_verified(packed: Path) -> None:
    valid = packed.read_bytes()
    for damage, expected in (
        (lambda path: path.write_bytes(b""), "neither a folder nor a file written"),
        (lambda path: path.write_bytes(valid[:900]), "not a zip file"),
        (lambda path: path.write_bytes(valid[:-1]), "not a zip file"),
        (lambda path: flip_bit(path, 0), "neither a folder nor a file written"),
        (flip_bit_in(MAGIC), "neither a folder nor a file written"),
        (flip_bit_in("header.json"), "Bad CRC-32 for file 'header.json'"),
    ):
        packed.write_bytes(valid)
        damage(packed)
        with one_line_error(f"{packed}.*{expected}"):
            load("mnist", root=packed)
    for array in ("labels", "inputs", "test_inputs", "mean", "twins"):
        packed.write_bytes(valid)
        verify_packed(packed)
        flip_bit_in(f"{array}.npy")(packed)
        if "inputs" in array:  # large arrays are not verified on opening
            open_packed(packed)
        with pytest.raises(PointError, match=f"Bad CRC-32 for file '{array}.npy'"):
            verify_packed(packed)


def test_packed_arrays_are_aligned_and_read_only(packed: Path) -> None:
    source = open_packed(packed).source
    inputs = source.train.gather()
    assert inputs.ctypes.data % 64 == 0
    with np.load(packed) as archive:
        np.testing.assert_array_equal(archive["inputs"], inputs)
        np.testing.assert_array_equal(archive["labels"], source.train.labels)
    samples = load("mnist", root=packed)
    with pytest.raises(ValueError, match="read-only"):
        samples.inputs.rows[0] = 0
    samples.labels[samples.pool[:3]][0] = 5
    verify_packed(packed)


def test_failed_packing_keeps_the_existing_file_and_no_part(packed: Path) -> None:
    before = packed.read_bytes()

    def blocks() -> Any:
        yield np.zeros((1, 2), np.float32)
        raise PointError("the third image is unreadable")

    split = Split(labels=np.zeros(3, np.int64), shape=(2,), dtype=np.dtype("f4"), blocks=blocks)
    source = Source(name="x", classes=2, train=split)
    with pytest.raises(PointError, match="third image"):
        write_packed(source, {"source": "x"}, packed)
    assert packed.read_bytes() == before
    assert not list(packed.parent.glob(".*.part"))


def test_memory_of_packing_does_not_depend_on_the_size(tmp_path: Path) -> None:
    block = RNG.integers(0, 256, (1_000, 3, 32, 32), dtype=np.uint8)
    count = 40_000
    split = Split(
        labels=np.zeros(count, np.int64), shape=(3, 32, 32), dtype=np.dtype("u1"),
        blocks=lambda: itertools.repeat(block, count // len(block)),
    )  # fmt: skip
    source = Source(name="x", classes=2, train=split)
    tracemalloc.start()
    packed = write_packed(source, {"source": "x"}, tmp_path / "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert packed.size > count * 3_072
    assert peak < 60e6
    assert packed.source.summary is not None
    assert len(packed.source.summary.twins) == count


@pytest.mark.parametrize(
    ("source", "keys", "overrides", "expected"),
    [
        ("mnst", {}, (), ['"mnst" is not one of']),
        ("gaussian", {}, (), ["is generated from the seed"]),
        ("table", {"path": "x"}, (), ["data.target: is required"]),
        ("mnist", {"side": 0, "colour": "red"}, (), ["data.side", "data.colour"]),
        ("mnist", {}, ("data.labels=random",), ["--set data.labels=random: must be data.KEY"]),
        ("adult", {"side": 3}, (), ["data.side"]),
    ],
)
def test_invalid_keys_are_rejected(
    source: str, keys: dict, overrides: tuple[str, ...], expected: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        pack_data_set(source, keys, overrides)
    for line, part in zip(caught.value.lines, expected, strict=True):
        assert part in line


def test_commands_prepare_and_check(tmp_path: Path, sources: dict, cli: Cli) -> None:
    root, csv = sources["image_folder"]["root"], sources["table"]["path"]
    keys = ("--root", root, "--side", 4, "--colour", "grey")
    output = cli("data", "prepare", "image_folder", *keys).stdout
    assert "data/images.packed: valid, 73 samples of 1x4x4, 3 test samples" in output
    assert output == cli("data", "check", "data/images.packed").stdout
    flip_bit_in("inputs.npy")(tmp_path / "data" / "images.packed")
    failed = cli("data", "check", "data/images.packed", check=2)
    assert failed.stderr == (
        "data/images.packed: cannot be read as a file written by `flexhpc data prepare` (Bad "
        "CRC-32 for file 'inputs.npy'); check or replace it\n"
    )
    assert "cannot be read as a file written" in cli("data", "check", csv, check=2).stderr
    assert "data.target: is required" in cli("data", "prepare", "table", check=2).stderr


def test_other_files_are_never_overwritten(tmp_path: Path, sources: dict) -> None:
    keys = sources["mnist"]
    table = tmp_path / "table.csv"
    table.write_text("a,b\n")
    with pytest.raises(PointError, match=r"table\.csv: already exists and is not a packed file"):
        pack_data_set("mnist", keys, out=table)
    assert table.read_text() == "a,b\n"
    with pytest.raises(PointError, match="already exists and is not a packed file"):
        pack_data_set("mnist", keys, out=tmp_path)
    for name in ("table.csv/x.packed", "table.csv/y/x.packed", "n" * 300):
        with one_line_error(r"cannot be written \(.*choose another"):
            pack_data_set("mnist", keys, out=tmp_path / name)


def test_default_file_is_replaced_only_with_equal_keys(
    tmp_path: Path, sources: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = sources["cifar10"]
    packed = pack_data_set("cifar10", {**keys, "side": 5})
    with pytest.raises(PointError, match="packed with source: cifar10, side: 5; choose"):
        pack_data_set("cifar10", keys)
    assert open_packed(packed.path).source.train.shape == (3, 5, 5)
    content = packed.path.read_bytes()
    pack_data_set("cifar10", {**keys, "side": 5})
    assert packed.path.read_bytes() == content
    assert pack_data_set("cifar10", keys, out=packed.path).source.train.shape == (3, 32, 32)
    packed.path.write_bytes(packed.path.read_bytes()[:-1])
    pack_data_set("cifar10", keys)
    verify_packed(packed.path)


def test_default_name_keeps_all_but_known_suffixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"x": [1, 2], "y": [0, 1]})
    for name, expected in (
        ("v1.5", "v1.5"), (".set", ".set"), ("t.v2.csv.gz", "t.v2"), ("t.parquet", "t"), ("t", "t"),
    ):  # fmt: skip
        if name == expected != "t":
            write_images(tmp_path / name, {"a": 1, "b": 1})
            packed = pack_data_set("image_folder", {"root": name})
        else:
            write = frame.to_parquet if name.endswith("parquet") else frame.to_csv
            write(name, index=False)
            packed = pack_data_set("table", {"path": name, "target": "y"})
        assert packed.path == Path("data") / f"{expected}.packed"
        packed.path.unlink()


def test_packed_file_in_root_is_used_if_its_keys_match(tmp_path: Path, sources: dict) -> None:
    keys = {"root": str(tmp_path / "mnist")}
    shutil.copytree(sources["mnist"]["root"], keys["root"])
    pack_data_set("mnist", {**keys, "side": 9}, out=tmp_path / "mnist" / "mnist.packed")
    assert "mnist.packed" in load("mnist", **keys, side=9).source.name
    assert load("mnist", **keys).shape == (1, 28, 28), "a file with other keys is ignored"
