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

from flexhpc.errors import PointError, one_line
from flexhpc.time_limit import TimeLimit, TookTooLong

NAME = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
"""What a name looks like."""
LIVE = "python"
"""Module of names that stand for objects of the running Python, as :func:`keep` was given them."""
_INSTALLED = ("site-packages", "dist-packages")
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
        if root.name in _INSTALLED:
            return Code(folder="", hash=_hash({module: _release(module).encode()}))
        files = _closure(module, root, module.split(".")[0])
    if module not in files:
        raise LookupError(f"there is no module {module} in {root}")
    return Code(folder=str(root), hash=_hash({m: f.read_bytes() for m, f in files.items()}))


@cache
def registered(kind: str) -> dict[str, str]:
    """Return what installed packages offer: name -> ``module:name``.

    Args:
        kind: ``models``, ``data`` or ``trainers``, for the entry points ``flexhpc.models`` etc.
    """
    return {one.name: one.value for one in entry_points(group=f"flexhpc.{kind}")}


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
        ours = str(Path(__file__).parent)
        own = [frame for frame in frames if not frame.filename.startswith(ours)]
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


def source_hash(value: Any) -> str | None:
    """Return a hash of the source of an object, of all of a user's that it names, and of values.

    None where there is no source, as of what was typed into a prompt, and where it names an object
    that nothing tells apart from another, as an array.
    """
    texts: dict[str, bytes] = {}
    if not _collect(value, texts):
        return None
    return _hash(texts)


def _collect(value: Any, texts: dict[str, bytes]) -> bool:
    """Add the source of an object and of what it names; False where it has none."""
    value = inspect.unwrap(value) if callable(value) else value
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    if name in texts:
        return True
    try:
        if getattr(value, "__name__", "") == "<lambda>":
            text = _lambda_source(value)
            name += text.decode()
        else:
            text = inspect.getsource(value).encode()
    except (OSError, TypeError, SyntaxError):
        return False
    texts[name] = text
    return all(_tell(inner, name, texts) for inner in _named_by(value))


def _tell(inner: Any, name: str, texts: dict[str, bytes]) -> bool:
    """Add what tells an object apart that another one names; False where nothing does."""
    if _is_of_a_user(inner):
        return _collect(inner, texts)
    if _is_plain(inner):
        texts[f"{name} {len(texts)}"] = repr(inner).encode()
        return True
    return inspect.ismodule(inner) or inspect.isroutine(inner) or inspect.isclass(inner)


def _is_plain(value: Any) -> bool:
    """Return whether a value is all that its repr says: numbers, text, and what holds them."""
    if isinstance(value, dict):
        return all(_is_plain(inner) for pair in value.items() for inner in pair)
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))


def _lambda_source(function: Any) -> bytes:
    """Return the source of a lambda alone: inspect gives the whole lines around it."""
    lines, _ = inspect.findsource(function)
    spans = [
        (first, start, last, end)
        for first, last, start, end in function.__code__.co_positions()
        if first and last and start is not None and end is not None and (first, start) < (last, end)
    ]
    first, start = min(span[:2] for span in spans)
    last, end = max(span[2:] for span in spans)
    text = [line.encode() for line in lines[first - 1 : last]]  # columns are counted in bytes
    text[-1] = text[-1][:end]
    text[0] = text[0][start:]
    body = ast.unparse(ast.parse(b"(" + b"".join(text) + b")"))
    return f"lambda {inspect.signature(function)}: {body}".encode()


def _named_by(value: Any) -> Iterator[Any]:
    """Yield what a function, or the methods and bases of a class, refer to."""
    if inspect.isclass(value):
        yield from value.__mro__[1:]
        for member in vars(value).values():
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield from _named_by(function)
    elif inspect.isfunction(value):
        names = value.__globals__
        codes = [value.__code__]
        while codes:
            code = codes.pop()
            codes += [const for const in code.co_consts if inspect.iscode(const)]
            yield from (names[name] for name in code.co_names if name in names)
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):
                yield cell.cell_contents


def _is_of_a_user(value: Any) -> bool:
    """Return whether an object is a function or class that was not installed."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return False
    try:
        file = Path(inspect.getfile(value))
    except (OSError, TypeError):
        return True
    installed = {*_INSTALLED, "flexhpc"} & set(file.parts)
    return not installed and not str(file).startswith(sys.base_prefix)


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


def _hash(texts: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(texts):
        whole.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    return whole.hexdigest()[:16]
