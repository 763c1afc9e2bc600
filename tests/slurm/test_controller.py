"""The controller fails, sbatch lies, there is no accounting: nothing is lost or doubled."""

from __future__ import annotations

import json
from pathlib import Path

from tests.launch.test_sweep import contents
from tests.slurm.conftest import Cluster, finish
from tests.slurm.test_sweeps import locally, submissions, write_spec


def attempts(run: Path) -> list[int]:
    return [json.loads(path.read_text())["attempts"] for path in run.glob("points/*/*.claim.json")]


def test_thirty_points_in_arrays_of_eight_keep_the_throttle(
    small_cluster: Cluster, tmp_path: Path
) -> None:
    """Without accounting; the throttle is counted while they run."""
    spec = write_spec(tmp_path, "  model.width: [2, 3, 4]\n  seed: [0,1,2,3,4,5,6,7,8,9]\n")
    profile = small_cluster.profile(tmp_path, throttle=3)
    sweep = small_cluster.sweep(spec, profile)
    most = 0
    while sweep.poll() is None:
        most = max(most, sum(row[2] == "RUNNING" for row in small_cluster.queue()))
        try:
            sweep.wait(0.3)
        except Exception:
            continue
    output = finish(sweep)
    assert sweep.returncode == 0, output
    run = tmp_path / "runs" / "quick"
    assert [array["tasks"] for array in submissions(run)] == [8, 8, 8, 6]
    assert most == 3
    assert attempts(run) == [1] * 30
    assert contents(run) == locally(spec)
