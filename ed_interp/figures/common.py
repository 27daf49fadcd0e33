"""What the interactive figures share: bands, the bar of block depth, axes, fonts and margins."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ed_interp.figures.shapes import Curve
from ed_interp.figures.style import FONT, Theme, shortened, ticks


def add_band(
    figure: go.Figure,
    x: Sequence[float | int],
    low: Sequence[float],
    high: Sequence[float],
    *,
    colour: str,
    group: str,
    name: str | None = None,
    place: Mapping[str, Any] | None = None,
) -> None:
    """Shade between ``low`` and ``high``; in the legend only if it has a ``name``."""
    figure.add_trace(
        go.Scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(low)],
            mode="lines",
            fill="toself",
            fillcolor=colour,
            line={"width": 0, "color": colour},
            legendgroup=group,
            name=name,
            legendrank=1200,
            showlegend=name is not None,
            hoverinfo="skip",
        ),
        **(place or {"row": 1, "col": 1}),
    )


def add_depth_bar(figure: go.Figure, layers: Sequence[int], colours: Theme) -> None:
    """A colour bar from the first to the last block, carried by a trace without points."""
    steps = len(colours.depth) - 1
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"color": [layers[0]], "coloraxis": "coloraxis"},
            showlegend=False,
            hoverinfo="skip",
        )
    )
    figure.update_layout(
        coloraxis={
            "cmin": layers[0],
            "cmax": layers[-1],
            "colorscale": [[i / steps, colour] for i, colour in enumerate(colours.depth)],
            "colorbar": {
                "title": {"text": "block"},
                "thickness": 14,
                "outlinewidth": 0,
                "tickvals": ticks(layers, at_most=6),
                "len": 0.6,
                "y": 1,
                "yanchor": "top",
            },
        },
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )


def error_bars(value: float, low: float, high: float) -> dict[str, Any]:
    """The interval of a lone point."""
    return {"type": "data", "array": [high - value], "arrayminus": [value - low]}


def shots_axis(shots: Sequence[int]) -> dict[str, Any]:
    """The settings of an axis of shot counts: labels at counts that were measured, only."""
    labels = ticks(shots)
    pad = max((shots[-1] - shots[0]) * 0.03, 0.3) if shots else 0.5
    ends = (shots[0] - pad, shots[-1] + pad) if shots else (0, 1)
    return {"tickvals": labels, "ticktext": [str(tick) for tick in labels], "range": list(ends)}


def finish(figure: go.Figure, curve: Curve, colours: Theme, *, height: int, what: str = "") -> None:
    """Title, fonts, colours and margins of a figure of a curve."""
    title = f"{shortened(curve.model, 50)} · {shortened(curve.task, 34)}"
    below = shortened(f"{what or 'emergence'} · {curve.estimator} estimator{noise_text(curve)}", 90)
    dress(figure, colours, height=height, title=title, below=below)


def dress(figure: go.Figure, colours: Theme, *, height: int, title: str, below: str) -> None:
    """Title and the line below it, fonts, colours and margins."""
    layout: Any = figure.layout
    above = layout.legend.orientation == "h"
    axis = {
        "gridcolor": colours.grid,
        "zerolinecolor": colours.grid,
        "linecolor": colours.grid,
        "tickfont": {"size": 13},
        "automargin": True,
    }
    figure.update_layout(
        height=height,
        title={
            "text": f"<b>{html.escape(title)}</b><br><span style='font-size:0.75em'>"
            f"{html.escape(below)}</span>",
            "x": 0,
            "xref": "paper",
            "yref": "container",
            "y": 0.97,
            "yanchor": "top",
        },
        margin={"t": 150 if above else 90, "l": 60, "r": 20, "b": 50},
        font={"family": FONT, "size": 14, "color": colours.text},
        paper_bgcolor=colours.background,
        plot_bgcolor=colours.background,
        hoverlabel={
            "align": "left",
            "bgcolor": colours.background,
            "bordercolor": colours.muted,
            "font": {"color": colours.text, "family": FONT},
        },
        hovermode="closest",
        template=go.layout.Template(),
        modebar={"color": colours.muted, "bgcolor": "rgba(0,0,0,0)"},
    )
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)


def noise_text(curve: Curve) -> str:
    """The noise scale as a clause, or nothing for estimators without one."""
    return "" if curve.noise is None else f", noise {curve.noise:.3g}"


def plural(count: int, noun: str) -> str:
    """``count`` and ``noun``: 1 shot, 2 shots."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
