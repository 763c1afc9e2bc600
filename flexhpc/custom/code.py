"""Find, hash and import custom code (models, data sets, trainers), specified as ``module:name``.

The module is searched for in the folder of the spec, then on Python's path. A hash identifies the
version of the code. It covers the module and the modules that it imports, directly or indirectly,
from the folder in which the module was found. For an installed package, the name and the version
are hashed. Modules are hashed without being run.
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

from flexhpc.custom.time_limit import TimeLimit, time_limit_as_point_error
from flexhpc.errors import PointError, one_line_message

IMPORT_PATH_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
"""Regular expression of a valid ``module:name``."""
IN_PROCESS = "python"
"""Replaces the module in names of objects from :func:`register_object`, as in ``python:NAME``."""
FLEXHPC_FOLDER = Path(__file__).parent.parent
"""Path of the package flexhpc; absolute because other folders can also be named ``flexhpc``."""
INSTALL_FOLDERS = ("site-packages", "dist-packages")
"""Names of the folders on Python's path that contain installed packages."""
_registered_objects: dict[tuple[str, str], Any] = {}
_hashes_at_import: dict[str, str] = {}
"""Module name -> hash of its source at the time when this process imported the module."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Location and version of custom code.

    Attributes:
        folder: folder to add to Python's path; empty for an installed package or an object
            registered in this process.
        hash: hash of the source; for an installed package, hash of its name and version; for a
            registered object, its version. Empty if the spec specifies a version; changes to the
            source are then ignored.
    """

    folder: str
    hash: str


def find_code(name: str, folder: Path | None) -> Code:
    """Find the module of ``name`` and hash its source, without importing it.

    Args:
        name: ``module:name``.
        folder: folder of the spec, searched before Python's path; if None, only Python's path is
            searched.

    Raises:
        LookupError: the module is not found.
    """
    module = name.partition(":")[0]
    if module == IN_PROCESS:
        versions = [version for stored_name, version in _registered_objects if stored_name == name]
        if not versions:
            raise LookupError(
                "is an object of another Python process; run the sweep in that process"
            )
        return Code(folder="", hash=versions[-1])
    if folder is not None and _module_file(module, folder):
        root = folder.resolve()
    else:
        root = _find_root_on_sys_path(module, folder)
        if root.name in INSTALL_FOLDERS:
            return Code(folder="", hash=hash_texts({module: _installed_version(module).encode()}))
    files = _imported_files(module, root)
    if module not in files:
        raise LookupError(f"no module named {module} in {root}")
    return Code(folder=str(root), hash=hash_texts({m: f.read_bytes() for m, f in files.items()}))


@cache
def entry_point_targets(kind: str) -> dict[str, str]:
    """Return a dict of the entry points of installed packages: entry point -> ``module:name``.

    Args:
        kind: ``models``, ``data`` or ``trainers``; the entry-point group is ``flexhpc.KIND``.
    """
    return {entry.name: entry.value for entry in entry_points(group=f"flexhpc.{kind}")}


