"""Build the package; everything else is in pyproject.toml.

The wheel contains sweeps/ and hpc/profiles/, which MANIFEST.in adds to the sdist. The description
is README.md without its pictures and relative links, which do not work on PyPI.
"""

import re
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


def description() -> str:
    """Return README.md without pictures, and with relative links replaced by their texts."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[.*\n\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https://)[^)]+\)", r"\1", text)


setup(
    cmdclass={"build_py": BuildWithSpecs},
    long_description=description(),
    long_description_content_type="text/markdown",
)
