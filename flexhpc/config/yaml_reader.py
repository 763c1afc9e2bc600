"""Read YAML with line numbers and without the implicit conversions of YAML 1.1.

PyYAML composes the node graph. This module converts its nodes to Python values according to the
YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema): ``1e-3`` is a number, ``no``
and ``on`` are text, and ``010`` is ten. A duplicate key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flexhpc.atomic import read_regular_file
from flexhpc.errors import InputError, one_line_message

_NULL = ("", "~", "null", "Null", "NULL")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBERS: list[tuple[str, Callable[[str], float]]] = [
    (r"[-+]?[0-9]+(_[0-9]+)*", int),
    (r"0x[0-9a-fA-F]+", lambda text: int(text, 16)),
    (r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
]
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_MAX_NUMBER_LENGTH = 300
"""Maximum length of a number in characters. Longer scalars are read as text, because a longer
integer can exceed the range of float64."""
_MAX_FILE_BYTES = 4_000_000  # bytes
_MAX_VALUES = 1_000_000

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error in a user's file or in an override: ``file:line: key: problem; fix``.

    Attributes:
        source: name of the file, or the option ``--set key=value``.
        line: line number (from 1); 0 for an override.
        key: key whose value is invalid.
        text: the problem and its fix.
    """

    source: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.source}{line}: {self.key}: {self.text}"


def raise_if_problems(problems: Iterable[Problem]) -> None:
    """Raise an InputError with all problems, sorted by line, if there are any."""
    lines = [str(p) for p in sorted(problems, key=lambda p: (p.line, p.key))]
    if lines:
        raise InputError(dict.fromkeys(lines))


@dataclass(kw_only=True)
class Document:
    """A parsed file.

    Attributes:
        file: the name shown in errors.
        value: content of the file as nested dicts, lists and scalars.
        lines: line number (from 1) of every value, by its path of keys and list positions.
        overrides: dotted key -> the option ``--set key=value`` that sets it.
        problems: errors found so far, in the order in which they were added, without duplicates.
    """

    file: str
    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    problems: dict[Problem, None] = field(default_factory=dict)

    def line_number(self, path: KeyPath) -> int:
        """Return the line number of ``path``, or of its nearest ancestor in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def add_problem_at(
        self, path: KeyPath, problem: str, key: str = "", line: int | None = None
    ) -> None:
        """Add a problem with the value at ``path``, if it is not a duplicate.

        The message names ``key``, by default the path, and ``line``, by default the line of the
        value. If an override sets the value, the message names the override instead of the line.
        """
        key = key or ".".join(map(str, path)) or "(top)"
        source, line = self.file, line or self.line_number(path)
        for name, option in self.overrides.items():
            if f"{key}.".startswith(f"{name}."):
                source, line = option, 0
        self.problems[Problem(source=source, line=line, key=key, text=problem)] = None


def parse_scalar(text: str) -> Any:
    """Return the value of a plain (unquoted) scalar according to the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    numbers = _NUMBERS if len(text) <= _MAX_NUMBER_LENGTH else []
    return next((convert(text) for form, convert in numbers if re.fullmatch(form, text)), text)


def parse_yaml(text: str, file: str) -> Document:
    """Parse YAML text; ``file`` is the file name in errors.

    Raises:
        InputError: the text is not valid YAML, or its top level is not a mapping.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1
        problem = " ".join(str(error.problem or error.context).split())
        if r"'\t'" in problem:
            problem += "; indent with spaces instead of tabs"
        raise InputError(f"{file}:{line}: not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}:1: not valid YAML: {one_line_message(error)}") from None
    except RecursionError:
        raise InputError(f"{file}:1: not valid YAML: nested too deeply") from None
    if node is None:
        raise InputError(f"{file}:1: the file is empty; see sweeps/quickstart.yaml for an example")
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{file}:1: the top level must be a mapping of keys to values")
    document = Document(file=file)
    document.value = _convert(document, node, (), ())
    return document


def read_yaml(path: Path) -> Document:
    """Read and parse a file.

    Raises:
        InputError: the file cannot be read, or is not valid YAML.
    """
    try:
        text = read_regular_file(path, _MAX_FILE_BYTES).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}:1: not a text file in UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return parse_yaml(text, str(path))


def _convert(document: Document, node: yaml.Node, path: KeyPath, ancestors: tuple[int, ...]) -> Any:
    """Convert a YAML node to a Python value; add line numbers and problems to the document.

    Args:
        document: the document that contains the node.
        node: the node.
        path: keys and list positions that lead to the node.
        ancestors: ``id()`` of each node that contains the node.
    """
    document.lines[path] = node.start_mark.line + 1
    if len(document.lines) > _MAX_VALUES:
        problem = f"the file contains more than {_MAX_VALUES} values; shorten it"
        raise InputError(f"{document.file}:1: {problem}")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        document.add_problem_at(path, f"the tag {node.tag} is not supported; write a plain value")
    if id(node) in ancestors:
        document.add_problem_at(path, "is an alias that contains itself; remove it")
        return None
    ancestors = (*ancestors, id(node))
    if isinstance(node, yaml.MappingNode):
        return _convert_mapping(document, node, path, ancestors)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(document, x, (*path, i), ancestors) for i, x in enumerate(node.value)]
    if _CONTROL.search(node.value) and "kwargs" not in path:
        document.add_problem_at(path, "contains a control character or line break; remove it")
    return parse_scalar(node.value) if getattr(node, "style", None) is None else node.value


def _convert_mapping(
    document: Document, node: yaml.MappingNode, path: KeyPath, ancestors: tuple[int, ...]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problem = "a key must be plain text, not a list or a mapping"
        elif _CONTROL.search(key):
            problem = "a key contains a control character; remove the character"
        elif key == "<<":
            problem = "merge keys (<<) are not supported; write the keys out"
        elif key in result:
            problem = f"duplicate key (first defined on line {document.lines[*path, key]})"
        else:
            result[key] = _convert(document, value_node, (*path, key), ancestors)
            document.lines[*path, key] = line
            continue
        named = (*path, key) if key in result else path
        document.add_problem_at(named, problem, line=line)
    return result


class Dumper(yaml.SafeDumper):
    """YAML dumper that quotes strings that :func:`parse_scalar` would convert to another type."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if parse_scalar(value) == value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


Dumper.add_representer(str, _represent_text)
