"""Charts of one point: training runs with the fit curve, and training losses.

The Vega-Lite specs refer to their data by name; ``report.js`` inserts the data of the selected
point.
"""

from __future__ import annotations

from flexhpc.analysis.details import point_details
from flexhpc.analysis.figures.chart import COLOURS, Chart, Spec, chart, colour_encoding, tooltip
from flexhpc.store.status import PointStatus

VERDICTS = {
    "fit": "#009E73", "not_fit": "#D55E00", "unconverged": "#CC79A7", "unstable": "#56B4E9",
    "saddle": "#B8860B", "diverged": "#7B4FB5", "other tuned values": "#BBB",
}  # fmt: skip
_WIDTH, _HEIGHT = 400, 240
_LEGEND = {"title": None, "orient": "bottom", "columns": 4}
"""The code that adds the data restricts the legend to the values that occur."""


def fit_chart(status: PointStatus) -> Chart:
    """Return the chart of training accuracy and P(fit) against n for a point that has a record."""
    details = point_details(status)
    reason = f" ({details['reason']})" if details["reason"] else ""
    subtitle = f"EMC {details['emc']}{reason}"
    title = {"text": details["label"], "subtitle": subtitle, "anchor": "start"}
    trainings = [
        {
            "number": number, "n": probe[0], "missed": probe[3], "accuracy": probe[4],
            "verdict": probe[2], "tuned": probe[10],
            "shown": "other tuned values" if probe[9] else probe[2],
        }
        for number, probe in enumerate(details["probes"])
    ]  # fmt: skip
    datasets = {
        "interval": [details["interval"]] if details["interval"] else [],
        "curve": [{"n": n, "chance": chance} for n, chance in details["curve"]],
        "trainings": trainings,
    }
    spec = fit_spec()
    shown = list(dict.fromkeys(row["shown"] for row in trainings))
    spec["layer"][-1]["encoding"]["color"]["legend"] = {**_LEGEND, "values": shown}
    return Chart(
        {**spec, "title": title, "datasets": datasets, "background": "white", "padding": 12}
    )


def fit_spec() -> Spec:
    """Return the Vega-Lite spec of the chart that :func:`fit_chart` returns, without data.

    The caller adds the data sets ``interval``, ``curve`` and ``trainings``.
    """
    x = {
        "field": "n", "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 12},
        "axis": {"title": "n (samples)", "format": "~s", "tickCount": 5, "grid": False},
    }  # fmt: skip
    y = {
        "type": "quantitative", "scale": {"domain": [0, 1.02]},
        "axis": {"title": "train accuracy (dots), P(fit) (curve)"},
    }  # fmt: skip
    layers: list[Spec] = [
        {
            "data": {"name": "interval"},
            "mark": {"type": "rect", "opacity": 0.18, "color": "#8A8A8A", "clip": True},
            "encoding": {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}},
        },
        {
            "data": {"name": "interval"},
            "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#8A8A8A", "clip": True},
            "encoding": {"x": {**x, "field": "emc"}},
        },
        {
            "data": {"name": "curve"},
            "mark": {"type": "line", "color": COLOURS[0], "clip": True},
            "encoding": {"x": x, "y": {**y, "field": "chance"}},
        },
        {
            "data": {"name": "trainings"},
            "mark": {"type": "point", "filled": True, "size": 50, "opacity": 0.9},
            "encoding": {
                "x": x, "y": {**y, "field": "accuracy"},
                "color": colour_encoding("shown", VERDICTS, _LEGEND),
                "tooltip": tooltip("number", "n", "verdict", "missed", "accuracy", "tuned"),
            },
        },
    ]  # fmt: skip
    return chart(layers, width=_WIDTH, height=_HEIGHT)


def loss_spec() -> Spec:
    """Return the Vega-Lite spec of the chart of loss against epochs, without data.

    The chart has one line for each training run. The caller adds the data set ``losses``.
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
            "color": colour_encoding("verdict", VERDICTS, _LEGEND),
            "tooltip": tooltip("number", "n", "verdict", "tuned"),
        },
    }  # fmt: skip
    return chart([line], width=_WIDTH, height=_HEIGHT)
