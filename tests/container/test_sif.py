"""The Apptainer image: made from the other one, tested, and a sweep inside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.container.conftest import QUICKSTART, Built, Site, images_of, write_tiny
from tests.sweeps import results_by_point


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.timeout(1800)  # the image is made for it
def test_exec_runs_the_quickstart(
    site: Site, image: Built, sif: Path, outside: dict[str, object], tmp_path: Path
) -> None:
    """As it is typed by hand: nobody says which file it is, so it names what it was made from."""
    output = site.run(
        "apptainer", "exec", *site.apptainer_flags, str(sif), "flexhpc", "sweep",
        "sweeps/quickstart.yaml", "--set", QUICKSTART, "--runs", str(tmp_path),
    ).stdout  # fmt: skip
    assert ">= 1797" in output
    assert results_by_point(tmp_path / "quickstart") == outside
    assert images_of(tmp_path / "quickstart") == {f"{image.name}@{image.id}"}


def test_its_own_test_passes(site: Site, sif: Path) -> None:
    output = site.run("apptainer", "test", *site.apptainer_flags, str(sif)).stdout
    assert "torch" in output
    assert not [line for line in output.splitlines() if line.startswith("bad")]


def test_labels_are_those_of_the_image(site: Site, image: Built, sif: Path) -> None:
    labels = json.loads(site.run("apptainer", "inspect", "--json", str(sif)).stdout)
    mine = labels["data"]["attributes"]["labels"]
    (found,) = json.loads(site.run("podman", "image", "inspect", image.name).stdout)
    theirs = {k: v for k, v in found["Labels"].items() if k.startswith("org.opencontainers.")}
    assert theirs
    assert {name: mine[name] for name in theirs} == theirs
    assert mine["flexhpc.image"] == f"{image.name}@{image.id}"


def test_make_local_with_apptainer(site: Site, sif: Path, tmp_path: Path) -> None:
    """In a network namespace of its own where that can be had, and with the file's own hash."""
    spec = write_tiny(tmp_path, "tiny")
    flags = " ".join(site.apptainer_flags)
    site.make("local", SPEC=str(spec), RUNTIME="apptainer", RUN_FLAGS=flags)
    run = site.checkout / "runs" / "tiny"
    assert images_of(run) == {f"flexhpc.sif@sha256:{sha256(sif)}"}
