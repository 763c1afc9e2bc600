"""Names of classes: read from the files of each source, and kept in packed files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flexhpc.data.prepare import pack_data_set
from tests.data.test_formats import encode_png, write_tar
from tests.data.test_packed import write_sources
from tests.data.writers import RNG, load, write_images

FINE = [f"thing_{i}" for i in range(100)]
PETS = ["cat", "cat", "dog", "cat"]
CASES: dict[str, tuple[str, str, str, list[str] | None]] = {
    "folders": ("image_folder", "root", "pictures", ["day", "night"]),
    "folders, not Unicode": ("image_folder", "root", "latin", ["<b>", "caf?"]),
    "MNIST": ("mnist", "root", "mnist", None),
    "Fashion-MNIST": ("fashion_mnist", "root", "fashion_mnist", ["T-shirt/top"]),
    "CIFAR-10": ("cifar10", "root", "cifar10", ["airplane"]),
    "CIFAR-5m": ("cifar5m", "root", "cifar5m", ["airplane"]),
    "CIFAR-100": ("cifar100", "root", "fine", FINE),
    "CIFAR-100 without names": ("cifar100", "root", "cifar100", None),
    "CIFAR-100 with 99 names": ("cifar100", "root", "incomplete", None),
    "npz, text": ("arrays", "path", "text.npz", ["cat", "dog"]),
    "npz, bytes": ("arrays", "path", "bytes.npz", ["a", "b\N{REPLACEMENT CHARACTER}"]),
    "npz, 3 and 7": ("arrays", "path", "gaps.npz", ["3", "7"]),
    "npz, 3.0 and 7.0": ("arrays", "path", "floats.npz", ["3", "7"]),
    "npz, 0 and 1": ("arrays", "path", "plain.npz", None),
    "WebDataset, numbers": ("webdataset", "path", "a.tar", None),
    "WebDataset, text": ("webdataset", "path", "text.tar", ["cat", "dog"]),
    "Parquet": ("image_table", "path", "pets.parquet", ["cat", "dog"]),
    "Hugging Face": ("hugging_face", "path", "hf", ["sun", "rain"]),
    "Hugging Face, unused class": ("hugging_face", "path", "gap", ["sun", "snow"]),
    "Hugging Face, label -1": ("hugging_face", "path", "minus", ["-1", "rain"]),
}  # fmt: skip
"""Source, location key, location, and the first names of the classes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of all cases."""
    import datasets

    folder = tmp_path_factory.mktemp("classes")
    images = RNG.integers(0, 255, (4, 6, 8, 3), dtype=np.uint8)
    write_sources(folder)
    write_images(folder / "pictures", {"night": 2, "day": 3})
    write_images(folder / "latin", {os.fsdecode(b"caf\xe9"): 2, "<b>": 2})
    for name, names in (("fine", FINE), ("incomplete", FINE[:-1])):
        shutil.copytree(folder / "cifar100", folder / name)
        path = folder / name / "cifar-100-binary" / "fine_label_names.txt"
        path.write_text("\n".join(names) + "\n")
    for name, labels in {
        "text": PETS, "bytes": [b"a", b"b\xe9", b"a", b"a"], "gaps": [3, 7, 3, 7],
        "floats": [3.0, 7.0, 3.0, 7.0], "plain": [0, 1, 0, 1],
    }.items():  # fmt: skip
        np.savez(folder / f"{name}.npz", x=images, y=np.array(labels))
    write_tar(folder / "a.tar", range(6))
    write_tar(folder / "text.tar", range(4), labels=PETS)
    encoded = [encode_png(image) for image in images]
    pd.DataFrame({"image": encoded, "label": PETS}).to_parquet(folder / "pets.parquet")
    weather = datasets.ClassLabel(names=["sun", "rain", "snow"])
    features = datasets.Features({"image": datasets.Value("binary"), "label": weather})
    for name, ids in (("hf", [1, 0, 1, 0]), ("gap", [2, 0, 2, 0]), ("minus", [-1, 1, 1, -1])):
        data_set = datasets.Dataset.from_dict({"image": encoded, "label": ids}, features=features)
        data_set.cast_column("image", datasets.Image()).save_to_disk(folder / name)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_class_names_are_read_and_packed(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    source, key, location, expected = CASES[case]
    samples = load(source, **{key: location})
    names = samples.class_names
    if expected is None:
        assert names is None
    else:
        assert names is not None
        assert list(names)[: len(expected)] == expected
        assert len(names) == samples.classes
    packed = pack_data_set(source, {key: location}, out=tmp_path / "x.packed")
    packed_samples = load(source, **{key: packed.path})
    assert packed_samples.class_names == names
    assert packed_samples.fingerprint == samples.fingerprint
