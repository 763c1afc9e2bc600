"""Profiles: every error at once, with its line; and the layout of arrays, which is arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.errors import InputError
from flexhpc.launch.load_profile import load_profile
from flexhpc.launch.profile import LocalProfile, SlurmProfile, time_limit_minutes
from flexhpc.launch.slurm.chunks import divide_into_arrays
from tests.conftest import REPOSITORY

CONTAINER = "cluster: slurm\ncontainer: {runtime: docker, image: x,"
BAD = {
    "no such cluster": ("cluster: slrum", ":1: cluster: \"slrum\" is not one of local, slurm; did"),
    "slurm key locally": ("cluster: local\npartition: x", ":2: partition: has no effect with"),
    "local key on slurm": ("cluster: slurm\nworkers: 3", ":2: workers: has no effect with cluster"),
    "misspelt": ("cluster: slurm\npartitoin: x", ":2: partitoin: unknown key; use one of"),
    "bad time": ("cluster: slurm\ntime: soon", ':2: time: "soon" must be minutes, HH:MM:SS or'),
    "no time": ("cluster: slurm\ntime: 0", ":2: time: 0 must be above zero"),
    "no time to stop": ("cluster: slurm\ntime: 2\nstop_before: 110", "stop_before: must be"),
    "idle GPUs": ("cluster: slurm\ngpus_per_node: 4", ":2: gpus_per_node: 4 GPUs for 1 process"),
    "two ways to share": ("cluster: slurm\nnodes: 2\nprobes_at_once: 4", ":3: probes_at_once: has"),
    "too many": ("cluster: local\nprobes_at_once: 9", ":2: probes_at_once: "),
    "own option": ("cluster: slurm\nsbatch: {array: 0-3}", "sbatch.array: is set by flexhpc"),
    "own key": ("cluster: slurm\nsbatch: {--mem: 4G}", "sbatch.--mem: is set by flexhpc; use the"),
    "rivals": ("cluster: slurm\ngpus_per_node: 1\nsbatch: {gres: 'gpu:1'}", ":3: sbatch.gres"),
    "two lines": ('cluster: slurm\nsetup: ["a\\nb"]', ":2: setup.0: "),
    "quotes": ("cluster: slurm\npartition: 'a b'", ":2: partition: "),
    "zero": ("cluster: slurm\nthrottle: 0", ":2: throttle: must be at least 1, not 0"),
    "duplicate": ("cluster: slurm\ntime: 5\ntime: 6", ":3: time: "),
    "no such runtime": ("cluster: slurm\ncontainer: {runtime: dokcer, image: x}", "container.r"),
    "no image": ("cluster: slurm\ncontainer: {runtime: docker}", "container.image: is required"),
    "misspelt inside": (f"{CONTAINER} flagz: [a]}}", ":2: container.flagz: unknown key; use"),
    "open quote": (f"{CONTAINER} flags: ['--env \"A']}}", "has an unclosed quote"),
    "relative bind": (f"{CONTAINER} binds: [data]}}", ":2: container.binds.0: "),
    "container locally": ("container: {runtime: docker, image: x}", ":1: container: has no effect"),
    "a list": ("- cluster: slurm", ":1: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line(name: str, tmp_path: Path) -> None:
    text, expected = BAD[name]
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_profile(path)
    assert expected in str(caught.value)
    assert len(caught.value.lines) == 1


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("cluster: slurm\nnodes: none\nthrotle: 3\ntime: x\n")
    with pytest.raises(InputError) as caught:
        load_profile(path)
    assert [line.split(":")[1] for line in caught.value.lines] == ["2", "3", "4"]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "hpc" / "profiles").glob("*.yaml")))
def test_the_profiles_that_we_ship_are_fine(path: Path) -> None:
    assert isinstance(load_profile(path), LocalProfile | SlurmProfile)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(90, 90), ("90", 90), ("90:30", 91), ("04:00:00", 240), ("1-12", 2160), ("2-00:30", 2910),
     ("1-00:00:01", 1441)],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_reads_them(text: int | str, expected: int) -> None:
    assert time_limit_minutes(text) == expected


@pytest.mark.parametrize(("time", "expected"), [(1, 15), (4, 60), ("04:00:00", 90), (None, 90)])
def test_short_time_limits_leave_time_to_train(time: int | str | None, expected: float) -> None:
    assert SlurmProfile(cluster="slurm", time=time).notice == expected


@given(
    count=st.integers(1, 300),
    per_task=st.integers(1, 9),
    max_array=st.integers(1, 40),
    throttle=st.none() | st.integers(1, 50),
)
def test_arrays_hold_every_point_once_within_the_limits(
    count: int, per_task: int, max_array: int, throttle: int | None
) -> None:
    points = [str(i) for i in range(count)]
    chunks = divide_into_arrays(points, per_task=per_task, max_array=max_array, throttle=throttle)
    assert [point for chunk in chunks for point in chunk.points] == points
    for number, chunk in enumerate(chunks):
        assert 1 <= chunk.tasks <= max_array
        assert (chunk.tasks - 1) * per_task < len(chunk.points) <= chunk.tasks * per_task
        assert 1 <= chunk.throttle <= chunk.tasks
        assert chunk.after is None or 0 <= chunk.after < number
    if throttle is not None:
        assert most_at_once(chunks) <= throttle


@pytest.mark.parametrize("key", SlurmProfile.model_fields)
def test_every_key_is_documented(key: str) -> None:
    assert f"`{key}`" in (REPOSITORY / "docs" / "slurm.md").read_text()


def most_at_once(chunks: list) -> int:
    """What could run together: the chunks that wait for no other, then their followers."""
    lanes: dict[int, int] = {}
    of: list[int] = []
    for number, chunk in enumerate(chunks):
        lane = number if chunk.after is None else of[chunk.after]
        of.append(lane)
        lanes[lane] = max(lanes.get(lane, 0), chunk.throttle)
    return sum(lanes.values())
