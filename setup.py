"""Copy sweeps/ and hpc/profiles/ into the wheel; everything else is in pyproject.toml."""

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
            if Path(folder).is_dir():
                target = Path(self.build_lib, "flexhpc", target_name)
                shutil.copytree(folder, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithSpecs})
