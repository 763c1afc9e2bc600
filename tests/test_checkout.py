"""A checkout in a folder with a space in its path, used without root privileges."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.archives import copy_checkout
from tests.conftest import FLEXHPC, REPOSITORY, SMALL_SPEC

NOBODY = 65534
UNPRIVILEGED = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    # Allows only to read the Python installation of root.
    "--bounding-set=+dac_read_search", "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)  # fmt: skip


def test_make_quotes_paths_and_lists_the_profiles(tmp_path: Path) -> None:
    spec = tmp_path / "my specs" / "small one.yaml"
    spec.parent.mkdir()
    spec.write_text(SMALL_SPEC.replace("mlp", "mpl"))
    make = ("make", "-o", "install", f"BIN={FLEXHPC.parent}", "sweep", f"SPEC={spec}")
    for profile, message in (
        ("local", f'{spec}:4: model.family: "mpl" is not '),
        ("clutser", "clutser: neither a file nor one of the shipped profiles (devcluster, "),
    ):
        done = subprocess.run(
            [*make, f"PROFILE={profile}"], cwd=REPOSITORY, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert message in done.stderr


@pytest.mark.sweeps
def test_a_checkout_of_a_user_without_privileges(tmp_path: Path) -> None:
    """`make sweep` and `status` in a folder called flexhpc, with a space in its path."""
    home = tmp_path / "a home"
    checkout = home / "flexhpc"
    copy_checkout(checkout)
    (checkout / ".venv").symlink_to(REPOSITORY / ".venv")
    for name in ("pyproject.toml", "constraints.txt", "hpc/hashes.txt"):
        os.utime(checkout / name, (0, 0))  # otherwise `make` installs their packages
    (checkout / "small.yaml").write_text(SMALL_SPEC.replace("[4, 8, 12]", "[4]"))
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv (util-linux) is needed to change the user")
        prefix = UNPRIVILEGED
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    environment = {
        **os.environ, "HOME": str(home), "PYTHONPATH": str(checkout), "USER": "nobody",
        "TMPDIR": str(home),
    }  # fmt: skip

    def run(*command: str) -> str:
        done = subprocess.run(
            [*prefix, *command], cwd=checkout, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python = ".venv/bin/python"
    assert run(python, "-c", "import flexhpc; print(flexhpc.__file__)").startswith(str(checkout))
    assert "EMC" in run("make", "sweep", "SPEC=small.yaml")
    assert (checkout / "runs" / "small" / "report" / "index.html").is_file()
    assert "done" in run(python, "-m", "flexhpc", "status", "small")
