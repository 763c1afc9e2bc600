"""Images built by `make image` and `make sif`, and a real SLURM cluster whose tasks use them.

podman uses a separate storage, so that images of the user are not affected. All images are removed
at the end except the base image, which takes a minute to build.
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

from tests.archives import copy_checkout
from tests.command import flexhpc_output
from tests.conftest import FULL, REPOSITORY
from tests.slurm.conftest import Cluster, _empty_queue, needs_slurm, running_cluster
from tests.sweeps import results_by_point, statuses

__all__ = ["_empty_queue"]
STORAGE = Path(__file__).with_name("storage.conf")
QUICKSTART_WIDTHS = "model.width=[4,8,16,32,64]" if FULL else "model.width=[32,64]"
"""Override of the quickstart spec that limits the points to measure."""
BASE, IMAGE = "localhost/flexhpc-base:latest", "localhost/flexhpc-test:latest"


def write_small_spec(folder: Path, name: str, model: str = "family: mlp, width: 2") -> Path:
    """Write a spec of one point that is measured in seconds."""
    folder.mkdir(exist_ok=True)
    spec = folder / f"{name}.yaml"
    spec.write_text(
        f"name: {name}\nfixed:\n  model: {{{model}}}\n  search: {{policy: bisection, "
        "start: 8, tolerance: 0.5}\n  training: {epochs: 20}\n"
    )
    return spec


@dataclass
class BuildSite:
    """A copy of the checkout, and the settings for building and running images on this machine.

    Attributes:
        environment: environment variables of all commands.
        checkout: copy of the files in the repository.
        apptainer_flags: options that apptainer requires on this machine.
    """

    environment: dict[str, str]
    checkout: Path
    apptainer_flags: list[str] = field(default_factory=lambda: _apptainer_flags())

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None, timeout: float = 900,
        **extra: str,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        result = subprocess.run(
            command, cwd=cwd or self.checkout, env={**self.environment, **extra},
            capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
        return result

    def make(self, target: str, *, check: bool = True, **variables: str) -> str:
        """Run a make target in the copy with the user's podman settings; return its output."""
        unset = () if "CONTAINERS_CONF" in os.environ else ("-u", "CONTAINERS_CONF")
        settings = [f"{key}={value}" for key, value in variables.items()]
        result = self.run("env", *unset, "make", target, *settings, check=check)
        return result.stdout + result.stderr


def _apptainer_flags() -> list[str]:
    """Return ``--no-privs`` if root lacks a capability.

    As root, apptainer passes on all capabilities, which fails if one is missing.
    """
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
            pytest.fail(f"the container tests must run in CI: {reason}")
        pytest.skip(reason)
    free = shutil.disk_usage("/var/lib").free / 1e9
    assert free >= 15, f"container tests require 15 GB free in /var/lib, not {free:.0f}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildSite]:
    """A site at which podman works and the base image is built."""
    _needs_containers()
    checkout = tmp_path_factory.mktemp("checkout")
    copy_checkout(checkout)
    environment = {
        **os.environ, "CONTAINERS_STORAGE_CONF": str(STORAGE), "RUNTIME": "podman", "TORCH": "cpu",
        "BASE": BASE, "IMAGE": IMAGE, "BUILD_FLAGS": "--network host",
    }  # fmt: skip
    site = BuildSite(environment, checkout)
    _remove_images(site)
    site.run("hpc/container/base.sh")
    default = site.run("podman", "run", "--rm", BASE, "true", check=False)
    if default.returncode and "CONTAINERS_CONF" not in os.environ:
        environment["CONTAINERS_CONF"] = str(REPOSITORY / "hpc" / "container" / "containers.conf")
        site.run("podman", "run", "--rm", BASE, "true")
    yield site
    if not os.environ.get("CI"):  # the machine is discarded after CI
        _remove_images(site)
        shutil.rmtree(checkout)


def _remove_images(site: BuildSite) -> None:
    """Remove all images of the tests except the base image."""
    base = site.run("podman", "images", "--quiet", "--no-trunc", BASE, check=False).stdout.split()
    for _ in range(10):  # an image cannot be removed before the images that are based on it
        images = site.run("podman", "images", "--quiet", "--no-trunc", "--all").stdout.split()
        if not (others := set(images) - set(base)):
            return
        site.run("podman", "rmi", "--force", *others, check=False)
    raise AssertionError("images cannot be removed")


@dataclass(frozen=True)
class Image:
    """A container image.

    Attributes:
        name: name with tag.
        id: image id, ``sha256:...``.
        build_seconds: time of the build.
        secrets: strings in the settings of the build site, which the image must not contain.
    """

    name: str
    id: str
    build_seconds: float
    secrets: Mapping[str, str]


@pytest.fixture(scope="session")
def image(site: BuildSite, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image, built by `make image` with secrets in the settings of pip."""
    folder = tmp_path_factory.mktemp("secret-wheels-3f9c1")
    secrets = {"token": "secret-token-8d2e6", "folder": folder.name, "host": "secret.invalid"}
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    site.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
        "/CN=secret.invalid", "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    secrets["certificate"] = certificate.read_text().splitlines()[5]
    bundle = folder / "bundle.pem"
    default = site.environment.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
    bundle.write_text(Path(default).read_text() + certificate.read_text())
    links = f"{site.environment.get('PIP_FIND_LINKS', '')} {folder}".strip()
    (folder / "index").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as index:  # an index without packages
        threading.Thread(target=index.serve_forever, daemon=True).start()
        address = f"http://user:{secrets['token']}@127.0.0.1:{index.server_port}/"
        secrets["address"] = f"127.0.0.1:{index.server_port}"
        started = time.monotonic()
        output = site.run(
            "make", "image", PIP_CERT=str(bundle), PIP_FIND_LINKS=links,
            PIP_TRUSTED_HOST=f"{secrets['host']} 127.0.0.1", PIP_EXTRA_INDEX_URL=address,
        ).stdout  # fmt: skip
        seconds = time.monotonic() - started
        index.shutdown()
    assert IMAGE in output
    image_id = site.run("podman", "image", "inspect", "--format", "{{.Id}}", IMAGE).stdout.strip()
    return Image(IMAGE, f"sha256:{image_id.removeprefix('sha256:')}", seconds, secrets)


@pytest.fixture(scope="session")
def sif(site: BuildSite, image: Image) -> Iterator[Path]:
    """The SIF file of the image, built by `make sif`."""
    path = site.checkout / "flexhpc.sif"
    output = site.make("sif", APPTAINER_FLAGS=" ".join(site.apptainer_flags))
    assert "sha256:" in output
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def cluster(site: BuildSite) -> Iterator[Cluster]:
    """Four nodes, whose tasks use the storage of podman with the image."""
    with running_cluster("containers", 3) as cluster:
        cluster.environment = {**site.environment, **cluster.environment}
        yield cluster


def images_of(run: Path) -> set[str]:
    """Return the images that the probes of a run record."""
    probes = [probe for status in statuses(run) for probe in status.record.probes]
    return {probe.machine.get("image", "") for probe in probes}


@pytest.fixture(scope="session")
def results_without_container(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Results of the quickstart on this machine."""
    folder = tmp_path_factory.mktemp("without_container")
    flexhpc_output(folder, "sweep", "quickstart", "--set", QUICKSTART_WIDTHS)
    return results_by_point(folder / "runs" / "quickstart")
