"""Write small data sets in the format of every loader, and load them."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flexhpc.config.sections.data import Data
from flexhpc.config.variants import variants
from flexhpc.data import Samples, load_samples
from flexhpc.errors import PointError

RNG = np.random.default_rng(0)
UNPICKLED = Path("/tmp/flexhpc-unpickled")


def section(**keys: Any) -> Data:
    """Return a ``data`` section; paths are converted to text."""
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    data = variants("data")[keys["source"]].model_validate(texts)
    assert isinstance(data, Data)
    return data


def load(source: str, seed: int = 0, **keys: Any) -> Samples:
    """Load the samples of a ``data`` section with these keys."""
    return load_samples(section(source=source, **keys), seed)


@contextlib.contextmanager
def one_line_error(pattern: str) -> Iterator[None]:
    """Expect a PointError whose message matches a pattern and is one line."""
    with pytest.raises(PointError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)


class Malicious:
    """Object that creates the file ``UNPICKLED`` when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {UNPICKLED}",)


def encode_idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(
    folder: Path, *, zipped: bool, images: np.ndarray, labels: np.ndarray, split: str = "train"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = encode_idx(array)
        path = folder / f"{split}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)


def cifar_batch(n: int, key: str, classes: int) -> dict:
    data = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": data, key: RNG.integers(0, classes, n).tolist()}


def write_cifar10(folder: Path, batches: list, test: dict | None = None) -> None:
    """Write batches in the binary format: per image one byte for the label, then the pixels."""
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)]
    for name, batch in zip([*names, "test_batch"], [*batches, test], strict=True):
        if batch is not None:
            rows = np.c_[batch["labels"], batch["data"]].astype(np.uint8)
            (inner / f"{name}.bin").write_bytes(rows.tobytes())


def write_cifar100(folder: Path, train: dict, test: dict | None = None) -> None:
    """Write batches in the binary format; by default, the super-class of class k is k // 5."""
    inner = folder / "cifar-100-binary"
    inner.mkdir(parents=True, exist_ok=True)
    for name, batch in (("train", train), ("test", test)):
        if batch is not None:
            fine = np.array(batch["fine_labels"])
            coarse = batch.get("coarse_labels", fine // 5)
            rows = np.c_[coarse, fine, batch["data"]].astype(np.uint8)
            (inner / f"{name}.bin").write_bytes(rows.tobytes())


def write_images(folder: Path, classes: dict[str, int], size: tuple[int, int] = (6, 5)) -> None:
    """Write this number of random images (width, height) per class, FOLDER/CLASS/000.png etc."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")


def write_cifar5m(folder: Path, counts: dict[int, int], name: str = "cifar5m_part{}.npz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in counts.items():
        images = RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / name.format(number), X=images, Y=RNG.integers(0, 10, count))


def tar_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def encode_xls(rows: list[list[str | float]]) -> bytes:
    """Return an Excel 97 workbook: BIFF8 records of one sheet in an OLE container."""
    cells = b"".join(
        _cell(y, x, value) for y, row in enumerate(rows) for x, value in enumerate(row)
    )
    sheet = _record(0x809, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0)) + cells
    head = _record(0x809, struct.pack("<HHHHII", 0x600, 0x05, 0, 0, 0, 0))
    name = _record(0x85, struct.pack("<IHBB", len(head) + 16 + 4, 0, 4, 0) + b"Data")
    return _ole(head + name + _record(0x0A, b"") + sheet + _record(0x0A, b""))


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def _cell(y: int, x: int, value: str | float) -> bytes:
    position = struct.pack("<HHH", y, x, 0)
    if isinstance(value, str):
        text = struct.pack("<HB", len(value), 0) + value.encode("latin1")
        return _record(0x204, position + text)
    return _record(0x203, position + struct.pack("<d", value))


def _ole(stream: bytes) -> bytes:
    """Return a compound file with one stream; sector 0 is the FAT, sector 1 the directory."""
    stream = stream.ljust(max(4_096, -(-len(stream) // 512) * 512), b"\0")
    sectors = len(stream) // 512
    end, free = 0xFFFFFFFE, 0xFFFFFFFF
    fat = [0xFFFFFFFD, end, *range(3, 2 + sectors), end]
    entries = b""
    for name, kind, child, start, size in (
        ("Root Entry", 5, 1, end, 0), ("Workbook", 2, free, 2, len(stream)),
    ):  # fmt: skip
        text = name.encode("utf-16-le")
        entries += text.ljust(64, b"\0") + struct.pack(
            "<HBBIII36xIQ", len(text) + 2, kind, 1, free, free, child, start, size
        )
    header = struct.pack(
        "<8s16xHHHHH6xIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6,
        0, 1, 1, 0, 4_096, end, 0, end, 0,
    ) + struct.pack("<109I", 0, *[free] * 108)  # fmt: skip
    table = struct.pack("<128I", *fat, *[free] * (128 - len(fat)))
    return header + table + entries.ljust(512, b"\0") + stream


def write_text(path: Path, text: str) -> Path:
    """Write a text file; return its path."""
    path.write_text(text)
    return path
