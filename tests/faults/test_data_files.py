"""Data files that are made to harm: one line, and no byte of them is taken for an address."""

from __future__ import annotations

import hashlib
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from flexhpc.data.dataset import Part, Source, no_test
from flexhpc.data.pack import pack
from flexhpc.data.packed import MAGIC, PREFIX, open_packed
from flexhpc.data.safe_pickle import read_joblib, unpickle
from flexhpc.errors import PointError


class Calls:
    """Pickled, it is a call of whatever is named."""

    def __init__(self, what: Any, *given: Any) -> None:
        self.call = what, given

    def __reduce__(self) -> Any:
        return self.call


def built(kind: Any, *state: Any) -> Any:
    """Pickled, it is an array or a type with a state of its own."""

    class Built:
        def __reduce__(self) -> Any:
            return kind[0], kind[1:], state

    return Built()


RECONSTRUCT = np.zeros(1).__reduce__()[0]
EMPTY = (RECONSTRUCT, np.ndarray, (0,), b"b")
HOSTILE: dict[str, Any] = {
    "raw memory as objects": Calls(np.ndarray, (1,), "O", b"A" * 8),
    "raw memory": Calls(np.ndarray, (8,), "u1", b"A" * 8),
    "objects": np.array([{}, 1], dtype=object),
    "bytes as objects": built(EMPTY, 1, (1,), np.dtype("O"), False, b"A" * 8),
    "a type with fields": np.zeros(2, [("a", "i4"), ("b", "O")]),
    "a type that becomes objects": built(
        EMPTY, 1, (1,), built((np.dtype, "V8", False, True), 3, "|", None, ("a",),
                              {"a": (np.dtype("O"), 0)}, 8, 1, 63), False, b"A" * 8,
    ),
    "more than its bytes": built(EMPTY, 1, (10**9,), np.dtype("u1"), False, b"A" * 8),
    "less than its bytes": built(EMPTY, 1, (-1, 3), np.dtype("u1"), False, b"A" * 8),
    "a scalar of objects": Calls(np.float64(1).__reduce__()[0], np.dtype("O"), b"A" * 8),
    "a call": Calls(print, "the pickle was run"),
    "a bomb in another coding": Calls(__import__("codecs").encode, "x", "zip"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_no_pickle_makes_anything_but_arrays(
    what: str, protocol: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": HOSTILE[what]}, protocol=protocol))
    for read in (unpickle, read_joblib):
        with pytest.raises(Exception, match=r".") as caught:
            read(path)
        assert not isinstance(caught.value, MemoryError)
    assert "was run" not in capsys.readouterr().out


def test_plain_arrays_are_read_from_every_protocol(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    held = {
        "data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2],
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "scalar": np.float32(3),
        "texts": np.array(["ab", "c"]), "big endian": np.arange(3, dtype=">i4"),
        "bools": np.array([True, False]), "none": np.zeros((0, 3)),
    }  # fmt: skip
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(held, protocol=protocol))
        found = unpickle(path)
        for key, value in held.items():
            np.testing.assert_array_equal(found[key], value)
    for array in (held["data"], held["fortran"], held["big endian"]):
        for compress in (0, 3, ("gzip", 3)):
            joblib.dump(array, path, compress=compress)
            np.testing.assert_array_equal(read_joblib(path), array)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path, packer = tmp_path / "samples", zlib.compressobj(9)
    zeros = bytes(2**24)
    path.write_bytes(b"".join(packer.compress(zeros) for _ in range(70)) + packer.flush())
    with pytest.raises(ValueError, match="larger than a gigabyte"):
        read_joblib(path)


def objects(header: dict[str, Any]) -> None:
    header["arrays"]["inputs"][0] = "|O"


def beyond_the_end(header: dict[str, Any]) -> None:
    header["arrays"]["inputs"][1][0] = 10**12


def in_the_header(header: dict[str, Any]) -> None:
    header["arrays"]["labels"][2] = 0


def a_negative_size(header: dict[str, Any]) -> None:
    header["arrays"]["labels"][1] = [-4]


def no_arrays(header: dict[str, Any]) -> None:
    header["arrays"] = []


def no_labels(header: dict[str, Any]) -> None:
    del header["arrays"]["labels"]


def one_class(header: dict[str, Any]) -> None:
    header["classes"] = 1


def text_as_classes(header: dict[str, Any]) -> None:
    header["classes"] = "[/]"


@pytest.mark.parametrize(
    "change",
    [objects, beyond_the_end, in_the_header, a_negative_size, no_arrays, no_labels, one_class,
     text_as_classes],
)  # fmt: skip
def test_a_packed_header_of_wrong_content_is_one_line(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    """Whoever changes a header can make its checksum, too."""
    path = tmp_path / "some.packed"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (20, 1, 8, 8), dtype=np.uint8)
    train = Part.of(images, np.arange(20) % 4)
    pack(Source(name="some", classes=4, train=train, test=no_test), {"source": "some"}, path)
    open_packed(path)
    content = path.read_bytes()
    _, length, _ = PREFIX.unpack(content[: PREFIX.size])
    header = json.loads(content[PREFIX.size : PREFIX.size + length])
    change(header)
    text = json.dumps(header).encode().ljust(length)
    assert len(text) == length
    digest = hashlib.sha256(text).digest()
    path.write_bytes(PREFIX.pack(MAGIC, length, digest) + text + content[PREFIX.size + length :])
    with pytest.raises(PointError) as caught:
        open_packed(path)
    assert "\n" not in str(caught.value)
