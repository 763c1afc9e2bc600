"""The wheel, installed and used without a checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from flexhpc.shipped import shipped_names
from flexhpc.versions import source_hash
from tests.archives import copy_checkout
from tests.conftest import REPOSITORY, Cli
from tests.test_extending import run_copy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a copy of the checkout, and the wheel from the sdist, as `build` does.

    Images are built without the sdist (tests/container).
    """
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_checkout(source)
    (source / "sweeps" / "__pycache__").mkdir()
    (source / "sweeps" / "__pycache__" / "nets.pyc").touch()
    build_sdist = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", build_sdist], cwd=source, check=True)
    (sdist,) = out.glob("flexhpc-*.tar.gz")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(out), str(sdist)],
        check=True,
    )  # fmt: skip
    (path,) = out.glob("flexhpc-*.whl")
    return path


@pytest.fixture(scope="module")
def installed_package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed") / "lib"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_contains_all_data_files(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    for name in ("py.typed", "analysis/report.html", "launch/slurm/container.sh"):
        assert f"flexhpc/{name}" in names
    assert not [name for name in names if name.startswith(("tests", "bench", "setup"))]
    for folder, target in (("sweeps", "flexhpc/specs"), ("hpc/profiles", "flexhpc/profiles")):
        assert {n: archive.read(n) for n in names if n.startswith(target)} == {
            f"{target}/{path.relative_to(REPOSITORY / folder)}": path.read_bytes()
            for path in (REPOSITORY / folder).rglob("*.*")
            if path.parent.name != "__pycache__"
        }


def test_the_description_has_no_relative_links(wheel: Path) -> None:
    """They would not work on PyPI."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    description = archive.read(metadata).decode().split("\n\n", 1)[1]
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "docs/reading.md explains the other\ncolumns" in description


def test_all_files_have_the_same_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\d.*)$", changelog, flags=re.MULTILINE)
    assert released[0] == f"{project['version']} ({citation['date-released']})"


def test_ci_runs_the_supported_python_versions() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["check"]["strategy"]["matrix"] == {"python-version": supported}
    assert project["requires-python"] == f">={supported[0]}"


def test_included_specs_run_without_a_checkout(installed_package: Path, tmp_path: Path) -> None:
    code = "import flexhpc; print(flexhpc.__file__)"
    assert run_copy(installed_package, tmp_path, code=code).startswith(str(installed_package))
    # A container image, which contains the wheel, must have the same hash as the checkout.
    code = "from flexhpc.versions import source_hash; print(source_hash())"
    assert run_copy(installed_package, tmp_path, code=code).strip() == source_hash()
    assert "mini/optimizers" in run_copy(installed_package, tmp_path, "specs")
    copied = run_copy(installed_package, tmp_path, "specs", "vit_width")
    original = (REPOSITORY / "sweeps" / "vit_width.yaml").read_text()
    assert copied[copied.index("name:") :] == original[original.index("name:") :]
    assert copied.startswith("# flexhpc sweep vit_width\n# Expected: ")
    copied = run_copy(installed_package, tmp_path, "specs", "params_imagenet")
    assert copied.startswith("# flexhpc sweep params_imagenet --set 'data.root=FOLDER'\n")
    commit = ["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "x"]
    for arguments in (["init", "-q"], commit):  # a project of the user around its environment
        subprocess.run(["git", "-C", installed_package.parent, *arguments], check=True)
    one_point = [
        "--set", "model.width=[8]", "--set", "data.labels=[random]", "--set", "training.steps=300",
    ]  # fmt: skip
    run_copy(installed_package, tmp_path, "sweep", "quickstart", "--profile", "local", *one_point)
    rows = json.loads(
        run_copy(installed_package, tmp_path, "results", "runs/quickstart", "--format", "json")
    )
    assert [row["status"] for row in rows] == ["done"]
    run = tmp_path / "runs" / "quickstart"
    assert (run / "report" / "index.html").is_file()
    assert json.loads((run / "run.json").read_text())["git"] is None


def test_messages_do_not_mention_make(cli: Cli) -> None:
    """The wheel contains no Makefile."""
    for name in shipped_names("specs"):
        assert "make sweep" not in cli("specs", name).stdout
    for path in (REPOSITORY / "flexhpc").rglob("*.py"):
        assert "`make " not in path.read_text(), path


def pinned_versions(path: Path) -> dict[str, str]:
    """Return the versions of the packages in a requirements file."""
    lines = path.read_text().splitlines()
    pinned = (line.split()[0].split("==") for line in lines if line and line[0] != "#")
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned}


def test_pinned_versions_have_hashes() -> None:
    assert pinned_versions(REPOSITORY / "hpc" / "hashes.txt") == pinned_versions(
        REPOSITORY / "constraints.txt"
    )


def test_archives_with_a_wrong_hash_are_rejected(tmp_path: Path) -> None:
    lines = (REPOSITORY / "hpc" / "hashes.txt").read_text().splitlines()
    (correct,) = (line for line in lines if line.startswith("filelock=="))
    digit = "0" if correct.split("sha256:")[1][0] != "0" else "1"
    wrong = re.sub("sha256:.", f"sha256:{digit}", correct)
    for line, status in ((correct, 0), (wrong, 1)):
        (tmp_path / "pins.txt").write_text(line + "\n")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
             "--require-hashes", "--no-deps", "-r", str(tmp_path / "pins.txt")],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
    assert "DO NOT MATCH" in done.stderr
