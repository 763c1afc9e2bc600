"""Layout of a figure: which swept keys become the x axis, facets and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from flexhpc.config.point import swept_value_text, value_phrase
from flexhpc.errors import InputError
from flexhpc.store.status import PointStatus

_SIZE_KEYS = ("width", "depth", "scale", "match_params", "dims", "seed")
"""Last parts of the keys that set the size of a network, and the key of the seed. Points that
differ only in these keys are on the same curve."""
_MAX_FACETS, _MAX_COLOURS = 9, 8
_MIN_NUMBERS = 3
"""A numeric key can be on the x axis only if it has at least this number of different values."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Assignment of swept keys to the x axis, facets and colours of a figure.

    Attributes:
        x_axis: ``size`` (number of parameters), ``number`` (a numeric key) or ``rows`` (the figure
            has one row per combination of swept values).
        key: key on the x axis if ``x_axis`` is ``number``; empty otherwise.
        facets: swept keys; each combination of their values has its own facet.
        colours: swept keys; each combination of their values has its own colour.
        rows: if ``x_axis`` is ``rows``, swept keys; each combination of their values has its own
            row. If empty, these are all swept keys that are not facets.
    """

    x_axis: Literal["size", "number", "rows"]
    key: str = ""
    facets: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def facet(self, status: PointStatus) -> str:
        """Return the name of the facet of a point."""
        return swept_values_text(status, self.facets)

    def series(self, status: PointStatus) -> str:
        """Return the name of the curve (colour) of a point."""
        return swept_values_text(status, self.colours)

    def x(self, status: PointStatus) -> float:
        """Return the x value of a point; undefined if ``x_axis`` is ``rows``."""
        if self.x_axis == "number":
            return float(_swept_value(status, self.key))
        return float(status.record.header.params) if status.record else 0.0


def layout_of(statuses: Sequence[PointStatus]) -> Layout:
    """Choose the layout for the measured points of one or several sweeps."""
    varied = independent_keys(statuses, _keys_with_values(statuses))
    keys = without_size_and_seed_keys(varied)
    if _size_varies(statuses, keys):
        return _faceted_layout(keys, statuses)
    if (by_section := _section_layout(statuses)) is not None:
        return by_section
    for key in keys:
        values = [status.point.swept.get(key) for status in statuses]
        if len(set(map(swept_value_text, values))) >= _MIN_NUMBERS and all(map(is_number, values)):
            layout = _faceted_layout([k for k in varied if k != key], statuses, number_key=key)
            if layout.x_axis == "number":
                return layout
    return _row_layout(varied)


def requested_layout(statuses: Sequence[PointStatus], x: str | None, facet: str | None) -> Layout:
    """Return a layout with requested keys; None stands for the choice of :func:`layout_of`.

    Args:
        statuses: points to plot.
        x: swept key on the x axis, or ``params`` (the number of parameters). If the values of the
            key are not numbers, each value is a row.
        facet: swept key of the facets.

    Raises:
        InputError: a key is not swept, both keys are equal, a point has no number of parameters, or
            there would be too many facets or curves.
    """
    expanded = [_flattened_values(status) for status in statuses]
    texts = {
        key: [swept_value_text(values.get(key)) for values in expanded]
        for key in dict.fromkeys(key for values in expanded for key in values)
    }
    problems = [
        f"{name}: unknown key ({key}); use one of {', '.join((*others, *texts))}"
        for name, key, others in (("x", x, ("params",)), ("facet", facet, ()))
        if key is not None and key not in (*others, *texts)
    ]
    if facet is not None and x == facet:
        problems.append(f"facet: must differ from x ({x})")
    if x == "params" and not all(s.record and s.record.header.params for s in statuses):
        problems.append("x: some points have no parameters; use a swept key")
    if problems:
        raise InputError(problems)
    layout = layout_of(statuses)
    if x is not None:
        varied = [k for k in texts if len(set(texts[k])) > 1 and _last_part(k) != "seed"]
        keys = independent_keys(statuses, [k for k in varied if k != facet])
        if x == "params":
            keys = without_size_and_seed_keys(keys)
        else:  # keys that x does not determine
            pairs = {key: set(zip(texts[x], texts[key], strict=True)) for key in keys}
            keys = [key for key in keys if len(pairs[key]) > len(set(texts[x]))]
        if x == "params" or all(is_number(values.get(x)) for values in expanded):
            axis: Literal["size", "number"] = "size" if x == "params" else "number"
            layout = Layout(x_axis=axis, key="" if x == "params" else x)
        else:
            layout = Layout(x_axis="rows", rows=(x,))
        facets = _facet_keys(keys)
        colours = tuple(key for key in keys if key not in facets)
        layout = replace(layout, facets=facets, colours=colours)
    if facet is not None:
        if layout.key == facet:
            layout = Layout(x_axis="rows")
        colours = tuple(k for k in (*layout.facets, *layout.colours) if k != facet)
        layout = replace(layout, facets=(facet,), colours=colours)
    for name, group, limit in (
        ("facets", layout.facets, _MAX_FACETS), ("curves", layout.colours, _MAX_COLOURS),
    ):  # fmt: skip
        count = len({swept_values_text(status, group) for status in statuses})
        if count > limit and (layout.x_axis != "rows" or layout.rows or name == "facets"):
            problems.append(f"x, facet: too many {name} ({count}, at most {limit}); use other keys")
    if problems:
        raise InputError(problems)
    return layout


def _section_layout(statuses: Sequence[PointStatus]) -> Layout | None:
    """Return a layout for a sweep over whole sections of the spec.

    The layout has, for example, one curve per model family. Return None if no whole section is
    swept, or if such a layout is unsuitable, for example because two networks of the same size
    would be on the same curve.
    """
    expanded = [_flattened_values(status) for status in statuses]
    swept = dict.fromkeys(key for values in expanded for key in values if _last_part(key) != "seed")
    varied = [key for key in swept if len({swept_value_text(v.get(key)) for v in expanded}) > 1]
    if not any(key not in status.point.swept for status in statuses for key in varied):
        return None
    keys = without_size_and_seed_keys(independent_keys(statuses, varied))
    if set(keys) != set(_preferred_keys(keys)) or not _size_varies(statuses, keys):
        return None
    layout = _faceted_layout(keys, statuses)
    positions = {
        str({k: v for k, v in status.point.swept.items() if _last_part(k) != "seed"}): (
            swept_values_text(status, keys), layout.x(status),
        )
        for status in statuses
    }  # fmt: skip
    unique = len(set(positions.values())) == len(positions)
    return layout if layout.x_axis == "size" and unique else None


def _flattened_values(status: PointStatus) -> dict[str, Any]:
    """Return the swept values of a point by key, with whole sections expanded into their keys."""
    values: dict[str, Any] = {}
    for key, value in status.point.swept.items():
        if isinstance(value, Mapping) and "." not in key:
            values |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            values[key] = value
    return values


def _swept_value(status: PointStatus, key: str) -> Any:
    """Return the value of a swept key, or of a key inside a swept section."""
    swept = status.point.swept
    return swept[key] if key in swept else _flattened_values(status).get(key)


def _keys_with_values(statuses: Sequence[PointStatus], *, min_values: int = 2) -> list[str]:
    """Return the swept keys, except the seed, with at least ``min_values`` different values."""
    values: dict[str, set[str]] = {}
    for status in statuses:
        for key, value in status.point.swept.items():
            values.setdefault(key, set()).add(swept_value_text(value))
    return [key for key in values if len(values[key]) >= min_values and _last_part(key) != "seed"]


def varied_keys(statuses: Sequence[PointStatus]) -> list[str]:
    """Return the swept keys, except the seed, in which points differ.

    If points differ in no such key, return all swept keys except the seed.
    """
    return _keys_with_values(statuses) or _keys_with_values(statuses, min_values=1)


def without_size_and_seed_keys(keys: Sequence[str]) -> list[str]:
    """Return all keys except the seed and the keys that set the size of a network."""
    return [key for key in keys if _last_part(key) not in _SIZE_KEYS]


def independent_keys(statuses: Sequence[PointStatus], keys: Sequence[str]) -> list[str]:
    """Return the keys whose values are not determined by the value of another key.

    If ``zip`` sets a batch size and a learning rate for each optimizer, the optimizer determines
    both; if it sets ``steps`` at some points and ``epochs`` at the others, neither determines the
    other. A key with a different value at every point does not determine other keys.
    """
    texts = {key: [swept_value_text(_swept_value(s, key)) for s in statuses] for key in keys}
    known = {key: [_swept_value(s, key) is not None for s in statuses] for key in keys}

    def priority(key: str) -> tuple[bool, ...]:  # the key with the larger priority is kept
        return key in _preferred_keys(keys), _last_part(key) in _SIZE_KEYS, key.startswith("data.")

    kept = list(keys)
    for key in sorted(keys, key=priority):
        for other in kept:
            pairs = set(zip(texts[other], texts[key], strict=True))
            repeated = len(statuses) >= 2 * len(pairs)
            covered = all(a or not b for a, b in zip(known[other], known[key], strict=True))
            if other != key and repeated and covered and len(pairs) == len(set(texts[other])):
                kept.remove(key)
                break
    return kept


def swept_values_text(status: PointStatus, keys: Sequence[str]) -> str:
    """Return the values of a point for ``keys`` as text, such as ``random, relu, width 8``."""
    values = {key: _swept_value(status, key) for key in keys}
    return ", ".join(value_phrase(key, value) for key, value in values.items() if value is not None)


def _faceted_layout(
    keys: Sequence[str], statuses: Sequence[PointStatus], number_key: str = ""
) -> Layout:
    """Return a layout with data keys as facets and all other keys as colours.

    If there would be too many facets or colours, return a layout whose ``x_axis`` is ``rows``.

    Args:
        keys: the keys of facets and colours.
        statuses: points to plot.
        number_key: numeric key on the x axis; if empty, the x axis is the number of parameters.
    """
    facets = _facet_keys(keys)
    colours = tuple(k for k in keys if k not in facets)
    for group, limit in ((facets, _MAX_FACETS), (colours, _MAX_COLOURS)):
        if len({swept_values_text(status, group) for status in statuses}) > limit:
            return _row_layout(keys)
    x_axis: Literal["size", "number"] = "number" if number_key else "size"
    return Layout(x_axis=x_axis, key=number_key, facets=facets, colours=colours)


def _facet_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the data keys; if all keys are data keys, without the last one."""
    data_keys = tuple(key for key in keys if key.startswith("data."))
    return data_keys if len(data_keys) < len(keys) else data_keys[:-1]


def _size_varies(statuses: Sequence[PointStatus], keys: Sequence[str]) -> bool:
    """Return whether the number of parameters varies among points with equal values of ``keys``.

    Return False if the number of parameters is unknown for any point.
    """
    params: dict[str, set[int]] = {}
    for status in statuses:
        if not status.record or not status.record.header.params:
            return False
        params.setdefault(swept_values_text(status, keys), set()).add(status.record.header.params)
    return any(len(values) > 1 for values in params.values())


def _row_layout(keys: Sequence[str]) -> Layout:
    """Return a layout whose ``x_axis`` is ``rows``; the rows are grouped by one of the keys.

    With fewer than two keys, rows are not grouped, because each row stands for a single value.
    """
    groups = (_preferred_keys(keys) or list(keys))[:1] if len(keys) > 1 else []
    return Layout(x_axis="rows", colours=tuple(groups))


def _preferred_keys(keys: Sequence[str]) -> list[str]:
    """Return the keys that are preferred for curves and groups: labels, family, optimizer."""
    return [key for key in keys if _last_part(key) in ("labels", "family", "optimizer")]


def _last_part(key: str) -> str:
    return key.split(".")[-1]


def is_number(value: Any) -> bool:
    """Return whether a swept value is a number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
