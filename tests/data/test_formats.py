"""Data sets in general file formats: equal samples from each, and their errors."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import flexhpc
from flexhpc.config import load_points
from flexhpc.data import load_samples, load_test_set
from flexhpc.data.custom import convert_samples
from flexhpc.errors import InputError, PointError
from tests.conftest import Cli
from tests.data.writers import one_line_error, tar_of, write_text

IMAGES = np.random.default_rng(0).integers(0, 255, (60, 6, 8, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


def encode_png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def write_tar(
    path: Path, rows: range, suffixes: tuple[str, ...] = ("png", "cls"),
    labels: Sequence[object] = tuple(LABELS),
) -> None:  # fmt: skip
    files = {
        f"{i:04d}.{suffix}": str(labels[i]).encode() if suffix == "cls" else encode_png(IMAGES[i])
        for i in rows
        for suffix in suffixes
    }
    path.write_bytes(tar_of(files))


def write_hugging_face(folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    images = [Image.fromarray(image) for image in IMAGES]
    train = datasets.Dataset.from_dict({"image": images, "label": LABELS, "v": LABELS * 1.5})
    splits = {"train": train, "test": train.select(range(6))}
    datasets.DatasetDict(splits).save_to_disk(folder / "hf")
    vectors = datasets.Dataset.from_dict({"v": IMAGES[:, 0, :, 0].tolist(), "label": LABELS})
    vectors.save_to_disk(folder / "hfv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_formats(tmp_path_factory.mktemp("formats"))


def write_formats(folder: Path) -> Path:
    """Write the same images in every format, and damaged files; return the folder."""
    images = IMAGES.transpose(0, 3, 1, 2)
    np.savez(folder / "keras.npz", x_train=images, y_train=LABELS, x_test=images[:6],
             y_test=LABELS[:6])  # fmt: skip
    np.savez(folder / "nan.npz", x=np.full((60, 4), np.nan), y=LABELS)
    np.savez(folder / "abc.npz", a=images, b=LABELS[:-1], c=np.full(60, np.nan))
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", LABELS)
    np.save(folder / "floats.npy", images.astype(np.float64))
    np.save(folder / "infinite.npy", np.full((60, 4), np.inf))
    encoded = [encode_png(image) for image in IMAGES]
    (folder / "parquet").mkdir()
    for name, rows in (("train-0", slice(0, 40)), ("train-1", slice(40, 60)), ("test-0", slice(6))):
        cells = [{"bytes": image, "path": None} for image in encoded[rows]]
        frame = pd.DataFrame({"image": cells, "label": LABELS[rows], "n": range(len(cells))})
        frame.to_parquet(folder / "parquet" / f"{name}.parquet")
    pd.DataFrame({"image": [*encoded[:5], b"no image"], "label": LABELS[:6]}).to_parquet(
        folder / "damaged.parquet"
    )
    missing = pd.DataFrame({"image": encoded[:3], "label": [0, 1, None]})
    missing.to_parquet(folder / "missing.parquet")
    write_hugging_face(folder)
    (folder / "tars").mkdir()
    write_tar(folder / "tars" / "a.tar", range(30))
    write_tar(folder / "tars" / "b.tar", range(30, 60))
    write_tar(folder / "no_class.tar", range(5), ("png",))
    write_tar(folder / "two.tar", range(5), ("png", "jpg", "cls"))
    (folder / "invalid.tar").write_bytes(b"no tar")
    tar = (folder / "tars" / "a.tar").read_bytes()
    (folder / "truncated.tar").write_bytes(tar[: len(tar) // 2 + 700])
    np.savez_compressed(folder / "deflated.npz", x=images, y=LABELS)
    for name in ("keras", "deflated"):
        damaged = bytearray((folder / f"{name}.npz").read_bytes())
        damaged[len(damaged) // 3] ^= 255
        (folder / f"{name}_damaged.npz").write_bytes(damaged)
    shutil.copytree(folder / "hf", folder / "hf_damaged")
    offsets = np.cumsum([len(image) for image in encoded[:6]]).astype("<i4").tobytes()
    beyond_the_end = offsets[:4] + b"\xff\xff\xff\x7e" + offsets[8:]
    for path in (folder / "hf_damaged").rglob("*.arrow"):
        path.write_bytes(path.read_bytes().replace(offsets, beyond_the_end))
    (folder / "text.npz").write_text("no archive")
    return folder


SPEC = "name: x\nfixed:\n  data: {{{}}}\n  model: {{family: linear}}\n"


def load_section(folder: Path, data: str) -> flexhpc.data.Samples:
    """Load the data section of a spec in this folder; paths are relative to it."""
    with contextlib.chdir(folder):
        (point,) = load_points(write_text(folder / "spec.yaml", SPEC.format(data)))[1]
        return load_samples(point.data, point.seed)


VALID = {
    "npz": ("source: arrays, path: keras.npz", True),
    "npy": ("source: arrays, path: x.npy, target: y.npy", False),
    "npy with a test set": ("source: arrays, path: x.npy, target: y.npy, test_column: x.npy, "
                            "test_target: y.npy", True),
    "parquet": ("source: image_table, path: parquet, split: train, test_split: test", True),
    "parquet file": ("source: image_table, path: parquet/train-0.parquet", False),
    "Hugging Face": ("source: hugging_face, path: hf", True),
    "WebDataset": ("source: webdataset, path: tars", False),
    "one tar": ("source: webdataset, path: tars/a.tar, column: png", False),
    "upper case": ("source: webdataset, path: tars/a.tar, column: PNG, target: CLS", False),
}  # fmt: skip


@pytest.mark.parametrize(("data", "has_test_set"), VALID.values(), ids=VALID)
def test_formats_give_equal_samples(
    data: str, has_test_set: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_section(folder, data)
    n = len(loaded.labels)
    assert n in (30, 40, 60)
    np.testing.assert_array_equal(loaded.inputs.rows, IMAGES[:n].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(loaded.labels, LABELS[:n])
    monkeypatch.chdir(folder)
    (point,) = load_points(folder / "spec.yaml")[1]
    if has_test_set:
        test = load_test_set(point.data, 0)
        np.testing.assert_array_equal(test.labels, LABELS[: len(test.labels)])
    else:
        with pytest.raises(PointError, match="no test set"):
            load_test_set(point.data, 0)


def test_npy_files_are_memory_mapped(folder: Path) -> None:
    mapped = load_section(folder, "source: arrays, path: x.npy, target: y.npy").inputs.rows
    assert isinstance(mapped, np.memmap)
    floats = load_section(folder, "source: arrays, path: floats.npy, target: y.npy").inputs.rows
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, IMAGES.transpose(0, 3, 1, 2))


def test_hugging_face_vectors(folder: Path) -> None:
    assert load_section(folder, "source: hugging_face, path: hfv, column: v").shape == (8,)


INVALID = {
    "no file": ("source: arrays, path: nowhere.npz", "file not found .nowhere.npz"),
    "no archive": ("source: arrays, path: text.npz", "text.npz: cannot be read as an .npz file"),
    "no array": ("source: arrays, path: keras.npz, column: z", "no array z; it has x_train, y"),
    "other names": ("source: arrays, path: abc.npz", "has no array input_ids .*; it has a, b, c"),
    "different lengths": ("source: arrays, path: abc.npz, column: a, target: b", "do not match"),
    "no labels": ("source: arrays, path: abc.npz, column: a, target: c", "60 of 60 labels are"),
    "no target": ("source: arrays, path: x.npy", "data.target: is required with an .npy"),
    "no target file": ("source: arrays, path: x.npy, target: no.npy",
                       r"data\.target: .*no\.npy: cannot be read as an \.npy file"),
    "column of .npy": ("source: arrays, path: x.npy, target: y.npy, column: x",
                       "data.column: has no effect"),
    "test set without labels": ("source: arrays, path: x.npy, target: y.npy, test_column: x.npy",
                    "give both keys or neither"),
    "infinite": ("source: arrays, path: infinite.npy, target: y.npy", "row 0, column 0 .* is inf"),
    "missing": ("source: arrays, path: nan.npz", "nan.npz: row 0, column 0 of the inputs is nan"),
    "floats": ("source: arrays, path: floats.npy, target: y.npy, side: 4", "float32 images"),
    "no column": ("source: image_table, path: parquet, target: t", "no column t; it has image"),
    "no bytes": ("source: image_table, path: parquet, column: n", "column n contains a value of"),
    "no split": ("source: image_table, path: parquet, split: dev", r"a folder of dev\*\.parquet"),
    "split of a file": ("source: image_table, path: damaged.parquet, split: train",
                        "data.split, data.test_split: have no effect"),
    "parquet: damaged image": ("source: image_table, path: damaged.parquet",
                "damaged.parquet, row 5: cannot be read as an image"),
    "parquet: no label": ("source: image_table, path: missing.parquet", "1 of 3 labels are"),
    "no parquet": ("source: image_table, path: invalid.tar", "cannot be read as Parquet"),
    "hf: other folder": ("source: hugging_face, path: tars", "is neither a `Dataset` directory"),
    "hf: column": ("source: hugging_face, path: hf, target: y", "no column y; it has image, label"),
    "hf: split": ("source: hugging_face, path: hf, split: dev", "no split dev; it has train, test"),
    "hf: fractions": ("source: hugging_face, path: hf, target: v", "whole numbers or text, not 1"),
    "tar: other folder": ("source: webdataset, path: hf", "is neither a .tar file nor a folder"),
    "tar: invalid": ("source: webdataset, path: invalid.tar", "cannot be read as a tar file"),
    "tar: truncated": ("source: webdataset, path: truncated.tar", "as a tar file .unexpected end"),
    "npz: damaged": ("source: arrays, path: keras_damaged.npz", "x_train: cannot .* .Bad CRC-32"),
    "npz: deflated, damaged": ("source: arrays, path: deflated_damaged.npz", r"x: .*\((Bad|Error)"),
    "hf: damaged": ("source: hugging_face, path: hf_damaged", "written by save_to_disk .*offset"),
    "tar: no class": ("source: webdataset, path: no_class.tar", r"no label files \*.cls"),
    "tar: two images": ("source: webdataset, path: two.tar", "a sample has several images"),
    "tar: no image": ("source: webdataset, path: tars/a.tar, column: jpg", "0000: has no image"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), INVALID.values(), ids=INVALID)
def test_invalid_data_is_one_error_message(data: str, message: str, folder: Path) -> None:
    with one_line_error(message):
        load_section(folder, data)


DATA_SET = """\
import numpy as np
from PIL import Image


