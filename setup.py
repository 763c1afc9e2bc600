"""Copy sweeps/ and hpc/profiles/ into the wheel; MANIFEST.in adds them to the sdist.

Everything else is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSpecs(build_py):
    """Build the package with the included specs and profiles."""

    def run(self) -> None:
        """Build; copy the specs and profiles unless the installation is editable."""
        super().run()
        if self.editable_mode:
            return
        for folder, target_name in (("sweeps", "specs"), ("hpc/profiles", "profiles")):
            target = Path(self.build_lib, "flexhpc", target_name)
            compiled = shutil.ignore_patterns("__pycache__")
            shutil.copytree(folder, target, ignore=compiled, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithSpecs})