def is_installed(file: Path) -> bool:
    """Return whether a file belongs to the standard library, an installed package or flexhpc.

    A file in a folder named site-packages or dist-packages belongs to an installed package only if
    the folder is on Python's path.
    """
    folders = [Path(folder) for folder in sys.path if Path(folder).name in INSTALL_FOLDERS]
    library = (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return any(file.is_relative_to(folder) for folder in (FLEXHPC_FOLDER, *library, *folders))


def import_object(name: str, code: Code, *, key: str) -> Any:
    """Import and return the custom object ``name``.

    Args:
        name: ``module:name``.
        code: location and version of the code when the spec was read.
        key: spec key that is named in error messages.

    Raises:
        PointError: the code cannot be imported, or its source has changed.
    """
    if name.startswith(f"{IN_PROCESS}:"):
        with contextlib.suppress(KeyError):
            return _registered_objects[name, code.hash]
        raise PointError(
            f"{key}: {name} is an object of another Python process; run the sweep in that process"
        )
    module, _, path = name.partition(":")
    if code.hash:
        _check_source(name, code, key)
    if code.folder and code.folder not in sys.path:
        sys.path.insert(0, code.folder)
    value: Any = call_custom_code(
        f"{key}: importing {module}", lambda: importlib.import_module(module)
    )
    if module not in _hashes_at_import:
        _hashes_at_import[module] = code.hash or _find_again(name, code, key).hash
    file = value.__file__
    for part in path.split("."):
        if not hasattr(value, part):
            raise PointError(f"{key}: module {module} has no attribute {path} ({file})")
        value = getattr(value, part)
    return value


def call_custom_code(label: str, call: Callable[[], Any], seconds: float | None = None) -> Any:
    """Call custom code and return its result; convert exceptions to a one-line PointError.

    The traceback is printed to stderr, which is the log of the point. If the code forks, the forked
    process exits at the end of the call.

    Args:
        label: name of the code in error messages, for example ``model.family: my_nets:Net``.
        call: function without arguments that calls the code.
        seconds: time limit; None for no limit.

    Raises:
        PointError: the code raised an exception (including SystemExit), or exceeded the time limit.
    """
    process = os.getpid()
    limit = contextlib.nullcontext() if seconds is None else TimeLimit(seconds, label)
    try:
        with time_limit_as_point_error(), limit:
            return call()
    except (PointError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit in custom code must not stop the worker
        frames = traceback.extract_tb(error.__traceback__)
        user_frames = [
            frame for frame in frames if not Path(frame.filename).is_relative_to(FLEXHPC_FOLDER)
        ]
        traceback.print_exception(error)
        position = f" ({user_frames[-1].filename}:{user_frames[-1].lineno})" if user_frames else ""
        name = type(error).__name__
        raise PointError(f"{label} raised {name}: {one_line_message(error)}{position}") from None
    finally:
        if os.getpid() != process:
            os._exit(0)


def to_array(name: str, value: Any) -> NDArray[Any]:
    """Convert a return value of custom code to an array of numbers or strings.

    Args:
        name: name of the code in error messages.
        value: a torch tensor, or an object that NumPy can convert to an array.

    Raises:
        PointError: the value cannot be converted.
    """
    try:
        if hasattr(value, "detach"):  # a tensor; torch is not imported here
            value = value.detach().cpu()
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise PointError(f"{name}: {one_line_message(error)}") from None
    if array.dtype.kind not in "biufUS":
        label = "an array of objects" if array.ndim else f"an object of type {type(value).__name__}"
        raise PointError(f"{name} returned {label}, not an array of numbers")
    return array


def accepted_arguments(
    function: Callable[..., Any], available: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the items of ``available`` whose keys are names of parameters of ``function``."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {key: value for key, value in available.items() if key in parameters}


def register_object(name: str, version: str, value: Any) -> str:
    """Register an object in this process as the newest version of ``name``.

    Return ``python:NAME``, the string by which a spec refers to the object.
    """
    key = f"{IN_PROCESS}:{name}"
    _registered_objects.pop((key, version), None)
    _registered_objects[key, version] = value
    return key


def _check_source(name: str, code: Code, key: str) -> None:
    """Raise PointError if the source of the module does not have the hash ``code.hash``.

    If this process has already imported the module, its source at the time of the import must have
    this hash.
    """
    module = name.partition(":")[0]
    imported_hash = _hashes_at_import.get(module)
    if imported_hash == code.hash:
        return  # even if the file has changed since then
    current = _find_again(name, code, key)
    if current.hash != code.hash:
        raise PointError(
            f"{key}: the source of {name} has changed since the sweep was started; run the "
            "sweep again to measure the affected points again"
        )
    if imported_hash is not None:
        raise PointError(
            f"{key}: {module} was edited after this Python process imported it; restart Python"
        )


def _find_again(name: str, code: Code, key: str) -> Code:
    """Return the current version of custom code; raise PointError if it is not found."""
    try:
        return find_code(name, Path(code.folder) if code.folder else None)
    except (LookupError, OSError) as error:
        raise PointError(f"{key}: {name}: {one_line_message(error)}") from None


def _find_root_on_sys_path(module: str, folder: Path | None) -> Path:
    """Return the folder on Python's path that contains a module's top-level package."""
    top = module.split(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # modules without a file, for example __main__
        spec = None
    if spec is None:
        position = f"in {folder} or " if folder is not None else ""
        raise LookupError(f"no module named {module} {position}on Python's path")
    locations = list(spec.submodule_search_locations or ())
    return Path(locations[0] if locations else str(spec.origin)).parent


def _module_file(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _imported_files(module: str, root: Path) -> dict[str, Path]:
    """Return the files of a module and of the modules that it imports, directly or indirectly.

    Args:
        module: module whose imports are followed.
        root: folder in which modules are searched; modules in other folders are omitted.

    Returns:
        Dict of module name -> file.
    """
    files: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        file = _module_file(name, root) if name else None
        if file is None or name in files:
            continue
        files[name] = file
        pending += [name.rpartition(".")[0], *_imported_modules(name, file)]
    return files


def _imported_modules(module: str, file: Path) -> Iterator[str]:
    """Yield the names of the modules that the import statements of a file may import.

    ``from a import b`` yields ``a`` and ``a.b``, because ``b`` can be a module. Yield no names if
    the file is not valid Python.
    """
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


def _installed_version(module: str) -> str:
    """Return the name and version of the distribution that contains a module.

    If no distribution is found, return the name of the module's top-level package.
    """
    top = module.split(".")[0]
    try:
        return f"{top} {distribution(top).version}"
    except PackageNotFoundError:
        names = packages_distributions().get(top, [top])
        with contextlib.suppress(PackageNotFoundError):
            return f"{names[0]} {distribution(names[0]).version}"
        return top


def hash_texts(texts: Mapping[str, bytes]) -> str:
    """Return a hash (16 hexadecimal digits) of texts and their names, independent of the order."""
    digest = hashlib.sha256()
    for name in sorted(texts):
        digest.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    return digest.hexdigest()[:16]
