"""The Apptainer image: its labels and its test, and sweeps in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.container.conftest import (
    QUICKSTART_WIDTHS,
    BuildSite,
    Image,
    images_of,
    write_small_spec,
)
from tests.sweeps import results_by_point


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.timeout(1800)  # includes the build of the image
def test_results_of_apptainer_exec_are_the_same_as_without_a_container(
    site: BuildSite, image: Image, sif: Path, results_without_container: dict[str, object],
    tmp_path: Path,
) -> None:  # fmt: skip
    """The probes record the image from which the SIF file was built."""
    output = site.run(
        "apptainer", "exec", *site.apptainer_flags, str(sif), "flexhpc", "sweep",
        "sweeps/quickstart.yaml", "--set", QUICKSTART_WIDTHS, "--runs", str(tmp_path),
    ).stdout  # fmt: skip
    assert ">= 1797" in output
    assert results_by_point(tmp_path / "quickstart") == results_without_container
    assert images_of(tmp_path / "quickstart") == {f"{image.name}@{image.id}"}


def test_the_test_of_the_image_passes(site: BuildSite, sif: Path) -> None:
    output = site.run("apptainer", "test", *site.apptainer_flags, str(sif)).stdout
    assert "torch" in output
    assert not [line for line in output.splitlines() if line.startswith("bad")]


def test_labels_of_the_image_are_kept(site: BuildSite, image: Image, sif: Path) -> None:
    sif_settings = json.loads(site.run("apptainer", "inspect", "--json", str(sif)).stdout)
    labels = sif_settings["data"]["attributes"]["labels"]
    (settings,) = json.loads(site.run("podman", "image", "inspect", image.name).stdout)
    expected = {k: v for k, v in settings["Labels"].items() if k.startswith("org.opencontainers.")}
    assert expected
    assert expected.items() <= labels.items()
    assert labels["flexhpc.image"] == f"{image.name}@{image.id}"


def test_make_local_records_the_hash_of_the_sif_file(
    site: BuildSite, sif: Path, tmp_path: Path
) -> None:
    spec = write_small_spec(tmp_path, "small")
    flags = " ".join(site.apptainer_flags)
    site.make("local", SPEC=str(spec), RUNTIME="apptainer", RUN_FLAGS=flags)
    run = site.checkout / "runs" / "small"
    assert images_of(run) == {f"flexhpc.sif@sha256:{sha256(sif)}"}
