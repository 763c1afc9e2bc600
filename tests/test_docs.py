"""Every command in README and docs is run, by this file or by a different test."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import flexhpc_output
from tests.conftest import FLEXHPC, REPOSITORY, SMALL_SPEC
from tests.data.writers import cifar_batch, write_cifar10, write_images, write_text

PAGES = [
    REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md",
    *(page for page in sorted((REPOSITORY / "docs").glob("*.md")) if page.name != "spec_keys.md"),
]  # fmt: skip
PROGRAMS = ("flexhpc ", "make ", "python ", "podman ", "hpc/container/", "hpc/devcluster/")

SETUP = {
    "flexhpc unpack FILE": "flexhpc pack runs/small",
    "python -m bench.perceptron_shortfall RUN PLOT":
        "flexhpc sweep perceptron --set data.dims=[8,16] --set training.epochs=[30]",
}  # fmt: skip
"""Commands that write the run or the file that a command reads."""

PLACEHOLDERS = {
    "perceptron_shortfall RUN PLOT": "perceptron_shortfall runs/perceptron plot.png",
    "SPEC": "small.yaml", "SPEC=...": "SPEC=small.yaml", "sweep ...": "sweep small.yaml",
    "SPEC=sweeps/quickstart.yaml": "SPEC=small.yaml", "sweep quickstart": "sweep small.yaml",
    "sweep mini/finetune_methods --set model.pretrained=digits.safetensors": "sweep small.yaml",
    "sweep mini/lora_rank --set model.pretrained=gpt.safetensors": "sweep small.yaml",
    "probe facts.yaml --n 300": "probe small.yaml --point 2 --n 20",
    "compare RUN": "compare runs/small --by model.width",
    "compare runs/gelu": "compare runs/small --by model.width",
    "gelu.yaml": "small.yaml", "runs/widths": "runs/small", "[--by KEY]": "--by model.width",
    "[-o FILE]": "-o other.zip", "unpack FILE": "unpack small.zip --runs others",
    "RUN...": "runs/small", "RUN": "runs/small", "runs/NAME": "runs/small", "URI": "sqlite:///v.db",
    "SOURCE": "digits", "--point 3 --n 500": "--point 2 --n 20",
    "[SET=\"key=value ...\"]": "SET=name=other", "[--watch]": "", "~/": "home/", "/data/": "data/",
}  # fmt: skip
"""Values of the placeholders in commands."""

RUN_ELSEWHERE = {
    "flexhpc ui": ("tests/tracking/test_sync.py", '"ui", str(folder.path)'),
    "flexhpc sweep quickstart": ("tests/test_package.py", '"sweep", "quickstart"'),
    "flexhpc sweep trainers": ("tests/custom/test_trainers.py", '"sweep", path'),
    "flexhpc data prepare SOURCE": ("tests/data/test_packed.py", '"data", "prepare"'),
    "flexhpc data prepare my_data:load": ("tests/data/test_formats.py", '"sets:Set"'),
    "python -m flexhpc": ("tests/cli/test_main.py", '"-m", "flexhpc"'),
    "python -m build": ("tests/test_package.py", "build_meta.build_sdist"),
    "make lint": (".ci/run", "make lint"),
    "make test": (".ci/run", "make test"),
    "make test-containers": (".ci/run", "make test-containers"),
    "make image": ("tests/container/conftest.py", '"make", "image"'),
    "make sif": ("tests/container/conftest.py", 'make("sif"'),
    "make local": ("tests/container/test_image.py", 'make("local"'),
    "make devcluster-up": ("tests/slurm/conftest.py", '"up.sh"'),
    "make sweep SPEC=sweeps/vit_width.yaml PROFILE": ("tests/slurm/test_sweeps.py", '"--profile"'),
    "hpc/devcluster/up.sh": ("tests/slurm/conftest.py", '"up.sh"'),
    "hpc/container/packages.sh": ("Makefile", "hpc/container/packages.sh"),
    "hpc/container/base.sh": ("tests/container/conftest.py", "base.sh"),
    "podman": ("tests/container/conftest.py", '"podman"'),
    "flexhpc sweep --detach": ("tests/launch/test_interruptions.py", '"--detach"'),
    "make sweep SPEC=sweeps/mini": ("tests/test_docs.py", "SPEC=small.yaml"),
    "make sweep SPEC=sweeps/gpt.yaml": ("tests/training/test_sequences.py", "family: gpt"),
    "make docs": ("tests/test_docs.py", '"-m", "sphinx"'),
    "make docs-check": ("tests/test_docs.py", '"-t", "pages"'),
    "python -m bench.search": ("tests/test_bench_search.py", "from bench.search.__main__"),
    "python -m bench.recipe": ("tests/test_bench_recipe.py", '"-m", "bench.recipe"'),
    "python -m bench.recipe.full_batch": ("tests/test_bench_recipe.py", "full_batch"),
    "python -m bench.findings --keep": ("tests/test_bench_findings.py", "save_records("),
    "python -m bench.findings --replicate": ("tests/test_bench_findings.py", "agreement("),
    "flexhpc data check": ("tests/data/test_packed.py", '"data", "check"'),
}
"""Beginnings of commands that a different file runs: the file, and a text in it."""

NOT_RUN = (
    "make check", "make coverage", "make test-full", "make test-slow", "make bench",
    "make test-faults", "make test-speeds",
    "make gpu-check", "make recipe",
)  # fmt: skip
"""Targets that run these tests or take an hour: only `make -n` is run."""

SHORT_OPTIONS = {
    "python -m bench.search.calibration": "--draws 2",
    "python -m bench.search.arms": "--replays 1",
    "python -m bench.perceptron_coverage": "--runs 2 --dims 20",
    "python -m bench.recipe.evaluations": "--trainings 1",
    "python -m bench.speed.optimizations": "--rounds 1",
    "python -m bench.speed": "--networks 'MLP 8' --rounds 1 --seconds 0.1",
    "python -m tests.reference.table": "linear_gd_digits",
    "python -m bench.soak": "--points 20",
    "python -m tests.mutations --faults": "'no space on the disk'",
    "python -m tests.faults.fuzz --count 10000": "--count 20",
    'python -m tests.faults --minutes 5 --kind "full disk"': "--minutes 0.01",
}  # fmt: skip
"""Options with which benchmarks are fast."""


def commands() -> dict[str, str]:
    """Return the commands on all pages, each with the name of a page."""
    pages: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text()
        spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
        lines = [re.split(r" {2,}| #", line[4:].removeprefix("$ "))[0]
                 for line in text.splitlines() if line.startswith("    ")]  # fmt: skip
        for candidate in [*spans, *lines]:
            command = candidate.strip().replace("\\|", "|")
            if command.startswith(PROGRAMS) and not command.endswith("/"):
                pages.setdefault(command, page.name)
    return pages


def is_run_here(command: str) -> bool:
    excluded = (*RUN_ELSEWHERE, *NOT_RUN)
    return not any(re.match(rf"{re.escape(start)}(?![A-Za-z.-])", command) for start in excluded)


COMMANDS = commands()
RUN_HERE = [command for command in COMMANDS if is_run_here(command)]
BENCHMARKS = [command for command in RUN_HERE if re.match(r"python (-m )?(bench|tests)", command)]


def runnable(command: str) -> str:
    """Replace placeholders, include all options, and use the first of alternative values.

    The name of a command without arguments becomes its `--help`.
    """
    for placeholder, value in PLACEHOLDERS.items():
        after = "(?![A-Za-z=])" if placeholder[-1].isalpha() else ""
        command = re.sub(rf"(?<![A-Za-z]){re.escape(placeholder)}{after}", value, command)
    bare = re.fullmatch(r"flexhpc (data )?[a-z][a-z-]*", command)
    command = re.sub(r"\|[a-z]+", "", command)
    return re.sub(r"\[(--[^]]*|[A-Z]+=[^ ]+)\]", r"\1", command) + (" --help" if bare else "")


@pytest.fixture
def folder(small_run: Path, tmp_path: Path) -> Path:
    """A checkout made of symbolic links, with separate runs and data.

    Its environment is marked as installed: `make install` would change the real environment.
    """
    for path in REPOSITORY.iterdir():
        if path.name in ("docs", "sweeps"):
            shutil.copytree(path, tmp_path / path.name)
        elif path.name not in ("runs", "data", "site", ".venv"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".venv").mkdir()
    for path in (REPOSITORY / ".venv").glob("*"):
        (tmp_path / ".venv" / path.name).symlink_to(path)
    (tmp_path / ".venv" / ".installed").touch()
    (tmp_path / "small.yaml").write_text(SMALL_SPEC)
    shutil.copytree(small_run, tmp_path / "runs" / "small")
    write_images(tmp_path / "data" / "imagenet", {"a": 4, "b": 4})
    write_cifar10(tmp_path / "home" / "cifar", [cifar_batch(20, "labels", 10) for _ in range(5)])
    write_text(
        tmp_path / "credit.csv", "id,x,y\n" + "".join(f"{k},{k % 7},{k % 2}\n" for k in range(20))
    )
    return tmp_path


def run(command: str, folder: Path) -> None:
    """Run a command in a folder with bash, or, if it is simple and of flexhpc, in this process."""
    words = shlex.split(command)
    if words[0] == "flexhpc" and not set(command) & set("*?$~|<>;&`{}"):
        flexhpc_output(folder, *words[1:])
        return
    path = f"{FLEXHPC.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path, "COLUMNS": "200"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.full_budget
@pytest.mark.sweeps
@pytest.mark.parametrize("command", [c for c in RUN_HERE if c not in BENCHMARKS])
def test_a_command_runs(command: str, folder: Path) -> None:
    run(SETUP.get(command, "true"), folder)
    run(runnable(command), folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_runs(command: str, folder: Path) -> None:
    run(SETUP.get(command, "true"), folder)
    run(f"{runnable(command)} {SHORT_OPTIONS.get(command, '')}", folder)


@pytest.mark.parametrize("command", RUN_ELSEWHERE)
def test_a_command_that_is_not_run_here_is_run_by_a_different_file(command: str) -> None:
    file, text = RUN_ELSEWHERE[command]
    assert text in (REPOSITORY / file).read_text()
    assert any(c.startswith(command) for c in COMMANDS), "the command is on no page"


@pytest.mark.parametrize("command", NOT_RUN)
def test_the_makefile_has_the_target(command: str) -> None:
    assert command in COMMANDS
    subprocess.run([*command.split(), "-n"], cwd=REPOSITORY, check=True, capture_output=True)


def test_commands_of_several_pages_are_collected() -> None:
    assert {"README.md", "data.md", "search.md"} <= {*COMMANDS.values()}
    assert len(RUN_HERE) > 40


def build_site(folder: Path, *options: str) -> Path:
    """Build the site as `make docs` does; return its folder docs."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *options, "-b", "html",
         "-c", "docs", "-d", folder / "trees", ".", folder / "site"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site" / "docs"


def test_pages_build_without_warnings(tmp_path: Path) -> None:
    pages = build_site(tmp_path, "-t", "pages")
    assert {f"{page.stem}.html" for page in (REPOSITORY / "docs").glob("*.md")} <= {
        page.name for page in pages.iterdir()
    }


@pytest.mark.slow
def test_the_site_contains_the_api_reference(tmp_path: Path) -> None:
    reference = (build_site(tmp_path) / "api" / "flexhpc.search.html").read_text()
    assert "flexhpc.search.next_probes" in reference
