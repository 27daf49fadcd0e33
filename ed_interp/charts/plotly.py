"""Charts as interactive Plotly figures.

Cost: importing Plotly takes half a second, a figure milliseconds.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ed_interp.charts.spec import Band, Bars, Chart, Heat, Line, Panel, Rule, Values
from ed_interp.charts.theme import FONT, THEMES, Theme, colour_of, shortened, ticks, translucent

PANEL, ROW, HEAD = 300, 24, 110
"""Pixels: a panel of height 1, a row of a panel of rows, title and legend."""

_FLAGGED = "flagged (hover says why)"


def figure(chart: Chart, theme: str = "light") -> go.Figure:
    """The chart as a figure, with title and legend.

    Args:
        chart: What to draw.
        theme: ``light`` or ``dark``.
    """
    colours = THEMES[theme]  # type: ignore[index]
    heights = [pixels(panel) for panel in chart.panels]
    titled = any(panel.title for panel in chart.panels)
    gap = max(78 if titled else 40, 0 if chart.share_x else 95)
    rows, total = len(chart.panels), sum(heights)
    # One column whatever the chart says: it is read on narrow screens too.
    made = make_subplots(
        rows=rows,
        cols=1,
        shared_xaxes=chart.share_x,
        row_heights=[height / total for height in heights],
        # A share of the whole height; Plotly allows at most 1 / (rows - 1).
        vertical_spacing=min(gap / (total + gap * (rows - 1)), 0.9 / (rows - 1)) if rows > 1 else 0,
        specs=[[{"secondary_y": bool(panel.right)}] for panel in chart.panels],
        subplot_titles=[html.escape(panel.title) for panel in chart.panels],
    )
    seen: set[str] = set()
    for row, panel in enumerate(chart.panels, start=1):
        for mark in panel.marks:
            _ADD[type(mark)](made, mark, panel, {"row": row, "col": 1}, colours, seen)
    if any(any(m.hollow) for p in chart.panels for m in p.marks if isinstance(m, Line)):
        edge = {"color": colours.text, "width": 1.5}
        points = {"size": 8, "color": colours.background, "line": edge}
        sample = {"x": [None], "y": [None], "mode": "markers", "marker": points}
        made.add_trace(go.Scatter(name=_FLAGGED, legendrank=1500, **sample))
    if chart.depth is not None:
        _depth_bar(made, chart.depth, colours)
    _dress(made, chart, colours, total + gap * (rows - 1) + HEAD)
    for row, panel in enumerate(chart.panels, start=1):
        last = row == rows or not chart.share_x
        _axes(made, panel, {"row": row, "col": 1}, colours, label=last)
    return made


def pixels(panel: Panel) -> int:
    """Height of a panel's axes: by its rows if it has any."""
    if not panel.rows:
        return round(PANEL * panel.height)
    return max(90, ROW * (len(row_names(panel)) + 1))


def row_names(panel: Panel) -> list[str]:
    """The names on the y axis of a panel of rows, from the top."""
    names = [str(name) for m in panel.marks if isinstance(m, Line) and m.across for name in m.y]
    return list(dict.fromkeys(names))


def symlog(value: float, linear: float) -> float:
    """Linear within ``linear`` of 0, logarithmic beyond; Plotly has no such axis."""
    return math.copysign(math.log10(1 + abs(value) / linear), value)


# Marks --------------------------------------------------------------------------------------