class Set:
    def __init__(self, size=40):
        self.size, self.rng = size, np.random.default_rng(0)

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        pixels = self.rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels), i % 4
"""


def test_packed_custom_data_set_is_found_by_its_name(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "sets.py").write_text(DATA_SET)
    output = cli("data", "prepare", "sets:Set", "--set", "data.kwargs.size=30").stdout
    assert "data/sets:Set.packed: valid, 30 samples of 3x8x8" in output
    packed = load_section(tmp_path, "source: 'sets:Set', kwargs: {size: 30}")
    assert "sets:Set.packed" in packed.source.name
    assert len(load_section(tmp_path, "source: 'sets:Set'").labels) == 40


def test_indexed_data_sets_are_converted_to_arrays() -> None:
    tensors = torch.utils.data.TensorDataset(torch.zeros(5, 3), torch.arange(5))
    inputs, labels = convert_samples("x", tensors)
    assert (inputs.shape, labels.tolist()) == ((5, 3), [0, 1, 2, 3, 4])
    with pytest.raises(PointError, match="sample 0 is a Tensor, not"):
        convert_samples("x", torch.utils.data.Subset(torch.zeros(3, 3), range(3)))


def test_frames_and_lists_of_images_are_converted_to_arrays() -> None:
    frame = pd.DataFrame({"image": [encode_png(image) for image in IMAGES], "label": LABELS})
    inputs, labels = convert_samples("data", (frame["image"], frame["label"]))
    np.testing.assert_array_equal(inputs, IMAGES.transpose(0, 3, 1, 2))
    grey = [Image.fromarray(image[..., 0]) for image in IMAGES]
    assert convert_samples("data", (grey, labels))[0].shape == (60, 1, 6, 8)
    vectors = frame[["label"]].assign(b=1.5)
    assert convert_samples("data", (vectors, frame["label"]))[0].shape == (60, 2)
    with pytest.raises(InputError, match=r"row 1: cannot be read as an image"):
        flexhpc.measure("linear", ([encode_png(IMAGES[0]), b"none"], [0, 1]))
