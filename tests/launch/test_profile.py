"""Validation of profiles, time limits, and the division of points into arrays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.errors import InputError
from flexhpc.launch.profile import (
    LocalProfile,
    SlurmProfile,
    load_profile,
    time_limit_minutes,
)
from flexhpc.launch.slurm.arrays import PlannedArray, divide_into_arrays
from tests.conftest import REPOSITORY

CONTAINER = "cluster: slurm\ncontainer: {runtime: docker, image: x,"
BAD = {
    "unknown cluster": ("cluster: slrum", ":1: cluster: \"slrum\" is not one of local, slurm; did"),
    "slurm key locally": ("cluster: local\npartition: x", ":2: partition: has no effect with"),
    "local key on slurm": ("cluster: slurm\nworkers: 3", ":2: workers: has no effect with cluster"),
    "unknown key": ("cluster: slurm\npartitoin: x", ":2: partitoin: unknown key; use one of"),
    "invalid time": ("cluster: slurm\ntime: soon", ':2: time: "soon" must be minutes, HH:MM:SS or'),
    "time of zero": ("cluster: slurm\ntime: 0", ":2: time: 0 must be above zero"),
    "early stop_before": ("cluster: slurm\ntime: 2\nstop_before: 110", "stop_before: must be"),
    "unused GPUs": ("cluster: slurm\ngpus_per_node: 4", ":2: gpus_per_node: 4 GPUs for 1 process"),
    "two ways to share": ("cluster: slurm\nnodes: 2\nprobes_at_once: 4", ":3: probes_at_once: has"),
    "too many probes_at_once": ("cluster: local\nprobes_at_once: 9", ":2: probes_at_once: "),
    "array option": ("cluster: slurm\nsbatch: {array: 0-3}", "sbatch.array: is set by flexhpc"),
    "--mem": ("cluster: slurm\nsbatch: {--mem: 4G}", "sbatch.--mem: is set by flexhpc; use the"),
    "GPUs twice": ("cluster: slurm\ngpus_per_node: 1\nsbatch: {gres: 'gpu:1'}", ":3: sbatch.gres"),
    "setup of two lines": ('cluster: slurm\nsetup: ["a\\nb"]', ":2: setup.0: "),
    "blank in partition": ("cluster: slurm\npartition: 'a b'", ":2: partition: "),
    "throttle of zero": ("cluster: slurm\nthrottle: 0", ":2: throttle: must be at least 1, not 0"),
    "duplicate key": ("cluster: slurm\ntime: 5\ntime: 6", ":3: time: "),
    "unknown runtime": ("cluster: slurm\ncontainer: {runtime: dokcer, image: x}", "container.r"),
    "no image": ("cluster: slurm\ncontainer: {runtime: docker}", "container.image: is required"),
    "unknown container key": (f"{CONTAINER} flagz: [a]}}", ":2: container.flagz: unknown key; use"),
    "unclosed quote": (f"{CONTAINER} flags: ['--env \"A']}}", "has an unclosed quote"),
    "relative path in binds": (f"{CONTAINER} binds: [data]}}", ":2: container.binds.0: "),
    "container locally": ("container: {runtime: docker, image: x}", ":1: container: has no effect"),
    "list": ("- cluster: slurm", ":1: "),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_an_invalid_profile_is_one_error(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert expected in str(error.value)
    assert len(error.value.lines) == 1


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("cluster: slurm\nnodes: none\nthrotle: 3\ntime: x\n")
    with pytest.raises(InputError) as error:
        load_profile(path)
    assert [line.split(":")[1] for line in error.value.lines] == ["2", "3", "4"]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "hpc" / "profiles").glob("*.yaml")))
def test_included_profiles_are_valid(path: Path) -> None:
    assert isinstance(load_profile(path), LocalProfile | SlurmProfile)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(90, 90), ("90", 90), ("90:30", 91), ("04:00:00", 240), ("1-12", 2160), ("2-00:30", 2910),
     ("1-00:00:01", 1441)],
)  # fmt: skip
def test_time_limits_follow_sbatch(text: int | str, expected: int) -> None:
    assert time_limit_minutes(text) == expected


@pytest.mark.parametrize(("time", "expected"), [(1, 15), (4, 60), ("04:00:00", 90), (None, 90)])
def test_stop_before_is_90_s_or_a_quarter_of_the_time_limit(
    time: int | str | None, expected: float
) -> None:
    assert SlurmProfile(cluster="slurm", time=time).stop_before_or_default == expected


def max_running(arrays: list[PlannedArray]) -> int:
    """Return the largest number of tasks that can run at once.

    Arrays that wait for others form sequences, of which one runs at a time.
    """
    first_of: list[int] = []
    running: Counter[int] = Counter()
    for number, array in enumerate(arrays):
        first = number if array.predecessor is None else first_of[array.predecessor]
        first_of.append(first)
        running[first] = max(running[first], array.throttle)
    return running.total()


@given(
    count=st.integers(1, 300),
    per_task=st.integers(1, 9),
    max_array=st.integers(1, 40),
    throttle=st.none() | st.integers(1, 50),
)
def test_arrays_contain_every_point_once_within_the_limits(
    count: int, per_task: int, max_array: int, throttle: int | None
) -> None:
    points = [str(i) for i in range(count)]
    arrays = divide_into_arrays(points, per_task=per_task, max_array=max_array, throttle=throttle)
    assert [point for array in arrays for point in array.points] == points
    for number, array in enumerate(arrays):
        assert 1 <= array.tasks <= max_array
        assert (array.tasks - 1) * per_task < len(array.points) <= array.tasks * per_task
        assert 1 <= array.throttle <= array.tasks
        assert array.predecessor is None or 0 <= array.predecessor < number
    if throttle is not None:
        assert max_running(arrays) <= throttle


@pytest.mark.parametrize("key", SlurmProfile.model_fields)
def test_every_slurm_key_is_documented(key: str) -> None:
    assert f"`{key}`" in (REPOSITORY / "docs" / "slurm.md").read_text()
