"""Real images, built here by `make image` and `make sif`, and removed again; a real SLURM.

podman works on a store of its own, so that nothing of the user's is touched. What stays between
runs is the base image in it, which takes a minute to make.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flexhpc.store import read
from flexhpc.store.status import open_run
from tests.archives import copy_checkout
from tests.command import flexhpc_output
from tests.conftest import FULL, REPOSITORY
from tests.slurm.conftest import Cluster, _empty_queue, needs_slurm, running_cluster
from tests.sweeps import results_by_point

__all__ = ["_empty_queue"]
STORAGE = Path(__file__).with_name("storage.conf")
QUICKSTART = "model.width=[4,8,16,32,64]" if FULL else "model.width=[32,64]"
"""What is measured of the quickstart."""
BASE, IMAGE = "localhost/flexhpc-base:latest", "localhost/flexhpc-test:latest"


def write_tiny(folder: Path, name: str, model: str = "family: mlp, width: 2") -> Path:
    """Write a spec of one point that is measured in seconds."""
    folder.mkdir(exist_ok=True)
    spec = folder / f"{name}.yaml"
    spec.write_text(
        f"name: {name}\nfixed:\n  model: {{{model}}}\n  search: {{policy: bisection, "
        "start: 8, tolerance: 0.5}\n  training: {epochs: 20}\n"
    )
    return spec


@dataclass
class Site:
    """How images are built and run on this machine; known to the tests only.

    Attributes:
        environment: for every command.
        apptainer_flags: that apptainer needs here.
        checkout: a copy of the project, as a clone would have it.
    """

    environment: dict[str, str]
    checkout: Path
    apptainer_flags: list[str] = field(default_factory=lambda: _apptainer_flags())

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None, timeout: float = 900,
        **extra: str,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        done = subprocess.run(
            command, cwd=cwd or self.checkout, env={**self.environment, **extra},
            capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done

    def make(self, target: str, *, check: bool = True, **variables: str) -> str:
        """Run a make target in the copy, without settings of podman but the user's own; returns
        all that it said."""
        own = () if "CONTAINERS_CONF" in os.environ else ("-u", "CONTAINERS_CONF")
        given = [f"{key}={value}" for key, value in variables.items()]
        done = self.run("env", *own, "make", target, *given, check=check)
        return done.stdout + done.stderr


def _apptainer_flags() -> list[str]:
    """A root that lacks a capability cannot hand all of them on, as apptainer's root mode does."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return [] if int(status["CapEff"], 16) == 2 ** (last + 1) - 1 else ["--no-privs"]


def _needs_containers() -> None:
    needs_slurm()
    installed = subprocess.run(
        [str(REPOSITORY / "hpc" / "container" / "packages.sh"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        reason = installed.stderr.strip()
        if os.environ.get("CI"):
            pytest.fail(f"the container tests must run here: {reason}")
        pytest.skip(reason)
    free = shutil.disk_usage("/var/lib").free / 1e9
    assert free >= 15, f"the container tests need 15 GB free in /var/lib, there are {free:.0f}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """This machine's podman and apptainer, ready, with the base image."""
    _needs_containers()
    checkout = tmp_path_factory.mktemp("checkout")
    copy_checkout(checkout)
    environment = {
        **os.environ, "CONTAINERS_STORAGE_CONF": str(STORAGE), "RUNTIME": "podman", "TORCH": "cpu",
        "BASE": BASE, "IMAGE": IMAGE, "BUILD_FLAGS": "--network host",
    }  # fmt: skip
    found = Site(environment, checkout)
    _remove_images(found)
    found.run("hpc/container/base.sh")
    plain = found.run("podman", "run", "--rm", BASE, "true", check=False)
    if plain.returncode and "CONTAINERS_CONF" not in os.environ:
        environment["CONTAINERS_CONF"] = str(REPOSITORY / "hpc" / "container" / "containers.conf")
        found.run("podman", "run", "--rm", BASE, "true")
    yield found
    _remove_images(found)
    shutil.rmtree(checkout)


def _remove_images(site: Site) -> None:
    """Remove every image of our own store but the base."""
    base = site.run("podman", "images", "--quiet", "--no-trunc", BASE, check=False).stdout.split()
    for _ in range(10):  # an image can go when those made from it are gone
        listed = site.run("podman", "images", "--quiet", "--no-trunc", "--all").stdout.split()
        if not (rest := set(listed) - set(base)):
            return
        site.run("podman", "rmi", "--force", *rest, check=False)
    raise AssertionError("images were left behind")


@dataclass(frozen=True)
class Built:
    """An image, its id, how long it took, and what was planted at the build site."""

    name: str
    id: str
    seconds: float
    planted: Mapping[str, str]


@pytest.fixture(scope="session")
def image(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The image, built by `make image` at a site with a few secrets."""
    folder = tmp_path_factory.mktemp("planted-wheels-3f9c1")
    planted = {"token": "planted-token-8d2e6", "folder": folder.name, "host": "planted.invalid"}
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    site.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
        "/CN=planted.invalid", "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    planted["certificate"] = certificate.read_text().splitlines()[5]
    bundle = folder / "bundle.pem"
    usual = site.environment.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
    bundle.write_text(Path(usual).read_text() + certificate.read_text())
    links = f"{site.environment.get('PIP_FIND_LINKS', '')} {folder}".strip()
    (folder / "index").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as index:  # one that has no package at all
        threading.Thread(target=index.serve_forever, daemon=True).start()
        address = f"http://user:{planted['token']}@127.0.0.1:{index.server_port}/"
        planted["address"] = f"127.0.0.1:{index.server_port}"
        began = time.monotonic()
        output = site.run(
            "make", "image", PIP_CERT=str(bundle), PIP_FIND_LINKS=links,
            PIP_TRUSTED_HOST=f"{planted['host']} 127.0.0.1", PIP_EXTRA_INDEX_URL=address,
        ).stdout  # fmt: skip
        seconds = time.monotonic() - began
        index.shutdown()
    assert IMAGE in output
    found = site.run("podman", "image", "inspect", "--format", "{{.Id}}", IMAGE).stdout.strip()
    return Built(IMAGE, f"sha256:{found.removeprefix('sha256:')}", seconds, planted)


@pytest.fixture(scope="session")
def sif(site: Site, image: Built) -> Iterator[Path]:
    """The SIF from that image, built by `make sif`."""
    path = site.checkout / "flexhpc.sif"
    output = site.make("sif", APPTAINER_FLAGS=" ".join(site.apptainer_flags))
    assert "sha256:" in output
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def cluster(site: Site) -> Iterator[Cluster]:
    """Four nodes, whose tasks find this site's podman."""
    with running_cluster("containers", 3) as found:
        found.environment = {**site.environment, **found.environment}
        yield found


def images_of(run: Path) -> set[str]:
    """The images that a run's probes say they were trained in."""
    folder, _, points = open_run(run)
    probes = [p for point in points if (r := read(folder.point(point.id))) for p in r.probes]
    return {probe.machine.get("image", "") for probe in probes}


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The quickstart, measured on this machine without any container."""
    folder = tmp_path_factory.mktemp("outside")
    flexhpc_output(folder, "sweep", "quickstart", "--set", QUICKSTART)
    return results_by_point(folder / "runs" / "quickstart")
