"""The command ``flexhpc data prepare``: which set to pack, as what, and into which file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexhpc.data.pack import pack
from flexhpc.data.packed import Packed, Progress, is_packed, open_packed
from flexhpc.data.sources import open_files, reading_of, where_of
from flexhpc.errors import InputError, PointError
from flexhpc.spec.resolve import resolve
from flexhpc.spec.sections.data import Data, Gaussian
from flexhpc.spec.yaml_reader import parse

_TABLE_ENDS = frozenset({".csv", ".parquet", ".gz", ".bz2", ".xz", ".zip", ".zst", ".tar"})
_KEYS = ("root", "path", "target", "categorical", "drop", "side", "colour")


def prepare(
    source: str,
    given: Mapping[str, Any],
    overrides: Sequence[str],
    out: Path | None,
    progress: Progress,
) -> Packed:
    """Pack a source into one file.

    Args:
        source: value of ``data.source``.
        given: keys of the ``data`` section, None where not given.
        overrides: more of them, as ``data.KEY=VALUE``.
        out: the file; by default data/NAME.packed, named after the source, folder or table.
        progress: hears how far it is.

    Raises:
        InputError: a key is wrong or decides nothing here; one line per error.
        PointError: the data cannot be read, the file cannot be written, or it is there already and
            is no packed one, or by default one that was packed otherwise.
    """
    data = _section(source, given, overrides)
    key, where = where_of(data)
    if where is not None and is_packed(Path(where).expanduser()):
        raise PointError(f"data.{key}: {where} is packed already")
    reading = reading_of(data)
    target = out or Path("data") / f"{_name(data.source, where)}.packed"
    try:
        _refuse_to_overwrite(target, None if out is not None else reading)
        return pack(open_files(data, 0), reading, target, progress)
    except OSError as error:
        raise PointError(
            f"{target}: cannot be written: {error.strerror}; give another --out"
        ) from None


def _name(source: str, where: str | None) -> str:
    """Return how the file is called by default, without its ending."""
    if where is None or source not in ("image_folder", "table"):
        return source
    path = Path(where).expanduser().resolve()
    while source == "table" and path.suffix.lower() in _TABLE_ENDS:
        path = path.with_suffix("")
    return path.name or source


def _refuse_to_overwrite(out: Path, reading: dict[str, Any] | None) -> None:
    """Raise PointError where ``out`` is no packed file, or one of another reading if one is given.

    A packed file that is damaged may be replaced.
    """
    if not out.exists():
        return
    if not out.is_file() or not is_packed(out):
        raise PointError(
            f"{out}: is there already, and no file of `flexhpc data prepare`; give another --out"
        )
    try:
        there = open_packed(out).reading
    except PointError:
        return
    if reading is not None and there != reading:
        said = ", ".join(f"{key}: {value}" for key, value in there.items())
        raise PointError(f"{out}: is there already, packed with {said}; give --out")


def _section(source: str, given: Mapping[str, Any], overrides: Sequence[str]) -> Data:
    values = {key: value for key, value in given.items() if value is not None}
    wrong: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        name = key.strip().removeprefix("data.")
        parsed = parse("value: " + value, f"--set {text}")
        if not equals or name not in _KEYS:
            wrong.append(
                f"--set {text}: must be data.KEY=VALUE with one of {', '.join(_KEYS)}; what else "
                "a point says about data is applied when it is measured"
            )
        wrong += [str(problem) for problem in parsed.problems]
        values[name] = parsed.value.get("value")
    if not wrong:
        section = resolve(
            "data",
            values | {"source": source},
            lambda path, what: wrong.append(f"data.{'.'.join(path)}: {what}"),
            given=values,
        )
        if isinstance(section, Gaussian):
            raise InputError("data.source: gaussian is drawn anew for every seed; nothing to pack")
        if isinstance(section, Data) and not wrong:
            return section
    raise InputError(wrong)
