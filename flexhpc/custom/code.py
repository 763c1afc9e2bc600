"""Code that users bring along: a network or a data set of their own, as ``module:name``.

A name is found beside the spec or on Python's path. Which version of it was meant says a hash of
its source: of the module, and of all modules beside it that it imports. Reading a spec finds and
hashes a module, but never runs it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    entry_points,
    packages_distributions,
)
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.custom.time_limit import TimeLimit, TookTooLong, none_left
from flexhpc.errors import PointError, one_line

NAME = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
"""What a name looks like."""
LIVE = "python"
"""Module of names that stand for objects of the running Python, as :func:`keep` was given them."""
PACKAGE = Path(__file__).parent.parent
"""Folder of the package flexhpc. A checkout, and folders of users, may be called flexhpc too."""
INSTALLED = ("site-packages", "dist-packages")
"""Names of folders on Python's path that hold installed packages."""
_kept: dict[tuple[str, str], Any] = {}
_imported: dict[str, str] = {}
"""Module -> the hash with which this process imported it."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Where a name was found, and in which version.

    Attributes:
        folder: what has to be on Python's path for it; empty for what is installed.
        hash: of its source.
    """

    folder: str
    hash: str


def find(name: str, beside: Path | None) -> Code:
    """Find the module of a name and hash its source; nothing of it is run.

    Args:
        name: ``module:name``; beside: the folder of the spec, searched before Python's path.

    Raises:
        LookupError: there is no such module; one line.
    """
    module = name.partition(":")[0]
    if module == LIVE:
        versions = [version for kept, version in _kept if kept == name]
        if not versions:
            raise LookupError("lives in the Python that measured it, which this is not")
        return Code(folder="", hash=versions[-1])
    if beside is not None and _file(module, beside):
        root = beside.resolve()
        files = _closure(module, root, "")
    else:
        root = _root_on_path(module, beside)
        if root.name in INSTALLED:
            return Code(folder="", hash=hash_of({module: _release(module).encode()}))
        files = _closure(module, root, module.split(".")[0])
    if module not in files:
        raise LookupError(f"there is no module {module} in {root}")
    return Code(folder=str(root), hash=hash_of({m: f.read_bytes() for m, f in files.items()}))


@cache
def registered(kind: str) -> dict[str, str]:
    """Return what installed packages offer: name -> ``module:name``.

    Args:
        kind: ``models``, ``data`` or ``trainers``, for the entry points ``flexhpc.models`` etc.
    """
    return {one.name: one.value for one in entry_points(group=f"flexhpc.{kind}")}


