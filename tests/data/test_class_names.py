"""What classes are called: as the files say it, also once they are packed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flexhpc.data.prepare import prepare
from flexhpc.data.sources import open_source
from tests.data.test_formats import png, write_tar
from tests.data.test_packed import quiet, section, write_sources
from tests.data.writers import RNG, write_images

FINE = [f"thing_{i}" for i in range(100)]
PETS = ["cat", "cat", "dog", "cat"]


def write(folder: Path) -> dict[str, tuple[dict[str, Any], list[str] | None]]:
    """Write a set of each kind; returns the keys that read it, and what its classes are called."""
    images = RNG.integers(0, 255, (4, 6, 8, 3), dtype=np.uint8)
    write_sources(folder)
    write_images(folder / "pictures", {"night": 2, "day": 3})
    shutil.copytree(folder / "mnist", folder / "fashion_mnist")
    for name, names in (("fine", FINE), ("odd", FINE[:-1])):
        shutil.copytree(folder / "cifar100", folder / name)
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
    write_images(folder / "latin", {os.fsdecode(b"caf\xe9"): 2, "<b>": 2})
    import datasets

    weather = datasets.ClassLabel(names=["sun", "rain", "snow"])
    feature = datasets.Features({"image": datasets.Value("binary"), "label": weather})
    for name, seen in (("hf", [1, 0, 1, 0]), ("some", [2, 0, 2, 0]), ("none", [-1, 1, 1, -1])):
        cells = {"image": [png(image) for image in images], "label": seen}
        whole = datasets.Dataset.from_dict(cells, features=feature)
        whole.cast_column("image", datasets.Image()).save_to_disk(folder / name)
    return {
        "folders": ({"source": "image_folder", "root": "pictures"}, ["day", "night"]),
        "digits of MNIST": ({"source": "mnist", "root": "mnist"}, None),
        "Fashion-MNIST": ({"source": "fashion_mnist", "root": "fashion_mnist"}, ["T-shirt/top"]),
        "CIFAR-10": ({"source": "cifar10", "root": "cifar10"}, ["airplane"]),
        "CIFAR-100": ({"source": "cifar100", "root": "fine"}, FINE),
        "CIFAR-100 without names": ({"source": "cifar100", "root": "cifar100"}, None),
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


def test_classes_are_called_as_their_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for what, (keys, expected) in write(tmp_path).items():
        source = open_source(section(**keys), 0)
        names = source.class_names
        assert list(names or ())[: len(expected or [])] == (expected or []), what
        assert names is None or len(names) == source.classes, what
        assert (names is None) == (expected is None), what
        given = {key: value for key, value in keys.items() if key != "source"}
        packed = prepare(keys["source"], given, (), tmp_path / f"{what}.packed", quiet)
        assert packed.source.class_names == names, what
