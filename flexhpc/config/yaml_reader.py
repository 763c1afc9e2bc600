"""YAML with line numbers and without the implicit conversions of YAML 1.1.

PyYAML composes the node graph; this module converts nodes to plain values with the YAML 1.2 core
schema (https://yaml.org/spec/1.2.2/#103-core-schema): ``1e-3`` is a number, ``no`` and ``on`` are
text, ``010`` is ten, and a duplicate key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flexhpc.atomic import read_plain
from flexhpc.errors import InputError, one_line

_NULL = re.compile(r"(~|null|Null|NULL|)\Z")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)\Z")
_NAN = re.compile(r"\.(nan|NaN|NAN)\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_NUMBER = 300
"""Maximum number of digits of a number; larger integers exceed the range of float64."""
_LARGEST_FILE = 4_000_000
_MOST_VALUES = 1_000_000

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error in a user's file: ``file:line: key: problem, reason, fix``."""

    file: str
    line: int
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: {self.what}"


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise an InputError with all problems, sorted by line, if there are any."""
    lines = [str(p) for p in sorted(problems, key=lambda p: (p.line, p.key))]
    if lines:
        raise InputError(dict.fromkeys(lines))


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed file.

    Attributes:
        file: the name shown in errors.
        value: plain dicts, lists and scalars.
        lines: line number (from 1) of every value, by its path of keys and list positions.
        problems: errors found while parsing (duplicate keys and similar).
    """

    file: str
    value: Any
    lines: dict[Path_, int]
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path_) -> int:
        """Return the line number of ``path``, or of its nearest ancestor in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def scalar(text: str) -> Any:
    """Return the value of a plain (unquoted) scalar by the YAML 1.2 core schema."""
    if _NULL.match(text):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.match(text):
        return int(text)
    if _HEX.match(text):
        return int(text, 16)
    if _FLOAT.match(text):
        return float(text)
    if _INF.match(text):
        return float(text.replace(".", ""))
    if _NAN.match(text):
        return float("nan")
    return text


def parse(text: str, file: str) -> Document:
    """Parse YAML text.

    Raises:
        InputError: the text is not valid YAML, or not a mapping.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{file}:{line}: not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        what = one_line(error)
        raise InputError(f"{file}:1: not valid YAML: {what}") from None
    except RecursionError:
        raise InputError(f"{file}:1: not valid YAML: nested too deeply") from None
    if node is None:
        raise InputError(f"{file}:1: the file is empty; see sweeps/quickstart.yaml for an example")
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{file}:1: must be a mapping of keys to values")
    builder = _Builder(file)
    value = builder.build(node, (), ())
    return Document(file=file, value=value, lines=builder.lines, problems=builder.problems)


def read(path: Path) -> Document:
    """Read and parse a file.

    Raises:
        InputError: the file cannot be read, or is not valid YAML.
    """
    try:
        text = read_plain(path, _LARGEST_FILE).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}:1: not a text file in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return parse(text, str(path))


class _Builder:
    """Converts a node graph to plain values, and collects line numbers and problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path_, int] = {}
        self.problems: list[Problem] = []

    def problem(self, node: yaml.Node, path: Path_, what: str) -> None:
        key = ".".join(map(str, path)) or "(top)"
        line = node.start_mark.line + 1
        self.problems.append(Problem(file=self.file, line=line, key=key, what=what))

    def build(self, node: yaml.Node, path: Path_, above: tuple[int, ...]) -> Any:
        self.lines[path] = node.start_mark.line + 1
        if len(self.lines) > _MOST_VALUES:
            raise InputError(f"{self.file}:1: holds more than {_MOST_VALUES} values once expanded")
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self.problem(node, path, f"the tag {node.tag} is not supported; write a plain value")
        if id(node) in above:
            self.problem(node, path, "an alias that contains itself")
            return None
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i), above) for i, child in enumerate(node.value)]
        if _CONTROL.search(node.value) and "kwargs" not in path:
            what = "holds a control character or the end of a line; leave it out"
            self.problem(node, path, what)
        if getattr(node, "style", None) is not None:
            return node.value
        return scalar(node.value)

    def mapping(self, node: yaml.MappingNode, path: Path_, above: tuple[int, ...]) -> Any:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, "a key must be plain text")
                continue
            key = str(key_node.value)
            if _CONTROL.search(key):
                self.problem(key_node, path, "a key holds a control character; leave it out")
                continue
            if key == "<<":
                self.problem(
                    key_node, path, "merge keys (<<) are not supported; write the keys out"
                )
                continue
            if key in result:
                first = self.lines[(*path, key)]
                what = f"this key stands twice (first in line {first}); keep one"
                self.problem(key_node, (*path, key), what)
                continue
            result[key] = self.build(value_node, (*path, key), above)
            self.lines[(*path, key)] = key_node.start_mark.line + 1
        return result


class Dumper(yaml.SafeDumper):
    """A dumper that quotes every text that :func:`scalar` would convert to another value."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if scalar(value) == value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


Dumper.add_representer(str, _text)
