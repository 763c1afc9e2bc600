"""The command ``flexhpc data prepare``: which set to pack, as what, and into which file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexhpc.data.pack import pack
from flexhpc.data.packed import Packed, Progress, is_packed
from flexhpc.data.sources import open_files, reading_of, where_of
from flexhpc.errors import InputError, PointError
from flexhpc.spec.resolve import resolve
from flexhpc.spec.sections import Data, Gaussian
from flexhpc.spec.yaml_reader import parse

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
        PointError: the data cannot be read.
        OSError: the file cannot be written.
    """
    data = _section(source, given, overrides)
    key, where = where_of(data)
    if where is not None and is_packed(Path(where).expanduser()):
        raise PointError(f"data.{key}: {where} is packed already")
    if out is None:
        folder = Path(where).expanduser().resolve() if where is not None else None
        named = folder is not None and data.source in ("image_folder", "table")
        name = folder.name.split(".")[0] if folder is not None and named else data.source
        out = Path("data") / f"{name}.packed"
    return pack(open_files(data, 0), reading_of(data), out, progress)


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
