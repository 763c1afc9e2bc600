from __future__ import annotations

from pathlib import Path

from flexhpc.store import RunFolder


def test_started_points_have_a_point_file_claim_or_checkpoint(tmp_path: Path) -> None:
    """Also in a linked folder; temporary files and other files are ignored."""
    run = RunFolder(tmp_path)
    assert run.started_points() == set()
    files = [
        "ab/ab01.h5", "ab/ab01.claim.json", "ab/ab02.claim.json", "ab/.ab03.h5.77.part",
        "cd/cd04.2 n=64 repeat=0.ckpt", ".lock", "notes.txt",
    ]  # fmt: skip
    for name in files:
        path = tmp_path / "points" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ef05.h5").touch()
    (tmp_path / "points" / "ef").symlink_to(tmp_path / "elsewhere")
    assert run.started_points() - {""} == {"ab01", "ab02", "cd04", "ef05"}
