"""Formats that people keep samples in: each gives the same samples, and says what is wrong."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import flexhpc
from flexhpc.config import checked
from flexhpc.data import load_samples, load_test
from flexhpc.data.custom import arrays_of
from flexhpc.errors import InputError, PointError
from tests.conftest import Cli
from tests.data.writers import written

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 255, (60, 6, 8, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


def png(image: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "png")
    return written.getvalue()


def write_tar(
    path: Path, rows: range, endings: tuple[str, ...] = ("png", "cls"),
    labels: Sequence[object] = tuple(LABELS),
) -> None:  # fmt: skip
    with tarfile.open(path, "w") as tar:
        for i in rows:
            for ending in endings:
                content = str(labels[i]).encode() if ending == "cls" else png(IMAGES[i])
                member = tarfile.TarInfo(f"{i:04d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_hugging_face(folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    pictures = [Image.fromarray(image) for image in IMAGES]
    whole = datasets.Dataset.from_dict({"image": pictures, "label": LABELS, "v": LABELS * 1.5})
    halves = {"train": whole, "test": whole.select(range(6))}
    datasets.DatasetDict(halves).save_to_disk(folder / "hf")
    vectors = datasets.Dataset.from_dict({"v": IMAGES[:, 0, :, 0].tolist(), "label": LABELS})
    vectors.save_to_disk(folder / "hfv")


def _with_wild_offsets(content: bytes) -> bytes:
    """Have the ends of the first column's images, int32 one after the other, lie far outside."""
    sizes = [len(png(image)) for image in IMAGES[:6]]
    ends = np.cumsum(sizes).astype("<i4").tobytes()
    at = content.index(ends)
    return content[: at + 4] + b"\xff\xff\xff\x7e" + content[at + 8 :]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    write_formats(folder)
    return folder


