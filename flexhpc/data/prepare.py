"""The command ``flexhpc data prepare``: pack a data set into one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexhpc.config.nested import with_value
from flexhpc.config.sections.base import LOCATION
from flexhpc.config.sections.data import Data
from flexhpc.config.tuned_section import build_section
from flexhpc.config.variants import variants, with_default_variant
from flexhpc.config.yaml_reader import parse_yaml
from flexhpc.data.packed import PackedFile, Progress, is_packed, open_packed, write_packed
from flexhpc.data.sources import open_original_files, reading_options
from flexhpc.errors import InputError, PointError

_SUFFIXES = frozenset({".csv", ".parquet", ".npz", ".gz", ".bz2", ".xz", ".zip", ".zst", ".tar"})


def pack_data_set(
    source: str,
    keys: Mapping[str, Any],
    overrides: Sequence[str] = (),
    out: Path | None = None,
    progress: Progress = lambda *_: None,
) -> PackedFile:
    """Pack a data set into one file and return the file.

    Args:
        source: value of ``data.source``.
        keys: keys of the ``data`` section; keys with the value None are omitted.
        overrides: keys to add or replace, each as ``data.KEY=VALUE``.
        out: the output file; None for data/NAME.packed (see :func:`_default_packed_name`).
        progress: see :data:`flexhpc.data.packed.Progress`.

    Raises:
        InputError: a key is invalid, or has no effect on a packed file. The message has one line
            per error.
        PointError: the data cannot be read or is already packed; the output file cannot be written;
            the output file exists, but is not a packed file; or ``out`` is None and the existing
            output file was packed with other keys.
    """
    data = _build_data_section(source, keys, overrides)
    if data.location is not None and is_packed(Path(data.location).expanduser()):
        raise PointError(
            f"data.{data.location_key()}: {data.location} is already packed; use it as it is"
        )
    packed_keys = reading_options(data)
    target = out or Path("data") / f"{_default_packed_name(data)}.packed"
    try:
        _check_overwrite(target, None if out is not None else packed_keys)
        return write_packed(open_original_files(data, 0), packed_keys, target, progress)
    except OSError as error:
        raise PointError(
            f"{target}: cannot be written ({error.strerror}); choose another path with --out"
        ) from None


def _default_packed_name(data: Data) -> str:
    """Return the default name of the packed file, without ``.packed``.

    If the source requires a location, this is the name of the file or folder there, without
    suffixes such as ``.csv.gz``. Otherwise, this is the name of the source.
    """
    key = data.location_key()
    if key is None or data.location is None or not type(data).model_fields[key].is_required():
        return data.source
    path = Path(data.location).expanduser().resolve()
    while not path.is_dir() and path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name or data.source


def _check_overwrite(out: Path, keys: dict[str, Any] | None) -> None:
    """Raise PointError if ``out`` exists and is not a packed file, or was packed with other keys.

    ``keys`` are the keys of the new file; if they are None, the keys of the existing file are not
    compared. A damaged packed file raises no error, so that it is replaced.
    """
    if not out.exists():
        return
    if not is_packed(out):
        raise PointError(
            f"{out}: already exists and is not a packed file; choose another path with --out"
        )
    try:
        existing = open_packed(out).keys
    except PointError:
        return
    if keys is not None and existing != keys:
        settings = ", ".join(f"{key}: {value}" for key, value in existing.items())
        raise PointError(
            f"{out}: already exists and was packed with {settings}; choose another path with --out"
        )


def _allowed_keys(source: str) -> list[str]:
    """Return the ``data`` keys that can be set when a data set is packed.

    If the source is unknown, return the keys of all sources.
    """
    known = variants("data")
    classes = [known[source]] if source in known else known.values()
    keys = {
        key: None
        for cls in classes
        if issubclass(cls, Data)
        for key in (*cls.fields_with_mark(LOCATION), *cls.reading_keys())
    }
    return [key for key in keys if key != "source"]


def _build_data_section(source: str, keys: Mapping[str, Any], overrides: Sequence[str]) -> Data:
    values = {key: value for key, value in keys.items() if value is not None}
    problems: list[str] = []
    allowed = _allowed_keys(source)
    for text in overrides:
        key, equals, value = text.partition("=")
        name = tuple(key.strip().removeprefix("data.").split("."))
        parsed = parse_yaml("value: " + value, f"--set {text}")
        if not equals or name[0] not in allowed:
            problems.append(
                f"--set {text}: must be data.KEY=VALUE with KEY one of {', '.join(allowed)}; "
                "other keys of data belong in the spec, because they do not affect a packed file"
            )
        problems += [str(problem) for problem in parsed.problems]
        values = with_value(values, name, parsed.value.get("value"))
    if not problems:
        values = with_default_variant("data", values | {"source": source}, None)
        built, key_problems = build_section("data", values, folder=Path.cwd())
        problems = [f"data.{'.'.join(map(str, p))}: {problem}" for p, problem in key_problems]
        section = built.section if built is not None else None
        if isinstance(section, Data) and section.seeded:
            problems = [f"data.source: {source} is generated from the seed and cannot be packed"]
        if isinstance(section, Data) and not problems:
            return section
    raise InputError(problems)
