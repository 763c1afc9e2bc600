"""Copies sweeps/ and hpc/profiles/ into a wheel; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithSpecs(build_py):
    """Builds the package, with the specs and profiles that come with it."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        for folder, inside in (("sweeps", "specs"), ("hpc/profiles", "profiles")):
            if Path(folder).is_dir():
                target = Path(self.build_lib, "flexhpc", inside)
                shutil.copytree(folder, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithSpecs})
