"""Array tasks inside containers, on a real SLURM."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.barrier import Barrier, wait_for
from tests.conftest import FULL
from tests.container.conftest import BuildSite, Image, images_of
from tests.container.test_sif import sha256
from tests.slurm.conftest import Cluster
from tests.slurm.test_life_cycle import LONG, disturb_repeatedly, undisturbed, usr2
from tests.slurm.test_sweeps import measure_locally, submissions, write_spec
from tests.sweeps import finish_with_status, results_by_point

__all__ = ["undisturbed"]
RUNTIMES = ("apptainer", "podman")
DISTURBANCES = 2
SLOW = """\
import os, time


def fit(inputs, labels, seed, capacity):
    if "SLURM_JOB_ID" in os.environ:
        time.sleep(1.2)
    return {"right": [i < capacity for i in range(len(labels))]}
"""
FAILING_MODULE = "raise SystemExit('a module of the host was imported')\n"


@pytest.fixture
def container(request: pytest.FixtureRequest, site: BuildSite, image: Image) -> dict[str, object]:
    """The ``container`` section of a profile for the runtime of the test."""
    if request.param == "podman":
        return {"runtime": "podman", "image": image.name}
    path = request.getfixturevalue("sif")
    return {"runtime": "apptainer", "image": str(path), "flags": site.apptainer_flags}


def identity(container: dict[str, object], image: Image) -> str:
    if container["runtime"] == "podman":
        return f"{image.name}@{image.id}"
    return f"flexhpc.sif@sha256:{sha256(Path(str(container['image'])))}"


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_an_array_with_two_processes_per_task(
    container: dict[str, object], cluster: Cluster, image: Image, tmp_path: Path
) -> None:
    """Python modules of the host are not visible: in the home, PYTHONPATH or working directory."""
    points = 8 if FULL else 4
    spec = write_spec(tmp_path, f"  model.width: [4, 8]\n  seed: {list(range(points // 2))}\n")
    home = tmp_path / "home"
    user_site = home / ".local" / "lib" / "python3.11" / "site-packages"
    user_site.mkdir(parents=True)
    (user_site / "sitecustomize.py").write_text(FAILING_MODULE)
    python_path = tmp_path / "python_path"
    python_path.mkdir()
    (python_path / "torch.py").write_text(FAILING_MODULE)
    in_working_directory = tmp_path / "numpy.py"
    in_working_directory.write_text(FAILING_MODULE)
    data = tmp_path / "data"  # also bound by default
    data.mkdir()
    profile = cluster.profile(
        tmp_path, throttle=2, processes_per_node=2,
        container={**container, "binds": [str(data)]},
        setup=[f"export PYTHONPATH={python_path} HOME={home}"],
    )  # fmt: skip
    finish_with_status(cluster.sweep(spec, profile))
    in_working_directory.unlink()
    run = tmp_path / "runs" / "quick"
    (array,) = submissions(run)
    assert array["tasks"] == points
    assert results_by_point(run) == measure_locally(spec)
    assert images_of(run) == {identity(container, image)}
    (launch,) = json.loads((run / "run.json").read_text())["launches"]
    assert launch["image"] == identity(container, image)
    logs = [path.read_text() for path in run.glob("jobs/*/array-000/*_log.out")]
    assert len(logs) == 2 * points


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_tables_custom_networks_and_weights_are_bound(
    container: dict[str, object], cluster: Cluster, tmp_path: Path
) -> None:
    """In the working directory of the sweep, and in a folder above it; with adapters of peft."""
    workdir = tmp_path / "parent" / "workdir"
    (workdir / "tables").mkdir(parents=True)
    rows = "".join(f"{i % 7},{i % 11},{'yes' if i % 3 else 'no'}\n" for i in range(64))
    for table in (workdir.parent / "above.csv", workdir / "tables" / "below.csv"):
        table.write_text(f"one,two,answer\n{rows}")
    (workdir / "nets.py").write_text(
        "from torch import nn\n\n\ndef net(shape, classes):\n"
        "    return nn.Sequential(nn.Linear(shape[0], 4), nn.ReLU(), nn.Linear(4, classes))\n"
    )
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.save(network.state_dict(), workdir.parent / "weights.pt")
    spec = workdir / "quick.yaml"
    spec.write_text(
        "name: quick\nfixed:\n"
        "  data: {source: table, path: tables/below.csv, target: answer}\n"
        f"  model: {{family: 'nets:net', pretrained: {workdir.parent}/weights.pt, "
        "adapt: {lora: {rank: 1}}}\n"
        "  training: {epochs: 20}\n"
        "  search: {policy: growth, start: 4, growth: 2.0}\n"
        f"zip:\n  - data.path: [tables/below.csv, {workdir.parent}/above.csv]\n"
        "    data.name: [below, above]\n"
    )
    profile = cluster.profile(workdir, points_per_task=2, container=container)
    output = finish_with_status(cluster.sweep(spec, profile))
    assert output.count("done") >= 2


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_a_task_in_a_container_is_requeued_after_usr2(
    container: dict[str, object], cluster: Cluster, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    """The batch script, which runs on the host, requeues the task; it resumes the probe."""
    barrier = Barrier(tmp_path)
    barrier.continue_slowly()
    spec = tmp_path / "long.yaml"
    spec.write_text(LONG.replace("shards: 2", "shards: 2, gates: {plateau: off}"))
    profile = cluster.profile(
        tmp_path, processes_per_node=2, checkpoint_every=1, container=container
    )
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"
    progress = disturb_repeatedly(run, [lambda: usr2(cluster)] * DISTURBANCES)
    barrier.open()
    finish_with_status(sweep)
    assert results_by_point(run) == undisturbed
    assert progress.claim()["attempts"] == DISTURBANCES + 1
    assert len(submissions(run)) == 1


def test_tasks_in_containers_are_requeued_at_their_time_limit(
    site: BuildSite, image: Image, sif: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """The 25 probes of a custom trainer take longer than the time limit of a task."""
    (tmp_path / "slow.py").write_text(SLOW)
    spec = tmp_path / "quick.yaml"
    spec.write_text(
        "name: quick\nfixed:\n"
        "  data: {source: gaussian, classes: 2, labels: random, size: 200, dims: 10}\n"
        "  training: {trainer: 'slow:fit', kwargs: {capacity: 24}}\n"
        "  search: {policy: growth, start: 1, growth: 1.05}\n"
        "grid: {seed: [0, 1]}\n"
    )
    profile = cluster.profile(
        tmp_path, time=1, stop_before=35,
        container={"runtime": "apptainer", "image": str(sif), "flags": site.apptainer_flags},
    )  # fmt: skip
    finish_with_status(cluster.sweep(spec, profile))
    run = tmp_path / "runs" / "quick"
    claims = [json.loads(path.read_text()) for path in run.glob("points/*/*.claim.json")]
    assert all(claim["attempts"] > 1 and claim["deaths"] == 0 for claim in claims)
    assert len(submissions(run)) == 1
    assert results_by_point(run) == measure_locally(spec)


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_an_image_with_other_source_code_is_rejected(
    container: dict[str, object], site: BuildSite, cluster: Cluster, tmp_path: Path
) -> None:
    """The source changed after the image was built; the version is the same."""
    code = tmp_path / "code"
    shutil.copytree(site.checkout / "flexhpc", code / "flexhpc")
    with (code / "flexhpc" / "seeds.py").open("a") as file:
        file.write("CHANGED = True\n")
    spec = write_spec(tmp_path, "  seed: [0]\n")
    profile = cluster.profile(tmp_path, container=container)
    output = finish_with_status(cluster.sweep(spec, profile, PYTHONPATH=str(code)), 2)
    (line,) = output.splitlines()
    assert "profile: container: " in line
    assert re.search(r"flexhpc [\d.]+ \(source ", line)
    assert "docs/containers.md" in line
    assert not cluster.queue()


def test_a_missing_image_is_reported_with_one_line(
    site: BuildSite, cluster: Cluster, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    for runtime, image in (("apptainer", "no.sif"), ("podman", "localhost/no")):
        profile = cluster.profile(tmp_path, container={"runtime": runtime, "image": image})
        output = finish_with_status(cluster.sweep(spec, profile), 2)
        (line,) = output.splitlines()
        assert line.startswith("profile: container.image: ")


def test_a_task_fails_if_its_image_was_removed_after_submission(
    site: BuildSite, sif: Path, cluster: Cluster, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    copy = tmp_path / "copy.sif"
    site.run("cp", str(sif), str(copy))
    container = {"runtime": "apptainer", "image": str(copy), "flags": site.apptainer_flags}
    profile = cluster.profile(tmp_path, container=container, sbatch={"begin": "now+8"})
    cluster.flexhpc(tmp_path, "sweep", spec, "--profile", profile, "--detach")
    copy.unlink()
    run = tmp_path / "runs" / "quick"
    wait_for(lambda: not cluster.queue(), "an empty queue")
    (log,) = run.glob("jobs/*/array-000/*_log.err")
    assert "copy.sif: was removed or changed; submit the sweep again" in log.read_text()


def test_a_dry_run_prints_the_script_that_enters_the_container(
    site: BuildSite, sif: Path, cluster: Cluster, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    container = {"runtime": "apptainer", "image": str(sif), "binds": ["/scratch"]}
    profile = cluster.profile(tmp_path, container=container)
    output = cluster.flexhpc(tmp_path, "sweep", spec, "--profile", profile, "--dry-run")
    assert "exec apptainer" in output.stdout
    assert "/scratch:/scratch" in output.stdout
    assert "container.sh python -P -u -m submitit" in output.stdout
    assert not (tmp_path / "runs").exists()
