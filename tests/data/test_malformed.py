"""Malformed files: each ends in one error message, before the whole file is read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from flexhpc.data import load_samples
from flexhpc.errors import PointError
from flexhpc.spec import checked
from tests.conftest import Cli
from tests.data.test_uci import covtype_rows, write_covtype_cache
from tests.data.writers import write_cifar5m, write_images


def message(folder: Path, data: str) -> str:
    """Return the error of a data section; {} stands for the folder."""
    spec = folder / "spec.yaml"
    section = data.replace("{}", str(folder))
    spec.write_text(f"name: x\nfixed:\n  data: {{{section}}}\n  model: {{family: linear}}\n")
    (point,) = checked(spec)[1]
    with pytest.raises(PointError) as caught:
        load_samples(point.data, point.seed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PIPES = {
    "table": ("pipe", "source: table, path: '{}/pipe', target: y"),
    "packed": ("pipe", "source: image_folder, root: '{}/pipe'"),
    "image_folder": ("images/a/9.png", "source: image_folder, root: '{}/images'"),
    "labels in .npy": ("y.npy", "source: arrays, path: '{}/x.npy', target: y.npy"),
    "image_table": ("rows/a.parquet", "source: image_table, path: '{}/rows'"),
    "webdataset": ("tars/a.tar", "source: webdataset, path: '{}/tars'"),
    "hugging_face": ("hf/state.json", "source: hugging_face, path: '{}/hf'"),
    "cifar5m": ("parts/part1.npz", "source: cifar5m, root: '{}/parts'"),
    "targets of covtype": ("covertype/targets_py3", "source: covtype, root: '{}'"),
}
"""The pipe, and a section that reads it."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("pipe", "data"), PIPES.values(), ids=PIPES)
def test_a_named_pipe_is_refused(pipe: str, data: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 2, "b": 2})
    write_cifar5m(tmp_path / "parts", {0: 2})
    write_covtype_cache(tmp_path, covtype_rows())
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    path = tmp_path / pipe
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    problem = message(tmp_path, data)
    assert pipe.partition("/")[0] in problem
    assert re.search("not a regular file|no file|no .tar file|not a folder", problem)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [("data", "check"), ("unpack",)])
def test_a_named_pipe_is_refused_by_commands(
    command: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = cli(*command, tmp_path / "pipe", check=None)
    assert done.returncode in (1, 2)
    assert "is not a regular file; replace it with one" in done.stderr
