"""Figures of a calibration (estimate against truth) and of estimators side by side.

Both take anything of the right shape; the classes live in the probes, above the spine.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

from ed_interp.figures.common import dress
from ed_interp.figures.style import THEMES, Theme, ThemeName, mix, translucent
from ed_interp.records import write_bytes

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_MARKERS = ("o", "s", "D", "^", "P", "X")


@runtime_checkable
class Point(Protocol):
    """Estimate and truth of one population, in bits."""

    @property
    def population(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def truth(self) -> float: ...
    @property
    def estimate(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def flags(self) -> tuple[str, ...]: ...


@runtime_checkable
class Calibrated(Protocol):
    """A calibration, as far as its figure needs it."""

    @property
    def estimator(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def d_x(self) -> int: ...
    @property
    def d_y(self) -> int: ...
    @property
    def noise(self) -> float | None: ...
    @property
    def rows(self) -> Sequence[Point]: ...
    @property
    def families(self) -> list[str]: ...
    def says(self) -> str: ...


ABSOLUTE_BITS = 0.25
RELATIVE = 0.1


def calibration_figure(calibration: Calibrated, *, theme: ThemeName = "light") -> go.Figure:
    """Estimate against truth: the diagonal, the band of the rule, a line per family.

    A bar reaches from the least to the most over the seeds. Estimates beyond twice the largest
    truth lie outside the picture.
    """
    colours = THEMES[theme]
    figure = go.Figure()
    grid, low, high = _rule(calibration)
    figure.add_trace(
        go.Scatter(
            x=[*grid, *reversed(grid)],
            y=[*high, *reversed(low)],
            mode="lines",
            fill="toself",
            fillcolor=translucent(colours.muted, 0.25),
            line={"width": 0, "color": colours.muted},
            name="right: within 0.25 bits or 10%",
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=grid,
            y=grid,
            mode="lines",
            line={"color": colours.muted, "width": 2, "dash": "dash"},
            showlegend=False,
            hoverinfo="skip",
        )
    )
    for index, family in enumerate(calibration.families):
        rows = _points(calibration, family)
        colour = _colour(colours, index, len(calibration.families))
        figure.add_trace(
            go.Scatter(
                x=[row.truth for row in rows],
                y=[row.estimate for row in rows],
                error_y={
                    "type": "data",
                    "array": [row.high - row.estimate for row in rows],
                    "arrayminus": [row.estimate - row.low for row in rows],
                    "thickness": 1.5,
                },
                mode="lines+markers",
                name=family,
                line={"color": colour, "width": 2},
                marker={"size": 9, "symbol": _SYMBOLS[index % len(_SYMBOLS)]},
                customdata=[
                    [row.population, f"flags: {', '.join(row.flags)}" if row.flags else ""]
                    for row in rows
                ],
                hovertemplate="%{customdata[0]}<br>truth %{x:.3f} bits<br>estimate %{y:.3f} bits"
                "<br>%{customdata[1]}<extra></extra>",
            )
        )
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"})
    title, below = _titles(calibration)
    dress(figure, colours, height=620, title=title, below=below)
    figure.update_xaxes(title_text="true mutual information (bits)")
    figure.update_yaxes(title_text="estimate (bits)", range=list(_shown_range(calibration)))
    return figure


def calibration_png(calibration: Calibrated, path: Path) -> Path:
    """The same picture as a PNG of 1600 x 1000 pixels, written atomically.

    Raises:
        RunFolderError: ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = THEMES["light"]
    figure = Figure(figsize=(12.8, 8.0), dpi=125, facecolor=colours.background)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.085, 0.74, 0.785))
    grid, low, high = _rule(calibration)
    axes.fill_between(grid, low, high, color=colours.muted, alpha=0.2, linewidth=0)
    axes.plot(grid, grid, color=colours.muted, linewidth=2, linestyle="--")
    for index, family in enumerate(calibration.families):
        rows = _points(calibration, family)
        colour = _colour(colours, index, len(calibration.families))
        axes.errorbar(
            [row.truth for row in rows],
            [row.estimate for row in rows],
            yerr=[
                [row.estimate - row.low for row in rows],
                [row.high - row.estimate for row in rows],
            ],
            color=colour,
            linewidth=2,
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=8,
            capsize=3,
            label=family,
        )
    axes.set_xlabel("true mutual information (bits)", fontsize=14, color=colours.text)
    axes.set_ylabel("estimate (bits)", fontsize=14, color=colours.text)
    axes.set_ylim(*_shown_range(calibration))
    axes.grid(color=colours.grid)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=12, colors=colours.text, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=12)
    title, below = _titles(calibration)
    for y, text, size, weight, colour in (
        (0.955, title, 20, "bold", colours.text),
        (0.91, below, 12, "normal", colours.muted),
    ):
        figure.text(0.075, y, text, fontsize=size, fontweight=weight, color=colour, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_bytes(path, buffer.getvalue())


def comparison_figure(comparison: Any, *, theme: ThemeName = "light") -> go.Figure:
    """E of every block over shots, one panel per estimator, each on its own scale.

    Estimators differ in what a bit means, so panels are to be compared in shape and order.
    """
    from plotly.subplots import make_subplots

    from ed_interp.figures.common import shots_axis
    from ed_interp.figures.style import depth_colour

    colours = THEMES[theme]
    names, layers, shots = comparison.estimators, comparison.layers, comparison.shots
    figure = make_subplots(
        rows=len(names),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        subplot_titles=[html.escape(name) for name in names],
    )
    for place, name in enumerate(names, start=1):
        for layer in layers:
            rows = [row for row in comparison.of(name) if row.layer == layer]
            figure.add_trace(
                go.Scatter(
                    x=[row.shots for row in rows],
                    y=[row.emergence for row in rows],
                    error_y={
                        "type": "data",
                        "array": [row.ci_high - row.emergence for row in rows],
                        "arrayminus": [row.emergence - row.ci_low for row in rows],
                        "thickness": 1,
                    },
                    mode="lines+markers",
                    name=f"block {layer}",
                    legendgroup=f"block {layer}",
                    showlegend=place == 1,
                    line={"color": depth_colour(colours, layer, layers), "width": 2},
                    marker={
                        "size": 7,
                        "symbol": ["circle-open" if row.flags else "circle" for row in rows],
                    },
                    customdata=[", ".join(row.flags) for row in rows],
                    hovertemplate=f"{html.escape(name)}, block {layer}, %{{x}} shots<br>"
                    "E %{y:.3f} bits<br>%{customdata}<extra></extra>",
                ),
                row=place,
                col=1,
            )
        figure.update_yaxes(title_text="E (bits)", row=place, col=1)
    dress(
        figure,
        colours,
        height=140 + 240 * len(names),
        title="Estimators side by side",
        below="same activations; hollow points are flagged",
    )
    figure.update_annotations(font={"size": 14, "color": colours.text})
    figure.update_xaxes(shots_axis(shots))
    figure.update_xaxes(title_text="shots", row=len(names), col=1)
    return figure


def _points(calibration: Calibrated, family: str) -> list[Point]:
    found = [row for row in calibration.rows if row.family == family]
    return sorted(found, key=lambda row: row.truth)


def _rule(calibration: Calibrated) -> tuple[list[float], list[float], list[float]]:
    """The diagonal from 0 to a little beyond the largest truth, and the band around it."""
    top = 1.05 * max([row.truth for row in calibration.rows], default=1.0) or 1.0
    grid = [top * step / 60 for step in range(61)]
    room = [max(ABSOLUTE_BITS, RELATIVE * value) for value in grid]
    low = [value - width for value, width in zip(grid, room, strict=True)]
    return grid, low, [value + width for value, width in zip(grid, room, strict=True)]


def _shown_range(calibration: Calibrated) -> tuple[float, float]:
    """Ends of the axis of estimates: a wild one runs out of the picture, not the rest into a line.

    The table has every value.
    """
    top = max([row.truth for row in calibration.rows], default=1.0) or 1.0
    values = [row.low for row in calibration.rows] + [row.high for row in calibration.rows]
    high = min(max([*values, top]), 2 * top + 1)
    low = max(min([*values, 0.0]), -1 - top / 2)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _titles(calibration: Calibrated) -> tuple[str, str]:
    noise = "" if calibration.noise is None else f", noise {calibration.noise:.3g}"
    return (
        f"{calibration.estimator}{noise} · {calibration.n:,} rows, "
        f"{calibration.d_x} x {calibration.d_y} columns",
        calibration.says(),
    )


def _colour(colours: Theme, index: int, count: int) -> str:
    return mix(colours.depth, index / max(1, count - 1))