def _line(
    made: go.Figure, mark: Line, panel: Panel, at: dict[str, int], colours: Theme, seen: set[str]
) -> None:
    colour = colour_of(colours, mark.colour)
    group = mark.group or mark.name
    x, y = _places(mark.x, panel), list(mark.y)
    if panel.rows:
        y = [html.escape(shortened(str(name), 40)) for name in mark.y]
    side = {"secondary_y": mark.axis == "right"} if panel.right else {}
    errors: dict[str, Any] = {}
    if mark.low is not None and mark.high is not None:
        if mark.interval == "bars" or mark.across or len(x) == 1:
            errors = _errors(mark, mark.low, mark.high)
        else:
            faint = 0.06 if mark.width < 2 else 0.16
            band = Band(name=mark.name, x=mark.x, low=mark.low, high=mark.high, colour=mark.colour,  # type: ignore[arg-type]
                        legend=False, opacity=faint)  # fmt: skip
            _band(made, band, panel, {**at, **side}, colours, seen, group=group)
    modes = {"both": "lines+markers", "line": "lines", "points": "markers"}
    mode = modes[mark.mode] if len(x) > 1 or mark.mode == "points" else "lines+markers"
    made.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode=mode,
            name=html.escape(mark.name),
            legendgroup=group,
            legendrank=mark.rank,
            showlegend=mark.legend and group not in seen,
            line={"color": colour, "width": mark.width, "dash": mark.dash},
            marker={"size": mark.size, "color": colour, "symbol": mark.symbol},
            hovertext=[_hover(text) for text in mark.hover] or None,
            hoverinfo="text" if mark.hover else None,
            **errors,
        ),
        **at,
        **side,
    )
    if mark.legend:
        seen.add(group)
    if any(mark.hollow):
        # Points of their own, since the legend shows a line with the marker of its first point.
        kept = [i for i, flagged in enumerate(mark.hollow) if flagged]
        made.add_trace(
            go.Scatter(
                x=[x[i] for i in kept],
                y=[y[i] for i in kept],
                mode="markers",
                legendgroup=group,
                showlegend=False,
                marker={
                    "size": mark.size,
                    "symbol": mark.symbol,
                    "color": colours.background,
                    "line": {"color": colour, "width": 1.5},
                },
                hoverinfo="skip",
            ),
            **at,
            **side,
        )


def _errors(mark: Line, lows: Values, highs: Values) -> dict[str, Any]:
    centre = mark.x if mark.across else mark.y
    numbers = [c if isinstance(c, (int, float)) else 0.0 for c in centre]
    # A missing end is drawn as no bar on that side.
    up = [0 if h is None else max(0.0, h - c) for h, c in zip(highs, numbers, strict=True)]
    down = [0 if b is None else max(0.0, c - b) for b, c in zip(lows, numbers, strict=True)]
    bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5}
    return {"error_x" if mark.across else "error_y": bars}


def _band(
    made: go.Figure,
    mark: Band,
    panel: Panel,
    at: dict[str, Any],
    colours: Theme,
    seen: set[str],
    group: str = "",
) -> None:
    known = [
        (x, low, high)
        for x, low, high in zip(_places(mark.x, panel), mark.low, mark.high, strict=True)
        if low is not None and high is not None
    ]
    x, low, high = ([row[i] for row in known] for i in range(3))
    colour = colour_of(colours, mark.colour)
    made.add_trace(
        go.Scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(low)],
            mode="lines",
            fill="toself",
            fillcolor=translucent(colour, mark.opacity),
            line={"width": 0, "color": colour},
            legendgroup=group or mark.name,
            name=html.escape(mark.name),
            legendrank=1200,
            showlegend=mark.legend and mark.name not in seen,
            hoverinfo="skip",
        ),
        **at,
    )


def _bars(
    made: go.Figure, mark: Bars, panel: Panel, at: dict[str, int], colours: Theme, seen: set[str]
) -> None:
    made.add_trace(
        go.Bar(
            x=_places(mark.x, panel),
            y=list(mark.y),
            width=mark.width,
            marker={"color": colour_of(colours, mark.colour)},
            opacity=mark.opacity,
            name=html.escape(mark.name),
            legendgroup=mark.name,
            showlegend=mark.legend and mark.name not in seen,
            hovertext=[_hover(text) for text in mark.hover] or None,
            hoverinfo="text" if mark.hover else None,
        ),
        **at,
    )
    seen.add(mark.name)


