"""The documentation as a site: `make docs` writes site/docs/index.html.

Sources are named from the repository on, docs/search and not search: that one is Sphinx's own page.
"""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

REPOSITORY = Path(__file__).resolve().parent.parent

project = "flexhpc"
author = "the flexhpc developers"
version = release = installed("flexhpc")

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md"]

html_theme = "furo"
html_title = f"flexhpc {version}"
html_copy_source = False

myst_heading_anchors = 3

apidoc_modules = [
    {
        "path": str(REPOSITORY / "flexhpc"),
        "destination": "docs/api",
        "automodule_options": {"members", "show-inheritance", "ignore-module-all"},
        "separate_modules": True,
        "module_first": True,
        "max_depth": 2,
    }
]
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
suppress_warnings = ["ref.python"]
"""Sections and what does them share names; each is linked from its own page."""

# The module reference takes minutes, the pages alone seconds: `sphinx -t pages` builds only these.
if tags.has("pages"):  # noqa: F821  # Sphinx defines `tags`
    exclude_patterns = ["docs/api/**"]
    suppress_warnings += ["toc.excluded"]
else:
    include_patterns += ["docs/api/**.rst"]
    extensions += [
        "sphinx.ext.autodoc", "sphinx.ext.apidoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    ]  # fmt: skip


def _code(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Set `code` of docstrings, which say it as Markdown does, as code."""
    code = re.compile(r"(:\w+:`[^`]+`|``[^`]+``)|`([^`]+)`")  # roles and code stay as they are
    lines[:] = [code.sub(lambda m: m[1] or f"``{m[2]}``", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Register what this page adds to Sphinx."""
    if "sphinx.ext.autodoc" in app.extensions:
        app.connect("autodoc-process-docstring", _code, priority=100)
