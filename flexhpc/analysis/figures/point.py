"""Charts of one point: trainings with the fit curve, and training losses.

The specs refer to data by name; the script of the page inserts the data of the selected point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flexhpc.analysis.details import Details
from flexhpc.analysis.figures.chart import Spec, chart

VERDICTS = {
    "fit": "#009E73", "not_fit": "#D55E00", "unconverged": "#CC79A7", "unstable": "#56B4E9",
    "saddle": "#B8860B", "diverged": "#7B4FB5", "other tuned values": "#BBB",
}  # fmt: skip
_SIZE = {"width": 400, "height": 240}


def fit_spec() -> Spec:
    """Return the chart of P(fit) and training accuracy over n.

    Its data sets are named ``band``, ``curve`` and ``trainings``.
    """
    x = {
        "field": "n", "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 12},
        "axis": {"title": "n (samples)", "format": "~s", "tickCount": 5, "grid": False},
    }  # fmt: skip

    def y(field: str) -> Spec:
        axis = {"title": "train accuracy, P(fit)"}
        return {
            "field": field,
            "type": "quantitative",
            "scale": {"domain": [0, 1.02]},
            "axis": axis,
        }

    tooltip = [
        {"field": field, "type": "nominal"}
        for field in ("number", "n", "verdict", "missed", "accuracy", "tuned")
    ]
    layers = [
        {
            "data": {"name": "band"},
            "mark": {"type": "rect", "opacity": 0.18, "color": "#8A8A8A", "clip": True},
            "encoding": {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}},
        },
        {
            "data": {"name": "curve"},
            "mark": {"type": "line", "color": "#0072B2", "clip": True},
            "encoding": {"x": x, "y": y("chance")},
        },
        {
            "data": {"name": "trainings"},
            "mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.9},
            "encoding": {
                "x": x,
                "y": y("accuracy"),
                "color": _verdicts("shown"),
                "tooltip": tooltip,
            },
        },
    ]
    return chart(layers, **_SIZE)


def loss_spec() -> Spec:
    """Return the chart of training loss over epochs, one line per training.

    Its data set is named ``losses``.
    """
    line = {
        "data": {"name": "losses"},
        "mark": {"type": "line", "opacity": 0.65, "strokeWidth": 1.2},
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "axis": {"grid": False}},
            "y": {
                "field": "loss", "type": "quantitative", "scale": {"type": "log", "nice": False},
                "axis": {"title": "training loss", "format": "~g", "tickCount": 5},
            },
            "detail": {"field": "number"},
            "color": {**_verdicts("verdict"), "legend": None},
            "tooltip": [
                {"field": f, "type": "nominal"} for f in ("number", "n", "verdict", "tuned")
            ],
        },
    }  # fmt: skip
    return chart([line], **_SIZE)


def fit_chart(details: Details) -> Spec:
    """Return the chart of P(fit) and training accuracy over n, including the data of a point."""
    title = {"text": details["label"], "subtitle": f"EMC {details['emc']}", "anchor": "start"}
    whole = {**fit_spec(), "title": title, "datasets": _datasets(details)}
    seen = {row["shown"]: None for row in whole["datasets"]["trainings"]}
    whole["layer"][-1]["encoding"]["color"]["legend"]["values"] = list(seen)
    return {**whole, "background": "white", "padding": 12}


def _verdicts(field: str) -> Spec:
    return {
        "field": field, "type": "nominal", "title": None,
        "scale": {"domain": list(VERDICTS), "range": list(VERDICTS.values())},
        "legend": {"orient": "bottom", "columns": 4},
    }  # fmt: skip


def _datasets(details: Mapping[str, Any]) -> dict[str, Any]:
    shown = details["exact"] and details["hi"] is not None
    return {
        "band": [{"lo": details["lo"], "hi": details["hi"]}] if shown else [],
        "curve": [{"n": n, "chance": chance} for n, chance in details["curve"]],
        "trainings": [
            {
                "number": number, "n": probe[0], "missed": probe[3], "accuracy": probe[4],
                "verdict": probe[2], "tuned": probe[10],
                "shown": "other tuned values" if probe[9] else probe[2],
            }
            for number, probe in enumerate(details["probes"])
        ],
    }  # fmt: skip
