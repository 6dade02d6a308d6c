"""Draw figures from their numbers, as PNG and SVG, for light and for dark pages."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from lmeraser.experiments.results import Figure

_FORMATS = ("png", "svg")
_MARKERS = "osD^vPX*<>hd"
_DARK = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#e6e6e6"),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "#161616"),
}
_LINEAR_ROOM, _LOG_ROOM = 1.08, 1.8  # above the highest bar, as factors


def draw(figure: Figure, *, dark: bool = False) -> dict[str, bytes]:
    """Draw a figure; return the bytes of the file by format.

    Args:
        figure: its numbers.
        dark: light lines on a dark ground.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    # A fixed salt and no date: the same numbers give the same SVG.
    with rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none", **(_DARK if dark else {})}):
        canvas = Canvas(figsize=(8, 4.2), layout="constrained")
        FigureCanvasAgg(canvas)
        axis = canvas.subplots()
        _lines(axis, figure.series or {}) if figure.kind == "lines" else _bars(axis, figure)
        for name, level in (figure.published or {}).items():
            axis.axhline(level, linestyle=":", color="gray", label=f"{name} (paper)")
        axis.set_xlabel(figure.x)
        axis.set_ylabel(figure.y)
        axis.set_title(figure.title, fontsize="medium")
        axis.grid(visible=True, alpha=0.3)
        axis.set_axisbelow(True)
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
        return {name: _bytes(canvas, name) for name in _FORMATS}


def _lines(axis: Any, series: Mapping[str, Any]) -> None:
    for number, (name, points) in enumerate(series.items()):
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, ys, marker=_MARKERS[number % len(_MARKERS)], label=name, markersize=5)


def _bars(axis: Any, figure: Figure) -> None:
    """Grouped bars: one group for each entry of the series, one bar for each name in it; all of each is shown."""
    series = figure.series or {}
    groups = list(series)
    names = list(dict.fromkeys(name for group in series.values() for name in group))
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        positions = [index + (number - (len(names) - 1) / 2) * width for index in range(len(groups))]
        axis.bar(positions, [series[group].get(name, 0) for group in groups], width, label=name)
    axis.set_xticks(range(len(groups)), groups)
    if figure.log:
        axis.set_yscale("symlog", linthresh=1)
    highest = max((value for group in series.values() for value in group.values()), default=0)
    if highest > 0:
        axis.set_ylim(0, highest * (_LOG_ROOM if figure.log else _LINEAR_ROOM))


def _bytes(canvas: Any, name: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if name == "svg" else {"Software": None}
    canvas.savefig(buffer, format=name, dpi=120, metadata=metadata)
    return buffer.getvalue()
