"""Files in the exact format of every loader, as small as may be."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(
    folder: Path, *, zipped: bool, images: np.ndarray, labels: np.ndarray, part: str = "train"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx(array)
        path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)


def cifar_batch(n: int, key: str, classes: int) -> dict:
    data = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": data, key: RNG.integers(0, classes, n).tolist(), "filenames": ["x"] * n}


def write_cifar10(folder: Path, batches: list, test: dict | None = None) -> None:
    inner = folder / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    for i, batch in enumerate(batches, 1):
        (inner / f"data_batch_{i}").write_bytes(pickle.dumps(batch, protocol=2))
    if test is not None:
        (inner / "test_batch").write_bytes(pickle.dumps(test, protocol=2))


def write_cifar100(folder: Path, train: dict, test: dict | None = None) -> None:
    inner = folder / "cifar-100-python"
    inner.mkdir(parents=True, exist_ok=True)
    (inner / "train").write_bytes(pickle.dumps(train, protocol=2))
    if test is not None:
        (inner / "test").write_bytes(pickle.dumps(test, protocol=2))


def write_images(folder: Path, classes: dict[str, int], size: tuple[int, int] = (6, 5)) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")


def write_cifar5m(folder: Path, counts: dict[int, int], name: str = "cifar5m_part{}.npz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in counts.items():
        images = RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / name.format(number), X=images, Y=RNG.integers(0, 10, count))


def biff2(rows: list[list[str | float]]) -> bytes:
    """Return a worksheet as Excel 2 wrote it, which every reader of .xls still takes."""
    records = [struct.pack("<HHHH", 0x0009, 4, 2, 0x10)]
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            cell = struct.pack("<HH3x", y, x)
            if isinstance(value, str):
                content = cell + bytes([len(value)]) + value.encode("latin1")
                records.append(struct.pack("<HH", 0x0004, len(content)) + content)
            else:
                records.append(struct.pack("<HH", 0x0003, 15) + cell + struct.pack("<d", value))
    return b"".join(records) + struct.pack("<HH", 0x000A, 0)
