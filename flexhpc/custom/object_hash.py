"""Hash the source of functions and classes that are passed to the Python API."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flexhpc.custom.code import hash_texts, is_installed


def object_hash(value: Any) -> str | None:
    """Return a hash of the source of an object and of the objects that it refers to.

    The hash includes the sources of custom functions and classes, and the values of numbers,
    strings and containers of these. Return None if the source of an object is unavailable, for
    example because it was defined at an interactive prompt, or if an object has neither a source
    nor a value of these types, for example an array.
    """
    texts: dict[str, bytes] = {}
    return hash_texts(texts) if _collect_sources(value, texts) else None


def _collect_sources(value: Any, texts: dict[str, bytes]) -> bool:
    """Add to ``texts`` the sources of an object and of the objects that it uses.

    Return whether all these objects can be hashed.
    """
    value = inspect.unwrap(value) if callable(value) else value
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    if name in texts:
        return True
    # With `python -c`, Python 3.13 would return the source of the command for every such object.
    if inspect.isfunction(value) and value.__code__.co_filename == "<string>":
        return False
    try:
        if getattr(value, "__name__", "") == "<lambda>":
            text = _lambda_source(value)
            name += text.decode()
        else:
            text = inspect.getsource(value).encode()
    except (OSError, TypeError, SyntaxError):
        return False
    texts[name] = text
    return all(_add_reference(reference, name, texts) for reference in _references(value))


def _add_reference(value: Any, name: str, texts: dict[str, bytes]) -> bool:
    """Add the source or value of an object to ``texts``; return whether the object can be hashed.

    For a module, and for a function or class of an installed package, nothing is added and True is
    returned.

    Args:
        value: object to add.
        name: name of the object that uses ``value``.
        texts: name -> source or value.
    """
    if _is_custom_code(value):
        return _collect_sources(value, texts)
    if _is_plain_value(value):
        texts[f"{name} {len(texts)}"] = repr(value).encode()
        return True
    return inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value)


def _is_plain_value(value: Any) -> bool:
    """Return whether a value is a number, a string, None, or a container of such values."""
    if isinstance(value, dict):
        return all(_is_plain_value(inner) for pair in value.items() for inner in pair)
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain_value, value))
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))


def _lambda_source(function: Any) -> bytes:
    """Return the source of a lambda, without the other code on the same lines."""
    lines, _ = inspect.findsource(function)
    spans = [
        (first, start, last, end)
        for first, last, start, end in function.__code__.co_positions()
        if first and last and start is not None and end is not None and (first, start) < (last, end)
    ]
    first, start = min(span[:2] for span in spans)
    last, end = max(span[2:] for span in spans)
    text = [line.encode() for line in lines[first - 1 : last]]  # column offsets are in bytes
    text[-1] = text[-1][:end]
    text[0] = text[0][start:]
    body = ast.unparse(ast.parse(b"(" + b"".join(text) + b")"))
    return f"lambda {inspect.signature(function)}: {body}".encode()


def _references(value: Any) -> Iterator[Any]:
    """Yield the objects that a function uses.

    For a class, yield its base classes and the objects that its methods use.
    """
    if inspect.isclass(value):
        yield from value.__mro__[1:]
        for member in vars(value).values():
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield from _references(function)
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


def _is_custom_code(value: Any) -> bool:
    """Return whether an object is a custom function or class; see :func:`is_installed`."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return False
    if value.__module__ in sys.builtin_module_names:  # for example object, the base of every class
        return False
    try:
        file = Path(inspect.getfile(value))
    except (OSError, TypeError):
        return True
    return not is_installed(file)