def _heat(
    made: go.Figure, mark: Heat, panel: Panel, at: dict[str, int], colours: Theme, seen: set[str]
) -> None:
    low, middle, high = colours.heat
    bottom, top = made.get_subplot(**at).yaxis.domain
    scale = (
        [[0, middle], [1, high]] if mark.centre is None else [[0, low], [0.5, middle], [1, high]]
    )
    made.add_trace(
        go.Heatmap(
            x=[html.escape(name) for name in mark.x],
            y=[html.escape(name) for name in mark.y],
            z=mark.z,
            zmid=mark.centre,
            colorscale=scale,
            text=mark.text or None,
            texttemplate="%{text}" if mark.text else None,
            textfont={"color": colours.text},
            hovertext=[[_hover(text) for text in line] for line in mark.hover] or None,
            hoverinfo="text" if mark.hover else None,
            showscale=bool(mark.unit),
            colorbar={
                "title": {"text": mark.unit},
                "thickness": 14,
                "outlinewidth": 0,
                "y": (bottom + top) / 2,
                "len": top - bottom,
            },
            xgap=1,
            ygap=1,
        ),
        **at,
    )
    made.update_xaxes(type="category", **at)
    made.update_yaxes(type="category", **at)


def _rule(
    made: go.Figure, mark: Rule, panel: Panel, at: dict[str, int], colours: Theme, seen: set[str]
) -> None:
    colour = colour_of(colours, mark.colour)
    line = {"color": colour, "width": 1.5, "dash": mark.dash}
    place = (
        mark.at if panel.symlog_x is None or not mark.vertical else symlog(mark.at, panel.symlog_x)
    )
    label = {"annotation_text": html.escape(mark.name), "annotation_font_color": colour}
    text: dict[str, Any] = label if mark.name else {}
    if mark.vertical:
        made.add_vline(x=place, line=line, **text, **at)
    else:
        made.add_hline(y=place, line=line, **text, **at)


_ADD: dict[type, Any] = {Line: _line, Band: _band, Bars: _bars, Heat: _heat, Rule: _rule}


def _places(values: Sequence[Any], panel: Panel) -> list[Any]:
    if panel.symlog_x is None:
        return [html.escape(v) if isinstance(v, str) else v for v in values]
    return [None if v is None else symlog(v, panel.symlog_x) for v in values]


def _hover(text: str) -> str:
    first, *rest = html.escape(text).split("\n")
    return "<br>".join([f"<b>{first}</b>", *rest]) if rest else first


# Axes and the whole -------------------------------------------------------------------------


def _axes(
    made: go.Figure, panel: Panel, at: dict[str, int], colours: Theme, *, label: bool
) -> None:
    grid = {"gridcolor": colours.grid, "zerolinecolor": colours.muted, "linecolor": colours.grid}
    common = {**grid, "tickfont": {"size": 13}, "automargin": True, "zerolinewidth": 1}
    across: dict[str, Any] = {**common, "zeroline": panel.rows}
    if panel.log_x:
        across |= {"type": "log", "dtick": "D2"}
    if panel.symlog_x is not None:
        marks = _symlog_ticks(panel)
        across |= {"tickvals": [symlog(v, panel.symlog_x) for v in marks],
                   "ticktext": [f"{v:g}" for v in marks]}  # fmt: skip
    if panel.x_ticks is not None:
        labels = ticks([float(v) for v in panel.x_ticks]) if panel.x_ticks else []
        across |= {"tickvals": labels, "ticktext": [f"{v:g}" for v in labels]}
        if labels and not panel.log_x:
            pad = max((labels[-1] - labels[0]) * 0.03, 0.3)
            across["range"] = [labels[0] - pad, labels[-1] + pad]
    if panel.x_range is not None:
        across["range"] = list(panel.x_range)
    if panel.x and label:
        across["title_text"] = html.escape(panel.x)
    if label:
        across["showticklabels"] = True
    made.update_xaxes(across, **at)
    up: dict[str, Any] = {**common, "zeroline": False, "title_text": html.escape(panel.y)}
    if panel.rows:
        names = [html.escape(shortened(name, 40)) for name in row_names(panel)]
        up |= {"categoryorder": "array", "categoryarray": names[::-1]}
    if panel.log_y:
        up |= {"type": "log", "dtick": "D2"}
    if panel.y_range is not None:
        ends = [math.log10(v) for v in panel.y_range] if panel.log_y else panel.y_range
        up["range"] = list(ends)
    elif panel.from_zero:
        up["rangemode"] = "tozero"
    if not panel.right:
        made.update_yaxes(up, **at)
        return
    made.update_yaxes(up, **at, secondary_y=False)
    title = {"text": html.escape(panel.right), "standoff": 16}
    own = {"title": title, "showgrid": False, "zeroline": False, "tickmode": "auto"}
    made.update_yaxes({**common, **own}, **at, secondary_y=True)
    for axis, right in (("left", False), ("right", True)):
        # The labels of two axes take the colours of their lines.
        shown = [m for m in panel.marks if isinstance(m, Line) and m.axis == axis]
        if shown:
            font = {"color": colour_of(colours, shown[0].colour)}
            made.update_yaxes(title_font=font, **at, secondary_y=right)


