"""Layout of a figure: which swept keys become the x axis, facets and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flexhpc.analysis.figures.curves import SIZES
from flexhpc.config.point import named, plain_text
from flexhpc.store.status import PointStatus

_MOST_FACETS, _MOST_COLOURS = 9, 8
_FEWEST_ALONG = 3


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of the points of a sweep in a figure.

    Attributes:
        along: x axis: ``size`` (parameters) or ``number`` (a swept number); or ``rows``, one row
            per combination of swept values.
        key: key of the swept number; empty otherwise.
        facets, colours: swept keys whose values become facets of the figure, or colours.
    """

    along: Literal["size", "number", "rows"]
    key: str = ""
    facets: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()

    def facet(self, status: PointStatus) -> str:
        """Return the name of the facet of a point."""
        return name_of(status, self.facets)

    def series(self, status: PointStatus) -> str:
        """Return the name of the curve (colour) of a point."""
        return name_of(status, self.colours)

    def place(self, status: PointStatus) -> float:
        """Return the x value of a point; not for ``rows``."""
        if self.along == "number":
            return float(status.point.swept[self.key])
        return float(status.record.header.params) if status.record else 0.0


def layout_of(statuses: Sequence[PointStatus]) -> Layout:
    """Choose the layout for the measured points of one or several sweeps."""
    values: dict[str, dict[str, Any]] = {}
    for status in statuses:
        for key, value in status.point.swept.items():
            values.setdefault(key, {})[plain_text(value)] = value
    varied = telling(
        statuses, [key for key, some in values.items() if len(some) > 1 and _last(key) != "seed"]
    )
    kinds = [key for key in varied if _last(key) not in SIZES]
    if _grows(statuses, kinds):
        return _parted("size", "", kinds, statuses)
    by_family = _by_keys_of_sections(statuses)
    if by_family is not None:
        return by_family
    for key in kinds:
        numbers = all(_is_number(status.point.swept.get(key)) for status in statuses)
        if len(values[key]) >= _FEWEST_ALONG and numbers:
            layout = _parted("number", key, [k for k in varied if k != key], statuses)
            if layout.along == "number":
                return layout
    return Layout(along="rows", colours=_first(varied))


def _by_keys_of_sections(statuses: Sequence[PointStatus]) -> Layout | None:
    """Return the layout of networks that are swept as whole sections, each with its own size.

    They form curves, for example one per family, if the curve and the size identify each of them;
    otherwise None.
    """
    found = [_opened(status) for status in statuses]
    keys = dict.fromkeys(key for one in found for key in one if _last(key) != "seed")
    varied = [key for key in keys if len({plain_text(one.get(key)) for one in found}) > 1]
    if not any(key not in status.point.swept for status in statuses for key in varied):
        return None
    kinds = [key for key in telling(statuses, varied) if _last(key) not in SIZES]
    if set(kinds) != set(_preferred(kinds)) or not _grows(statuses, kinds):
        return None
    layout = _parted("size", "", kinds, statuses)
    asked = {_but_seed(status): (name_of(status, kinds), layout.place(status))
             for status in statuses}  # fmt: skip
    return layout if layout.along == "size" and len(set(asked.values())) == len(asked) else None


def _but_seed(status: PointStatus) -> str:
    return str({k: v for k, v in status.point.swept.items() if _last(k) != "seed"})


def _opened(status: PointStatus) -> dict[str, Any]:
    """Return the swept values of a point by key, with whole sections expanded into their keys."""
    found: dict[str, Any] = {}
    for key, value in status.point.swept.items():
        if isinstance(value, Mapping) and "." not in key:
            found |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            found[key] = value
    return found


def _value(status: PointStatus, key: str) -> Any:
    """Return the value of a swept key, or of a key inside a section that is swept as a whole."""
    swept = status.point.swept
    return swept[key] if key in swept else _opened(status).get(key)


def kinds_of(statuses: Sequence[PointStatus]) -> list[str]:
    """Return the swept keys, except the seed, in which points differ; all if there are none."""
    values: dict[str, set[str]] = {}
    for status in statuses:
        for key, value in status.point.swept.items():
            values.setdefault(key, set()).add(plain_text(value))
    varied = [key for key, some in values.items() if len(some) > 1 and _last(key) != "seed"]
    return varied or [key for key in values if _last(key) != "seed"]


def telling(statuses: Sequence[PointStatus], keys: Sequence[str]) -> list[str]:
    """Remove the keys whose value is determined by the value of another key.

    If ``zip`` gives each optimizer a batch size and a learning rate, the optimizer determines both;
    if it gives some points ``steps`` and the others ``epochs``, neither determines the other. A key
    with a different value at every point does not determine others, as no value is repeated.
    """
    texts = {key: [plain_text(_value(s, key)) for s in statuses] for key in keys}
    given = {key: [_value(s, key) is not None for s in statuses] for key in keys}
    left = list(keys)
    for key in sorted(keys, key=lambda key: _weight(key, keys)):
        for other in left:
            pairs = set(zip(texts[other], texts[key], strict=True))
            repeated = len(statuses) >= 2 * len(pairs)
            covers = all(a or not b for a, b in zip(given[other], given[key], strict=True))
            follows = len(pairs) == len(set(texts[other]))
            if other != key and repeated and covers and follows:
                left.remove(key)
                break
    return left


def _weight(key: str, keys: Sequence[str]) -> tuple[bool, ...]:
    """Return the priority of a key: of two equivalent keys, that with the larger one is kept."""
    return key in _preferred(keys), _last(key) in SIZES, key.startswith("data.")


def name_of(status: PointStatus, keys: Sequence[str]) -> str:
    """Format the values of some keys of a point, such as ``random, relu, width 8``."""
    values = {key: _value(status, key) for key in keys}
    return ", ".join(named(key, value) for key, value in values.items() if value is not None)


def _parted(
    along: Literal["size", "number"],
    key: str,
    kinds: Sequence[str],
    statuses: Sequence[PointStatus],
) -> Layout:
    """Use data keys as facets and the others as colours; rows if there would be too many."""
    facets = tuple(k for k in kinds if k.startswith("data.")) if len(kinds) > 1 else ()
    if len(facets) == len(kinds):
        facets = facets[:-1]
    colours = tuple(k for k in kinds if k not in facets)
    many = _kinds(statuses, facets) > _MOST_FACETS or _kinds(statuses, colours) > _MOST_COLOURS
    return (
        Layout(along="rows", colours=_first(kinds))
        if many
        else Layout(along=along, key=key, facets=facets, colours=colours)
    )


def _grows(statuses: Sequence[PointStatus], kinds: Sequence[str]) -> bool:
    """Return whether all points have parameters, and these vary within at least one kind."""
    sizes: dict[str, set[int]] = {}
    for status in statuses:
        if not status.record or not status.record.header.params:
            return False
        sizes.setdefault(name_of(status, kinds), set()).add(status.record.header.params)
    return any(len(some) > 1 for some in sizes.values())


def _kinds(statuses: Sequence[PointStatus], keys: Sequence[str]) -> int:
    return len({name_of(status, keys) for status in statuses})


def _first(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the key that groups rows; none for fewer than two keys, whose values are the rows."""
    if len(keys) < 2:
        return ()
    return tuple((_preferred(keys) or list(keys))[:1])


def _preferred(keys: Sequence[str]) -> list[str]:
    return [key for key in keys if _last(key) in ("labels", "family", "optimizer")]


def _last(key: str) -> str:
    return key.split(".")[-1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
