"""The image of podman: its content, its layers, and sweeps in a container."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.archives import unpack
from tests.conftest import FLEXHPC, REPOSITORY
from tests.container.conftest import (
    QUICKSTART_WIDTHS,
    BuildSite,
    Image,
    images_of,
    write_small_spec,
)
from tests.sweeps import results_by_point

CODE_LAYERS = 2
"""Number of layers that depend on the code of flexhpc: its wheel, and the installed package."""


@pytest.mark.timeout(1800)  # includes the build of the image
def test_results_are_the_same_as_without_a_container(
    site: BuildSite, image: Image, results_without_container: dict[str, object]
) -> None:
    """Without network access. The same command again measures nothing."""
    quickstart = {"SPEC": "sweeps/quickstart.yaml", "SET": QUICKSTART_WIDTHS}
    output = site.make("local", **quickstart, RUN_FLAGS="--network none")
    assert ">= 1797" in output
    run = site.checkout / "runs" / "quickstart"
    assert results_by_point(run) == results_without_container
    assert images_of(run) == {f"{image.name}@{image.id}"}
    assert (run / "report" / "index.html").is_file()
    repeated = site.make("local", **quickstart)
    assert ">= 1797" in repeated
    status = subprocess.run(
        [str(FLEXHPC), "status", str(run), "--json"], capture_output=True, text=True, check=True
    )
    assert {row["state"] for row in json.loads(status.stdout)} == {"done"}


def test_files_belong_to_the_user_of_the_container(
    site: BuildSite, image: Image, tmp_path: Path
) -> None:
    for folder in ("runs", "data"):
        (tmp_path / folder).mkdir()
        os.chown(tmp_path / folder, 12345, 12345)
    write_small_spec(tmp_path, "small")
    local = site.checkout / "hpc" / "container" / "local.sh"
    site.run(str(local), "small.yaml", cwd=tmp_path, RUN_FLAGS="--user 12345:12345")
    owners = {path.stat().st_uid for path in (tmp_path / "runs").rglob("*")}
    assert owners == {12345}


def test_commands_run_with_a_read_only_root_file_system(site: BuildSite, image: Image) -> None:
    container = ["podman", "run", "--rm", "--read-only", "--network", "none", "--no-healthcheck"]
    doctor = site.run(*container, image.name, "doctor")
    assert "without torchvision and timm, only linear, mlp, cnn and custom" in doctor.stdout
    assert not [line for line in doctor.stdout.splitlines() if line.startswith("bad")]
    touch = ["--entrypoint", "touch", image.name, "/opt/flexhpc/x"]
    assert "Read-only file system" in site.run(*container, *touch, check=False).stderr
    user = site.run(*container, "--entrypoint", "id", image.name, "-un")
    assert user.stdout.strip() == "flexhpc"


def test_families_that_need_timm_are_rejected_and_others_are_trained(
    site: BuildSite, image: Image
) -> None:
    write_small_spec(site.checkout, "vit", "family: vit, width: 8, depth: 1, heads: 2, patch: 4")
    output = site.make("local", SPEC="vit.yaml", check=False)
    error = "model.family: this family needs timm and torchvision, which cannot be imported"
    assert error in output
    assert "Traceback" not in output
    write_small_spec(site.checkout, "cnn", "family: cnn, width: 2, depth: 2")
    site.make("local", SPEC="cnn.yaml")


def test_a_custom_network_next_to_the_spec_is_trained(site: BuildSite, image: Image) -> None:
    folder = site.checkout / "custom"
    write_small_spec(folder, "custom", "family: 'nets:net', kwargs: {width: 4}")
    (folder / "nets.py").write_text(
        "from torch import nn\n\n\ndef net(width):\n    return nn.Sequential("
        "nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))\n"
    )
    assert "310" in site.make("local", SPEC="custom/custom.yaml"), "number of parameters"


def test_labels_and_health_check(site: BuildSite, image: Image) -> None:
    (settings,) = json.loads(site.run("podman", "image", "inspect", image.name).stdout)
    labels = settings["Labels"]
    assert labels["org.opencontainers.image.title"] == "flexhpc"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", labels["org.opencontainers.image.revision"])
    assert settings["Config"]["Entrypoint"] == ["flexhpc"]
    assert settings["Healthcheck"]["Test"] == ["CMD", "flexhpc", "doctor"]


def host_names(site: BuildSite) -> set[str]:
    """Return the names of this host and of its package mirrors."""
    settings = site.run("python3", "-m", "pip", "config", "list").stdout
    apt = site.run("apt-get", "indextargets", "--format", "$(SITE)").stdout
    addresses = re.findall(r"https?://[^\s']+", settings + apt)
    hosts = {urlparse(address).hostname for address in addresses} - {None}
    # Names that occur in every Debian or pip do not identify this site.
    pip = find_spec("pip")
    assert pip is not None
    assert pip.origin is not None
    public = ["/usr/share/doc", "/usr/lib/python3", str(Path(pip.origin).parent)]
    private = {h for h in hosts if site.run("grep", "-rqF", h, *public, check=False).returncode}
    return {name for name in {*private, socket.gethostname()} if len(name) > 5}


def test_the_image_contains_no_names_or_secrets_of_the_build_site(
    site: BuildSite, image: Image, tmp_path: Path
) -> None:
    """In its history, its settings and the files of all layers."""
    history = site.run("podman", "history", "--no-trunc", "--format", "json", image.name).stdout
    settings = site.run("podman", "image", "inspect", image.name).stdout
    variables = site.run("podman", "run", "--rm", "--entrypoint", "env", image.name).stdout
    forbidden = [*image.secrets.values(), *host_names(site)]
    for text in (history, settings, variables):
        assert not [word for word in forbidden if word in text]

    archive, layers = tmp_path / "image.tar", tmp_path / "layers"
    site.run("podman", "save", "--output", str(archive), image.name)
    unpack(archive, layers)
    archive.unlink()
    patterns = tmp_path / "patterns"
    patterns.write_text("\n".join(forbidden))
    matches = site.run(
        "grep", "--recursive", "--text", "--fixed-strings", "--only-matching", "--file",
        str(patterns), str(layers), check=False,
    )  # fmt: skip
    assert matches.returncode == 1, matches.stdout[:2000]
    # Check that the search detects a text of the image.
    patterns.write_text("Measures how much data a neural network can fit")
    site.run("grep", "-r", "-a", "-q", "-F", "-f", str(patterns), str(layers))
    empty = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run/secrets/pipconf")
    for layer in layers.rglob("*.tar"):
        with tarfile.open(layer) as file:
            sizes = {member.name: member.size for member in file if member.name in empty}
        assert not any(sizes.values()), sizes
    shutil.rmtree(layers)


def test_a_change_of_the_code_rebuilds_only_its_layers(site: BuildSite, image: Image) -> None:
    tag = "localhost/flexhpc-changed"

    def build() -> float:
        started = time.monotonic()
        site.make("image", IMAGE=tag)
        return time.monotonic() - started

    def layers() -> list[str]:
        json_format = "{{json .RootFS.Layers}}"
        output = site.run("podman", "image", "inspect", "--format", json_format, tag).stdout
        ids: list[str] = json.loads(output)
        return ids

    without_secrets = build()  # the environment of a build does not affect the cache
    original = layers()
    unchanged = build()
    assert layers() == original
    source = site.checkout / "flexhpc" / "seeds.py"
    text = source.read_text()
    source.write_text(text + "\nCHANGED = True\n")
    try:
        changed = build()
    finally:
        source.write_text(text)
    print(
        f"build: {image.build_seconds:.0f} s; without a change: {without_secrets:.1f} s, "
        f"{unchanged:.1f} s; after a change of the code: {changed:.1f} s"
    )
    rebuilt = layers()
    assert rebuilt[:-CODE_LAYERS] == original[:-CODE_LAYERS]
    assert rebuilt[-1] != original[-1]
    output = site.run(
        "podman", "run", "--rm", "--entrypoint", "python", tag, "-c",
        "import flexhpc.seeds; print(flexhpc.seeds.CHANGED)",
    ).stdout  # fmt: skip
    assert output.strip() == "True"
    site.run("podman", "rmi", tag)


def test_a_build_without_enough_disk_space_fails_at_once(site: BuildSite) -> None:
    output = site.make("image", check=False, ROOM_GB="1000000")
    assert re.search(r": \d+ GB free, 1000000 GB required", output)


def test_docker_without_a_daemon_is_not_used(site: BuildSite, tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    client.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    pick = ("bash", "-c", ". hpc/container/lib.sh; pick_runtime docker podman")
    assert site.run(*pick, PATH=path, RUNTIME="").stdout.strip() == "podman"
    only_docker = site.run(*pick, check=False, PATH=path, RUNTIME="docker")
    assert only_docker.returncode == 1
    assert "docker: Cannot connect to the Docker daemon" in only_docker.stderr
    assert "hpc/container/packages.sh" in only_docker.stderr