def is_installed(file: Path) -> bool:
    """Return whether a file belongs to Python, to an installed package or to flexhpc.

    A folder called site-packages counts only if it is on Python's path.
    """
    folders = [Path(folder) for folder in sys.path if Path(folder).name in INSTALLED]
    library = (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return any(file.is_relative_to(folder) for folder in (PACKAGE, *library, *folders))


def load(name: str, code: Code, *, pinned: bool, key: str) -> Any:
    """Import what a name stands for.

    Args:
        name: ``module:name``.
        code: where it was found when the spec was read.
        pinned: whether the spec says a version by itself, whatever the source.
        key: of the spec, for messages.

    Raises:
        PointError: it cannot be imported, or its source is no longer what it was.
    """
    if name.startswith(f"{LIVE}:"):
        with contextlib.suppress(KeyError):
            return _kept[name, code.hash]
        raise PointError(f"{key}: {name} lives in the Python that measured it; measure it there")
    module, _, path = name.partition(":")
    if not pinned:
        _check_source(name, code, key)
        if _imported.get(module, code.hash) != code.hash:
            raise PointError(
                f"{key}: {module} was edited after this Python imported it; restart it"
            )
    if code.folder and code.folder not in sys.path:
        sys.path.insert(0, code.folder)
    found: Any = run(f"{key}: importing {module}", lambda: importlib.import_module(module))
    _imported.setdefault(module, code.hash)
    for part in path.split("."):
        if not hasattr(found, part):
            raise PointError(f"{key}: there is no {path} in {module} ({found.__file__})")
        found = getattr(found, part)
    return found


def run(what: str, call: Callable[[], Any], seconds: float | None = None) -> Any:
    """Run something of a user's; what goes wrong there is said in one line.

    Its traceback goes to stderr, which is the log of the point. A process that it forked ends here.

    Args:
        what: for the message, as ``model.family: my_nets:Net``.
        seconds: longest that it may take; None for any time.

    Raises:
        PointError: it raised something, wanted to end the process, or took too long.
    """
    process = os.getpid()
    limit = contextlib.nullcontext() if seconds is None else TimeLimit(seconds, what)
    try:
        with in_time(), limit:
            return call()
    except (PointError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit of theirs must not end our worker
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not Path(frame.filename).is_relative_to(PACKAGE)]
        traceback.print_exception(type(error), error, error.__traceback__)
        where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
        name = type(error).__name__
        raise PointError(f"{what} raised {name}: {one_line(error)}{where}") from None
    finally:
        if os.getpid() != process:
            os._exit(0)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Have a call of a user's that took too long fail a point; where it was goes to stderr.

    Raises:
        PointError: a time limit inside ended it.
    """
    try:
        with none_left():
            yield
    except TookTooLong as error:
        traceback.print_exception(error)
        raise PointError(one_line(error)) from None


def array_of(name: str, given: Any) -> NDArray[Any]:
    """Return what a user's code gave as an array of numbers, or of text.

    Args:
        name: for the message; given: anything that NumPy makes an array of, or a tensor of torch.

    Raises:
        PointError: it is something else.
    """
    try:
        if hasattr(given, "detach"):  # torch's, which this room does not import
            given = given.detach().cpu()
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise PointError(f"{name}: {one_line(error)}") from None
    if array.dtype.kind not in "biufUS":
        what = "array of objects" if array.ndim else type(given).__name__
        raise PointError(f"{name} gave a(n) {what}, not an array of numbers")
    return array


def accepted(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered arguments that a function names among its parameters."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {key: value for key, value in offered.items() if key in parameters}


def keep(name: str, version: str, value: Any) -> str:
    """Keep an object of the running Python under a name; returns the whole name.

    From now on, this version is the one that is found under it.
    """
    whole = f"{LIVE}:{name}"
    _kept.pop((whole, version), None)
    _kept[whole, version] = value
    return whole


def _check_source(name: str, code: Code, key: str) -> None:
    if _imported.get(name.partition(":")[0]) == code.hash:
        return  # what is in memory is what was meant, whatever has become of the file
    try:
        now = find(name, Path(code.folder) if code.folder else None)
    except (LookupError, OSError) as error:
        raise PointError(f"{key}: {name}: {one_line(error)}") from None
    if now.hash != code.hash:
        raise PointError(
            f"{key}: the source of {name} is not what it was when the sweep was started; start it "
            "again, and what the change concerns is measured anew"
        )


def _root_on_path(module: str, beside: Path | None) -> Path:
    """Return the folder of Python's path that holds a module's top-level package."""
    top = module.split(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # of what is no module of a file
        spec = None
    if spec is None:
        where = f"in {beside} nor " if beside is not None else ""
        raise LookupError(f"there is no module {module} {where}on Python's path")
    places = list(spec.submodule_search_locations or ())
    return Path(places[0] if places else str(spec.origin)).parent


def _file(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    tries = (base / "__init__.py", base.with_suffix(".py"))
    return next((file for file in tries if file.is_file()), None)


def _closure(module: str, root: Path, package: str) -> dict[str, Path]:
    """Return the modules in a folder that one of them imports, itself among them.

    Args:
        package: only of this package; empty for all in the folder.
    """
    found: dict[str, Path] = {}
    to_do = [module]
    while to_do:
        name = to_do.pop()
        file = _file(name, root) if name else None
        if file is None or name in found or (package and name.split(".")[0] != package):
            continue
        found[name] = file
        to_do += [name.rpartition(".")[0], *_imports(name, file)]
    return found


def _imports(module: str, file: Path) -> Iterator[str]:
    """Yield names of modules that one may import; a file that is no Python imports none."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(above if node.level else []), *([node.module] if node.module else [])]
            )
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _release(module: str) -> str:
    """Return distribution and version of an installed module."""
    top = module.split(".")[0]
    try:
        return f"{top} {distribution(top).version}"
    except PackageNotFoundError:
        names = packages_distributions().get(top, [top])
        with contextlib.suppress(PackageNotFoundError):
            return f"{names[0]} {distribution(names[0]).version}"
        return top


def hash_of(texts: Mapping[str, bytes]) -> str:
    """Return a hash of named texts, whatever their order."""
    whole = hashlib.sha256()
    for name in sorted(texts):
        whole.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    return whole.hexdigest()[:16]