def _symlog_ticks(panel: Panel) -> list[float]:
    values = [
        v for m in panel.marks if isinstance(m, Line) for v in m.x if isinstance(v, (int, float))
    ]
    assert panel.symlog_x is not None
    powers = [10.0**k for k in range(-4, 7) if 10.0**k >= panel.symlog_x]
    high, low = max(values, default=0.0), min(values, default=0.0)
    kept = [p for p in powers if p <= 2 * high] + [-p for p in powers if -p >= 2 * low]
    return sorted([0.0, *kept])


def _depth_bar(made: go.Figure, layers: tuple[int, int], colours: Theme) -> None:
    """A colour bar from the first to the last block, carried by a trace without points."""
    steps = len(colours.depth) - 1
    marker = {"color": [layers[0]], "coloraxis": "coloraxis"}
    made.add_trace(
        go.Scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False,
                   hoverinfo="skip")
    )  # fmt: skip
    made.update_layout(
        coloraxis={
            "cmin": layers[0],
            "cmax": layers[1],
            "colorscale": [[i / steps, colour] for i, colour in enumerate(colours.depth)],
            "colorbar": {
                "title": {"text": "block"},
                "thickness": 14,
                "outlinewidth": 0,
                "tickvals": ticks(range(layers[0], layers[1] + 1), at_most=6),
                "len": 0.6,
                "y": 1,
                "yanchor": "top",
            },
        }
    )


def _dress(made: go.Figure, chart: Chart, colours: Theme, height: int) -> None:
    """Title and the line below it, fonts, colours and margins."""
    named = [trace for trace in made.data if trace.showlegend is not False and trace.name]
    title = f"<b>{html.escape(shortened(chart.title, 80))}</b>"
    if chart.below:
        small = html.escape(shortened(chart.below, 110))
        title += f"<br><span style='font-size:0.75em'>{small}</span>"
    above = len(named) > 1
    # Above the titles of the panels in the first line, if they have any.
    lift = 26 / height if any(panel.title for panel in chart.panels) else 0.0
    made.update_layout(
        height=height + (40 if above else 0),
        title={"text": title, "x": 0, "xref": "paper", "yref": "container", "y": 0.98,
               "yanchor": "top"},
        showlegend=above,
        legend={"orientation": "h", "x": 0, "y": 1 + lift, "yanchor": "bottom", "yref": "paper"},
        margin={"t": 150 if above else HEAD, "l": 60, "r": 20, "b": 50},
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
        barmode="overlay",
        bargap=0.05,
        template=go.layout.Template(),
        modebar={"color": colours.muted, "bgcolor": "rgba(0,0,0,0)"},
    )  # fmt: skip
    for note in made.layout.annotations:
        # Titles of panels stand at the left, as the title of the whole does.
        if note.yanchor == "bottom" and note.xref == "paper":
            note.update(x=0, xanchor="left", font={"size": 14, "color": colours.text})
