"""Array tasks inside containers, on a real SLURM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.barrier import Barrier, wait_for
from tests.conftest import FULL
from tests.container.conftest import Built, Site, images_of
from tests.container.test_sif import sha256
from tests.slurm.conftest import Cluster, finish
from tests.slurm.test_life_cycle import LONG, disturb_again_and_again, undisturbed, usr2
from tests.slurm.test_sweeps import locally, submissions, write_spec
from tests.sweeps import results_by_point

__all__ = ["undisturbed"]
RUNTIMES = ("apptainer", "podman")
TIMES = 2

SLOW = """\
import os, time


def fit(inputs, labels, seed, most):
    if "SLURM_JOB_ID" in os.environ:
        time.sleep(1.2)
    return {"right": [i < most for i in range(len(labels))]}
"""
POISON = "raise SystemExit('the home of the host has leaked in')\n"


@pytest.fixture
def container(request: pytest.FixtureRequest, site: Site, image: Built) -> dict[str, object]:
    """The ``container`` section of a profile, for the runtime that the test is about."""
    if request.param == "podman":
        return {"runtime": "podman", "image": image.name}
    path = request.getfixturevalue("sif")
    return {"runtime": "apptainer", "image": str(path), "flags": site.apptainer_flags}


def identity(container: dict[str, object], image: Built) -> str:
    if container["runtime"] == "podman":
        return f"{image.name}@{image.id}"
    return f"flexhpc.sif@sha256:{sha256(Path(str(container['image'])))}"


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_an_array_of_points_of_two_processes_each(
    container: dict[str, object], cluster: Cluster, image: Built, tmp_path: Path
) -> None:
    """The same results as without; and no part of the host's home or Python gets in."""
    points = 8 if FULL else 4
    spec = write_spec(tmp_path, f"  model.width: [4, 8]\n  seed: {list(range(points // 2))}\n")
    home = tmp_path / "home"
    user_site = home / ".local" / "lib" / "python3.11" / "site-packages"
    user_site.mkdir(parents=True)
    (user_site / "sitecustomize.py").write_text(POISON)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "torch.py").write_text(POISON)
    beside = tmp_path / "numpy.py"  # in the folder where the sweep is started
    beside.write_text(POISON)
    data = tmp_path / "data"  # bound by itself, too: only one of the two can be
    data.mkdir()
    profile = cluster.profile(
        tmp_path, throttle=2, processes_per_node=2,
        container={**container, "binds": [str(data)]},
        setup=[f"export PYTHONPATH={elsewhere} HOME={home}"],
    )  # fmt: skip
    sweep = cluster.sweep(spec, profile)
    output = finish(sweep)
    assert sweep.returncode == 0, output
    beside.unlink()
    run = tmp_path / "runs" / "quick"
    (array,) = submissions(run)
    assert array["tasks"] == points
    assert results_by_point(run) == locally(spec)
    assert images_of(run) == {identity(container, image)}
    (launch,) = json.loads((run / "run.json").read_text())["launches"]
    assert launch["image"] == identity(container, image)
    logs = [path.read_text() for path in run.glob("jobs/*/array-000/*_log.out")]
    assert len(logs) == 2 * points


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_tables_outside_of_data_are_seen(
    container: dict[str, object], cluster: Cluster, tmp_path: Path
) -> None:
    """One lies elsewhere, one beneath the folder where the sweep is started, as does a network."""
    elsewhere = tmp_path / "elsewhere"
    here = elsewhere / "here"
    (here / "tables").mkdir(parents=True)
    rows = "".join(f"{i % 7},{i % 11},{'yes' if i % 3 else 'no'}\n" for i in range(64))
    for table in (elsewhere / "far.csv", here / "tables" / "near.csv"):
        table.write_text(f"one,two,answer\n{rows}")
    (here / "nets.py").write_text(
        "from torch import nn\n\n\ndef net(shape, classes):\n"
        "    return nn.Linear(shape[0], classes)\n"
    )
    spec = here / "quick.yaml"
    spec.write_text(
        "name: quick\nfixed:\n"
        "  data: {source: table, path: tables/near.csv, target: answer}\n"
        "  model: {family: 'nets:net'}\n"
        "  training: {epochs: 20}\n"
        "  search: {policy: growth, start: 4, growth: 2.0}\n"
        f"zip:\n  - data.path: [tables/near.csv, {elsewhere}/far.csv]\n"
        "    data.name: [near, far]\n"
    )
    profile = cluster.profile(here, points_per_task=2, container=container)
    sweep = cluster.sweep(spec, profile)
    output = finish(sweep)
    assert sweep.returncode == 0, output
    assert output.count("done") >= 2


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_usr2_in_a_contained_task(
    container: dict[str, object], cluster: Cluster, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    """It saves, ends, is requeued by the batch script on the host, and resumes."""
    barrier = Barrier(tmp_path)
    barrier.continue_slowly()
    spec = tmp_path / "long.yaml"
    spec.write_text(LONG.replace("shards: 2", "shards: 2, gates: {plateau: off}"))
    profile = cluster.profile(
        tmp_path, processes_per_node=2, checkpoint_every=1, container=container
    )
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"
    watched = disturb_again_and_again(run, [lambda: usr2(cluster)] * TIMES)
    barrier.open()
    output = finish(sweep)
    assert sweep.returncode == 0, output
    assert results_by_point(run) == undisturbed
    assert watched.claim()["attempts"] == TIMES + 1
    assert len(submissions(run)) == 1


def test_the_walltime_of_contained_tasks(
    site: Site, image: Built, sif: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """Two points of a trainer of the user's, whose 25 probes sleep longer than a task may run."""
    (tmp_path / "slow.py").write_text(SLOW)
    spec = tmp_path / "quick.yaml"
    spec.write_text(
        "name: quick\nfixed:\n"
        "  data: {source: gaussian, classes: 2, labels: random, size: 200, dims: 10}\n"
        "  training: {trainer: 'slow:fit', kwargs: {most: 24}}\n"
        "  search: {policy: growth, start: 1, growth: 1.05}\n"
        "grid: {seed: [0, 1]}\n"
    )
    profile = cluster.profile(
        tmp_path, time=1, stop_before=35,
        container={"runtime": "apptainer", "image": str(sif), "flags": site.apptainer_flags},
    )  # fmt: skip
    sweep = cluster.sweep(spec, profile)
    output = finish(sweep)
    assert sweep.returncode == 0, output
    run = tmp_path / "runs" / "quick"
    claims = [json.loads(path.read_text()) for path in run.glob("points/*/*.claim.json")]
    assert all(claim["attempts"] > 1 and claim["deaths"] == 0 for claim in claims)
    assert len(submissions(run)) == 1
    assert results_by_point(run) == locally(spec)


@pytest.mark.parametrize("container", RUNTIMES, indirect=True)
def test_another_flexhpc_inside_is_refused(
    container: dict[str, object], site: Site, cluster: Cluster, tmp_path: Path
) -> None:
    """Of the same version, but of another day: the code here has changed since it was built."""
    code = tmp_path / "code"
    shutil.copytree(site.checkout / "flexhpc", code / "flexhpc")
    with (code / "flexhpc" / "seeds.py").open("a") as file:
        file.write("CHANGED = True\n")
    spec = write_spec(tmp_path, "  seed: [0]\n")
    profile = cluster.profile(tmp_path, container=container)
    sweep = cluster.sweep(spec, profile, PYTHONPATH=str(code))
    output = finish(sweep)
    assert sweep.returncode == 2, output
    (line,) = output.splitlines()
    assert "profile: container: " in line
    assert "flexhpc 0.1.0 (source " in line
    assert "docs/containers.md" in line
    assert not cluster.queue()


def test_an_image_that_is_not_there_is_one_line(
    site: Site, cluster: Cluster, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    for runtime, image in (("apptainer", "no.sif"), ("podman", "localhost/no")):
        profile = cluster.profile(tmp_path, container={"runtime": runtime, "image": image})
        sweep = cluster.sweep(spec, profile)
        output = finish(sweep)
        assert sweep.returncode == 2, output
        (line,) = output.splitlines()
        assert line.startswith("profile: container.image: ")


def test_an_image_that_changes_after_submission_is_refused_by_the_task(
    site: Site, sif: Path, cluster: Cluster, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    mine = tmp_path / "mine.sif"
    site.run("cp", str(sif), str(mine))
    container = {"runtime": "apptainer", "image": str(mine), "flags": site.apptainer_flags}
    profile = cluster.profile(tmp_path, container=container, sbatch={"begin": "now+8"})
    started = cluster.flexhpc(tmp_path, "sweep", str(spec), "--profile", str(profile), "--detach")
    assert started.returncode == 0, started.stderr
    mine.unlink()
    run = tmp_path / "runs" / "quick"
    wait_for(lambda: not cluster.queue(), "an empty queue")
    (log,) = run.glob("jobs/*/array-000/*_log.err")
    assert "mine.sif: was removed or changed; submit the sweep again" in log.read_text()


def test_dry_run_shows_the_way_in(site: Site, sif: Path, cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    container = {"runtime": "apptainer", "image": str(sif), "binds": ["/scratch"]}
    profile = cluster.profile(tmp_path, container=container)
    printed = cluster.flexhpc(tmp_path, "sweep", str(spec), "--profile", str(profile), "--dry-run")
    assert printed.returncode == 0, printed.stderr
    assert "exec apptainer" in printed.stdout
    assert "/scratch:/scratch" in printed.stdout
    assert "container.sh python -u -m submitit" in printed.stdout
    assert not (tmp_path / "runs").exists()