def write_formats(folder: Path) -> None:
    """Write the same images in every format, and damaged ones."""
    first = IMAGES.transpose(0, 3, 1, 2)
    np.savez(folder / "keras.npz", x_train=first, y_train=LABELS, x_test=first[:6],
             y_test=LABELS[:6])  # fmt: skip
    np.savez(folder / "odd.npz", a=first, b=LABELS[:-1], c=np.full(60, np.nan))
    np.save(folder / "x.npy", first)
    np.save(folder / "y.npy", LABELS)
    np.save(folder / "floats.npy", first.astype(np.float64))
    np.save(folder / "infinite.npy", np.full((60, 4), np.inf))
    bytes_ = [png(image) for image in IMAGES]
    (folder / "parquet").mkdir()
    for name, rows in (("train-0", slice(0, 40)), ("train-1", slice(40, 60)), ("test-0", slice(6))):
        cells = [{"bytes": one, "path": None} for one in bytes_[rows]]
        frame = pd.DataFrame({"image": cells, "label": LABELS[rows], "n": range(len(cells))})
        frame.to_parquet(folder / "parquet" / f"{name}.parquet")
    pd.DataFrame({"image": [*bytes_[:5], b"no image"], "label": LABELS[:6]}).to_parquet(
        folder / "damaged.parquet"
    )
    pd.DataFrame({"image": bytes_[:3], "label": [0, 1, None]}).to_parquet(folder / "lost.parquet")
    write_hugging_face(folder)
    (folder / "tars").mkdir()
    write_tar(folder / "tars" / "a.tar", range(30))
    write_tar(folder / "tars" / "b.tar", range(30, 60))
    write_tar(folder / "no_class.tar", range(5), ("png",))
    write_tar(folder / "two.tar", range(5), ("png", "jpg", "cls"))
    (folder / "broken.tar").write_bytes(b"no tar")
    whole = (folder / "tars" / "a.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(whole) // 2 + 700])
    np.savez_compressed(folder / "deflated.npz", x=first, y=LABELS)
    for name in ("keras", "deflated"):
        damaged = bytearray((folder / f"{name}.npz").read_bytes())
        damaged[len(damaged) // 3] ^= 255
        (folder / f"{name}_damaged.npz").write_bytes(damaged)
    shutil.copytree(folder / "hf", folder / "hf_damaged")
    for path in (folder / "hf_damaged").rglob("*.arrow"):
        path.write_bytes(_with_wild_offsets(path.read_bytes()))
    (folder / "text.npz").write_text("no archive")


SPEC = "name: x\nfixed:\n  data: {{{}}}\n  model: {{family: linear}}\n"


def samples(kept: Path, data: str) -> flexhpc.data.Samples:
    (point,) = checked(written(kept / "spec.yaml", SPEC.format(data)))[1]
    return load_samples(point.data, point.seed)


GOOD = {
    "npz": ("source: arrays, path: keras.npz", True),
    "npy": ("source: arrays, path: x.npy, target: y.npy", False),
    "npy with a test set": ("source: arrays, path: x.npy, target: y.npy, test_column: x.npy, "
                            "test_target: y.npy", True),
    "parquet": ("source: image_table, path: parquet, split: train, test_split: test", True),
    "a file of parquet": ("source: image_table, path: parquet/train-0.parquet", False),
    "Hugging Face": ("source: hugging_face, path: hf", True),
    "WebDataset": ("source: webdataset, path: tars", False),
    "one tar": ("source: webdataset, path: tars/a.tar, column: png", False),
}  # fmt: skip


@pytest.mark.parametrize(("data", "tested"), GOOD.values(), ids=GOOD)
def test_all_give_the_same_samples(
    data: str, tested: bool, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kept)
    found = samples(kept, data)
    n = len(found.dataset)
    assert n in (30, 40, 60)
    np.testing.assert_array_equal(found.dataset.inputs, IMAGES[:n].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found.labels, LABELS[:n])
    (point,) = checked(kept / "spec.yaml")[1]
    if tested:
        test = load_test(point.data, 0)
        np.testing.assert_array_equal(test.labels, LABELS[: len(test)])
    else:
        with pytest.raises(PointError, match="no test set"):
            load_test(point.data, 0)


def test_arrays_on_the_disk_stay_there(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept)
    mapped = samples(kept, "source: arrays, path: x.npy, target: y.npy").dataset.inputs
    assert isinstance(mapped, np.memmap)
    floats = samples(kept, "source: arrays, path: floats.npy, target: y.npy").dataset.inputs
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, IMAGES.transpose(0, 3, 1, 2))
    vectors = samples(kept, "source: hugging_face, path: hfv, column: v").dataset
    assert vectors.shape == (8,)


BAD = {
    "no file": ("source: arrays, path: nowhere.npz", "file not found .nowhere.npz"),
    "no archive": ("source: arrays, path: text.npz", "text.npz: cannot be read as an .npz file"),
    "no array": ("source: arrays, path: keras.npz, column: z", "no array z; it has x_train, y"),
    "no usual one": ("source: arrays, path: odd.npz", "has no array x_train or .*; it has a, b, c"),
    "lengths": ("source: arrays, path: odd.npz, column: a, target: b", "do not match"),
    "nan": ("source: arrays, path: odd.npz, column: a, target: c", "60 of 60 labels are missing"),
    "no target": ("source: arrays, path: x.npy", "data.target: is required with a .npy"),
    "half a test": ("source: arrays, path: x.npy, target: y.npy, test_column: x.npy",
                    "give both or neither"),
    "infinite": ("source: arrays, path: infinite.npy, target: y.npy", "infinite numbers"),
    "resized": ("source: arrays, path: floats.npy, target: y.npy, side: 4", "images of float32"),
    "no column": ("source: image_table, path: parquet, target: t", "no column t; it has image"),
    "no bytes": ("source: image_table, path: parquet, column: n", "row 0: n is int, not"),
    "no split": ("source: image_table, path: parquet, split: dev", r"has no file dev\*\.parquet"),
    "damaged": ("source: image_table, path: damaged.parquet",
                "damaged.parquet, row 5: cannot be read as an image"),
    "missing": ("source: image_table, path: lost.parquet", "1 of 3 labels are missing"),
    "no parquet": ("source: image_table, path: broken.tar", "cannot be read as Parquet"),
    "hf: none": ("source: hugging_face, path: tars", "is neither a `Dataset` directory"),
    "hf: column": ("source: hugging_face, path: hf, target: y", "no column y; it has image, label"),
    "hf: split": ("source: hugging_face, path: hf, split: dev", "no split dev; it has train, test"),
    "hf: fractions": ("source: hugging_face, path: hf, target: v", "whole numbers or text, not 1"),
    "tar: none": ("source: webdataset, path: hf", "is neither a .tar file nor a folder"),
    "tar: broken": ("source: webdataset, path: broken.tar", "cannot be read as a tar file"),
    "tar: cut": ("source: webdataset, path: cut.tar", "as a tar file .unexpected end"),
    "npz: damaged": ("source: arrays, path: keras_damaged.npz", "x_train: cannot .* .Bad CRC-32"),
    "npz: deflated, damaged": ("source: arrays, path: deflated_damaged.npz", r"x: .*\((Bad|Error)"),
    "hf: damaged": ("source: hugging_face, path: hf_damaged", "set of save_to_disk .*offset"),
    "tar: no class": ("source: webdataset, path: no_class.tar", "has no KEY.cls"),
    "tar: twice": ("source: webdataset, path: two.tar", "a key has several images"),
    "tar: no image": ("source: webdataset, path: tars/a.tar, column: jpg", "0000: has no image"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line(
    data: str, message: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kept)
    with pytest.raises(PointError, match=message) as caught:
        samples(kept, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [data for data, _ in GOOD.values()][::3])
def test_all_can_be_packed(
    data: str, kept: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = dict(pair.split(": ") for pair in data.split(", "))
    source = keys.pop("source")
    keys["path"] = str(kept / keys["path"])
    sets = [word for key, value in keys.items() for word in ("--set", f"data.{key}={value}")]
    cli("data", "prepare", source, *sets, "--out", "o.packed")
    monkeypatch.chdir(kept)
    plain = samples(kept, data)
    keys["path"] = str(tmp_path / "o.packed")
    again = samples(kept, ", ".join(f"{k}: {v}" for k, v in (keys | {"source": source}).items()))
    assert again.fingerprint == plain.fingerprint


SET = """\
import numpy as np
from PIL import Image


class Set:
    def __init__(self, size=40):
        self.size, self.draw = size, np.random.default_rng(0)

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        pixels = self.draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels), i % 4
"""


def test_a_data_set_that_is_indexed(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for each sample once, and packed under its name, where a sweep finds it."""
    (tmp_path / "sets.py").write_text(SET)
    said = cli("data", "prepare", "sets:Set", "--set", "data.kwargs.size=30").stdout
    assert "data/sets:Set.packed: valid, 30 samples of 3x8x8" in said
    monkeypatch.chdir(tmp_path)
    found = samples(tmp_path, "source: 'sets:Set', kwargs: {size: 30}")
    assert "sets:Set.packed" in found.dataset.name
    assert len(samples(tmp_path, "source: 'sets:Set'").dataset) == 40

    tensors = torch.utils.data.TensorDataset(torch.zeros(5, 3), torch.arange(5))
    inputs, labels = arrays_of("x", tensors)
    assert (inputs.shape, labels.tolist()) == ((5, 3), [0, 1, 2, 3, 4])
    with pytest.raises(PointError, match="sample 0 is a Tensor, not"):
        arrays_of("x", _Alone())


class _Alone:
    """A data set without labels."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.zeros(3)


def test_a_frame_of_images_from_python() -> None:
    frame = pd.DataFrame({"image": [png(image) for image in IMAGES], "label": LABELS})
    inputs, labels = arrays_of("data", (frame["image"], frame["label"]))
    np.testing.assert_array_equal(inputs, IMAGES.transpose(0, 3, 1, 2))
    grey = [Image.fromarray(image[..., 0]) for image in IMAGES]
    assert arrays_of("data", (grey, labels))[0].shape == (60, 1, 6, 8)
    numbers = frame[["label"]].assign(b=1.5)
    assert arrays_of("data", (numbers, frame["label"]))[0].shape == (60, 2)
    with pytest.raises(InputError, match=r"row 1: cannot be read as an image"):
        flexhpc.measure("linear", ([png(IMAGES[0]), b"none"], [0, 1]))


def test_validate_opens_the_file(kept: Path, cli: Cli) -> None:
    data = f"source: arrays, path: {kept}/odd.npz"
    spec = written(kept / "look.yaml", SPEC.format(data))
    assert "has no array x_train" in cli("validate", spec, check=2).stderr
