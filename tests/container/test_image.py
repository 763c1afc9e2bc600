"""The image of podman: what is in it, what is not, and a sweep inside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.archives import unpack
from tests.conftest import FLEXHPC
from tests.container.conftest import QUICKSTART, Built, Site, images_of, write_tiny
from tests.sweeps import results_by_point

CODE_LAYERS = 2
"""Number of layers that depend on the code of flexhpc: its wheel, and the installed package."""


@pytest.mark.timeout(1800)  # the image is built for it
def test_the_quickstart_inside_is_that_outside(
    site: Site, image: Built, outside: dict[str, object]
) -> None:
    """With no network, and a root file system that cannot be written to."""
    quickstart = {"SPEC": "sweeps/quickstart.yaml", "SET": QUICKSTART}
    printed = site.make("local", **quickstart, RUN_FLAGS="--network none")
    assert ">= 1797" in printed
    run = site.checkout / "runs" / "quickstart"
    assert results_by_point(run) == outside
    assert images_of(run) == {f"{image.name}@{image.id}"}
    assert (run / "report" / "index.html").is_file()
    again = site.make("local", **quickstart)
    assert ">= 1797" in again
    status = subprocess.run(
        [str(FLEXHPC), "status", str(run), "--json"], capture_output=True, text=True, check=True
    )
    assert {row["state"] for row in json.loads(status.stdout)} == {"done"}


def test_files_belong_to_the_user_whoever_that_is(site: Site, image: Built, tmp_path: Path) -> None:
    for folder in ("runs", "data"):
        (tmp_path / folder).mkdir()
        os.chown(tmp_path / folder, 12345, 12345)
    write_tiny(tmp_path, "tiny")
    local = site.checkout / "hpc" / "container" / "local.sh"
    site.run(str(local), "tiny.yaml", cwd=tmp_path, RUN_FLAGS="--user 12345:12345")
    owners = {path.stat().st_uid for path in (tmp_path / "runs").rglob("*")}
    assert owners == {12345}


def test_a_root_that_cannot_be_written_to(site: Site, image: Built) -> None:
    where = ["podman", "run", "--rm", "--read-only", "--network", "none", "--no-healthcheck"]
    doctor = site.run(*where, image.name, "doctor")
    assert "without torchvision and timm, only linear, mlp and cnn" in doctor.stdout
    assert not [line for line in doctor.stdout.splitlines() if line.startswith("bad")]
    written = site.run(*where, "--entrypoint", "touch", image.name, "/opt/flexhpc/x", check=False)
    assert "Read-only file system" in written.stderr
    user = site.run(*where, "--entrypoint", "id", image.name, "-un")
    assert user.stdout.strip() == "flexhpc"


def test_a_family_that_needs_timm_is_one_clear_line_and_a_cnn_is_trained(
    site: Site, image: Built
) -> None:
    write_tiny(site.checkout, "vit", "family: vit, width: 8, depth: 1, heads: 2, patch: 4")
    printed = site.make("local", SPEC="vit.yaml", check=False)
    line = "model.family: this family needs timm and torchvision, which cannot be imported"
    assert line in printed
    assert "Traceback" not in printed
    write_tiny(site.checkout, "cnn", "family: cnn, width: 2, depth: 2")
    site.make("local", SPEC="cnn.yaml")


def test_a_network_beside_the_spec(site: Site, image: Built) -> None:
    folder = site.checkout / "own"
    write_tiny(folder, "own", "family: 'nets:net', kwargs: {width: 4}")
    (folder / "nets.py").write_text(
        "from torch import nn\n\n\ndef net(width):\n    return nn.Sequential("
        "nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))\n"
    )
    assert "310" in site.make("local", SPEC="own/own.yaml")  # parameters


def test_labels_and_health_check(site: Site, image: Built) -> None:
    (found,) = json.loads(site.run("podman", "image", "inspect", image.name).stdout)
    labels = found["Labels"]
    assert labels["org.opencontainers.image.title"] == "flexhpc"
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", labels["org.opencontainers.image.revision"])
    assert found["Config"]["Entrypoint"] == ["flexhpc"]
    assert found["Healthcheck"]["Test"] == ["CMD", "flexhpc", "doctor"]


def hosts_here(site: Site) -> set[str]:
    """Names by which this build site would be known: its own, and those of its package mirrors."""
    settings = site.run("python3", "-m", "pip", "config", "list").stdout
    apt = site.run("apt-get", "indextargets", "--format", "$(SITE)").stdout
    addresses = re.findall(r"https?://[^\s']+", settings + apt)
    named = {urlparse(address).hostname or "" for address in addresses}
    # What every Debian and every pip names itself tells nothing about this site.
    found = find_spec("pip")
    assert found is not None
    assert found.origin is not None
    usual = ["/usr/share/doc", "/usr/lib/python3", str(Path(found.origin).parent)]
    named = {n for n in named if n and site.run("grep", "-rqF", n, *usual, check=False).returncode}
    return {name for name in {*named, socket.gethostname()} if len(name) > 5}


def test_nothing_of_the_build_site_is_in_the_image(
    site: Site, image: Built, tmp_path: Path
) -> None:
    """Neither in its history and settings nor in any file of any of its layers."""
    history = site.run("podman", "history", "--no-trunc", "--format", "json", image.name).stdout
    settings = site.run("podman", "image", "inspect", image.name).stdout
    variables = site.run("podman", "run", "--rm", "--entrypoint", "env", image.name).stdout
    foreign = [*image.planted.values(), *hosts_here(site)]
    for text in (history, settings, variables):
        assert not [word for word in foreign if word in text]

    archive, layers = tmp_path / "image.tar", tmp_path / "layers"
    site.run("podman", "save", "--output", str(archive), image.name)
    unpack(archive, layers)
    archive.unlink()
    patterns = tmp_path / "patterns"
    patterns.write_text("\n".join(foreign))
    found = site.run(
        "grep", "--recursive", "--text", "--fixed-strings", "--only-matching", "--file",
        str(patterns), str(layers), check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stdout[:2000]
    # The search does find what is there.
    patterns.write_text("Measures how much data a neural network can fit")
    site.run("grep", "-r", "-a", "-q", "-F", "-f", str(patterns), str(layers))
    empty = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run/secrets/pipconf")
    for layer in layers.rglob("*.tar"):
        with tarfile.open(layer) as file:
            sizes = {member.name: member.size for member in file if member.name in empty}
        assert not any(sizes.values()), sizes
    shutil.rmtree(layers)


def test_a_change_of_the_code_rebuilds_only_its_layers(site: Site, image: Built) -> None:
    tag = "localhost/flexhpc-changed"

    def build() -> float:
        began = time.monotonic()
        site.make("image", IMAGE=tag)
        return time.monotonic() - began

    def layers() -> list[str]:
        shape = "{{json .RootFS.Layers}}"
        printed = site.run("podman", "image", "inspect", "--format", shape, tag).stdout
        found: list[str] = json.loads(printed)
        return found

    first = build()  # the environment is not that of the first build: it must not matter
    original = layers()
    nothing = build()
    assert layers() == original
    changed = site.checkout / "flexhpc" / "seeds.py"
    before = changed.read_text()
    changed.write_text(before + "\nCHANGED = True\n")
    try:
        seconds = build()
    finally:
        changed.write_text(before)
    print(
        f"built in {image.seconds:.0f} s; again {first:.1f} s, {nothing:.1f} s; "
        f"changed {seconds:.1f} s"
    )
    rebuilt = layers()
    assert rebuilt[:-CODE_LAYERS] == original[:-CODE_LAYERS]
    assert rebuilt[-1] != original[-1]
    printed = site.run(
        "podman", "run", "--rm", "--entrypoint", "python", tag, "-c",
        "import flexhpc.seeds; print(flexhpc.seeds.CHANGED)",
    ).stdout  # fmt: skip
    assert printed.strip() == "True"
    site.run("podman", "rmi", tag)


def test_too_little_room_is_said_before_anything_is_built(site: Site) -> None:
    printed = site.make("image", check=False, ROOM_GB="1000000")
    assert re.search(r": \d+ GB free, 1000000 GB required", printed)


def test_a_docker_without_its_daemon_is_passed_over(site: Site, tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    client.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    choose = ("bash", "-c", ". hpc/container/lib.sh; pick_runtime docker podman")
    assert site.run(*choose, PATH=path, RUNTIME="").stdout.strip() == "podman"
    alone = site.run(*choose, check=False, PATH=path, RUNTIME="docker")
    assert alone.returncode == 1
    assert "docker: Cannot connect to the Docker daemon" in alone.stderr
    assert "hpc/container/packages.sh" in alone.stderr
