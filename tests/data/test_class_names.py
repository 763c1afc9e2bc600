"""What classes are called: as the files say it, also once they are packed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flexhpc.data.prepare import prepare
from flexhpc.data.sources import open_source
from tests.data.test_formats import png, write_tar
from tests.data.test_packed import quiet, section
from tests.data.writers import (
    RNG,
    cifar_batch,
    write_cifar5m,
    write_cifar10,
    write_cifar100,
    write_images,
    write_mnist,
)

FINE = [f"thing_{i}" for i in range(100)]
PETS = ["cat", "cat", "dog", "cat"]


def write(folder: Path) -> dict[str, tuple[dict[str, Any], list[str] | None]]:
    """Write a set of each kind; returns the keys that read it, and what its classes are called."""
    images = RNG.integers(0, 255, (4, 6, 8, 3), dtype=np.uint8)
    write_images(folder / "images", {"night": 2, "day": 3})
    grey = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for name in ("mnist", "fashion_mnist"):
        labels = np.arange(20, dtype=np.uint8) % 10
        write_mnist(folder / name, zipped=False, images=grey, labels=labels)
    write_cifar10(folder / "cifar10", [cifar_batch(4, "labels", 10) for _ in range(5)])
    for name, names in (("cifar100", FINE), ("nameless", None), ("odd", FINE[:-1])):
        write_cifar100(folder / name, cifar_batch(50, "fine_labels", 100))
        if names is not None:
            path = folder / name / "cifar-100-binary" / "fine_label_names.txt"
            path.write_text("\n".join(names) + "\n")
    np.savez(folder / "text.npz", x=images, y=np.array(PETS))
    np.savez(folder / "odd.npz", x=images, y=np.array([3, 7, 3, 7]))
    np.savez(folder / "plain.npz", x=images, y=np.array([0, 1, 0, 1]))
    write_tar(folder / "a.tar", range(6))
    write_tar(folder / "text.tar", range(4), labels=PETS)
    np.savez(folder / "floats.npz", x=images, y=np.array([3.0, 7.0, 3.0, 7.0]))
    np.savez(folder / "bytes.npz", x=images, y=np.array([b"a", b"b\xe9", b"a", b"a"]))
    pd.DataFrame({"image": [png(image) for image in images], "label": PETS}).to_parquet(
        folder / "pets.parquet"
    )
    write_cifar5m(folder / "cifar5m", {0: 5})
    write_images(folder / "latin", {os.fsdecode(b"caf\xe9"): 2, "<b>": 2})
    import datasets

    weather = datasets.ClassLabel(names=["sun", "rain", "snow"])
    feature = datasets.Features({"image": datasets.Value("binary"), "label": weather})
    for name, seen in (("hf", [1, 0, 1, 0]), ("some", [2, 0, 2, 0]), ("none", [-1, 1, 1, -1])):
        cells = {"image": [png(image) for image in images], "label": seen}
        whole = datasets.Dataset.from_dict(cells, features=feature)
        whole.cast_column("image", datasets.Image()).save_to_disk(folder / name)
    return {
        "folders": ({"source": "image_folder", "root": "images"}, ["day", "night"]),
        "digits of MNIST": ({"source": "mnist", "root": "mnist"}, None),
        "Fashion-MNIST": ({"source": "fashion_mnist", "root": "fashion_mnist"}, ["T-shirt/top"]),
        "CIFAR-10": ({"source": "cifar10", "root": "cifar10"}, ["airplane"]),
        "CIFAR-100": ({"source": "cifar100", "root": "cifar100"}, FINE),
        "CIFAR-100 without names": ({"source": "cifar100", "root": "nameless"}, None),
        "CIFAR-100 with too few": ({"source": "cifar100", "root": "odd"}, None),
        "text": ({"source": "arrays", "path": "text.npz"}, ["cat", "dog"]),
        "some numbers": ({"source": "arrays", "path": "odd.npz"}, ["3", "7"]),
        "0 and 1": ({"source": "arrays", "path": "plain.npz"}, None),
        "WebDataset": ({"source": "webdataset", "path": "a.tar"}, None),
        "WebDataset of text": ({"source": "webdataset", "path": "text.tar"}, ["cat", "dog"]),
        "floats": ({"source": "arrays", "path": "floats.npz"}, ["3", "7"]),
        "bytes": ({"source": "arrays", "path": "bytes.npz"}, ["a", "b\N{REPLACEMENT CHARACTER}"]),
        "Parquet": ({"source": "image_table", "path": "pets.parquet"}, ["cat", "dog"]),
        "CIFAR-5m": ({"source": "cifar5m", "root": "cifar5m"}, ["airplane"]),
        "folders of no Unicode": ({"source": "image_folder", "root": "latin"}, ["<b>", "caf?"]),
        "some of Hugging Face": ({"source": "hugging_face", "path": "some"}, ["sun", "snow"]),
        "none of Hugging Face": ({"source": "hugging_face", "path": "none"}, ["-1", "rain"]),
        "Hugging Face": ({"source": "hugging_face", "path": "hf"}, ["sun", "rain"]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("named")


@pytest.fixture(scope="module")
def written(folder: Path) -> dict[str, tuple[dict[str, Any], list[str] | None]]:
    return write(folder)


def test_classes_are_called_as_their_files_say(
    folder: Path,
    written: dict[str, tuple[dict[str, Any], list[str] | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    for what, (keys, expected) in written.items():
        source = open_source(section(**keys), 0)
        names = source.class_names
        assert list(names or ())[: len(expected or [])] == (expected or []), what
        assert names is None or len(names) == source.classes, what
        assert (names is None) == (expected is None), what
        given = {key: value for key, value in keys.items() if key != "source"}
        packed = prepare(keys["source"], given, (), folder / f"{what}.packed", quiet)
        assert packed.source.class_names == names, what
