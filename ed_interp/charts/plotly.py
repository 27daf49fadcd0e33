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

from ed_interp.charts.spec import Band, Bars, Chart, Heat, Line, Panel, Rule
from ed_interp.charts.theme import FONT, THEMES, Theme, colour_of, shortened, ticks, translucent

PANEL, ROW, HEAD = 300, 24, 110
"""Pixels: a panel of height 1, a row of a panel of rows, title and legend."""

_MODES = {"both": "lines+markers", "line": "lines", "points": "markers"}
_BAND = ("name", "colour", "x", "low", "high")


def figure(chart: Chart, theme: str = "light") -> go.Figure:
    """The chart in theme ``light`` or ``dark``, with title and legend, its panels in one column."""
    heights = [pixels(panel) for panel in chart.panels]
    gap = max(78 if any(p.title for p in chart.panels) else 40, 0 if chart.share_x else 95)
    rows, total = len(chart.panels), sum(heights)
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
    drawing = _Drawing(made, THEMES[theme])  # type: ignore[index]
    for row, panel in enumerate(chart.panels, start=1):
        for mark in panel.marks:
            draw = getattr(drawing, type(mark).__name__.lower())  # a method for each kind of mark
            draw(mark, panel, {"row": row, "col": 1})
    drawing.legend(chart)
    drawing.dress(chart, total + gap * (rows - 1) + HEAD)
    for row, panel in enumerate(chart.panels, start=1):
        drawing.axes(panel, {"row": row, "col": 1}, label=row == rows or not chart.share_x)
    return made


def pixels(panel: Panel) -> int:
    """Height of a panel's axes: by its rows if it has any."""
    return max(90, ROW * (len(panel.names) + 1)) if panel.rows else round(PANEL * panel.height)


def symlog(value: float, linear: float) -> float:
    """Linear within ``linear`` of 0, logarithmic beyond; Plotly has no such axis."""
    return math.copysign(math.log10(1 + abs(value) / linear), value)


class _Drawing:
    """A figure that is being made, in one theme."""

    def __init__(self, made: go.Figure, colours: Theme) -> None:
        self.made, self.colours = made, colours
        self.named: set[str] = set()  # what has its entry in the legend

    # Marks --------------------------------------------------------------------------------

    def line(self, mark: Line, panel: Panel, at: dict[str, Any]) -> None:
        colour = colour_of(self.colours, mark.colour)
        x, y = _places(mark.x, panel), list(mark.y)
        if panel.rows:
            y = [_short(str(name)) for name in mark.y]
        at = {**at, "secondary_y": mark.axis == "right"} if panel.right else at
        errors: dict[str, Any] = {}
        if mark.low is not None and mark.high is not None:
            if mark.interval == "bars" or mark.across or len(x) == 1:
                errors = _errors(mark, mark.low, mark.high)
            else:
                ends: dict[str, Any] = {key: getattr(mark, key) for key in _BAND}
                shade = Band(**ends, legend=False, opacity=0.06 if mark.width < 2 else 0.16)
                self.band(shade, panel, at, group=mark.legend_group)
        # A line needs two points, so a single one is drawn as a point whatever was wanted.
        mode = _MODES["both" if len(x) == 1 and mark.mode == "line" else mark.mode]
        point = {"size": mark.size, "color": colour, "symbol": mark.symbol}
        line = {"color": colour, "width": mark.width, "dash": mark.dash}
        whole = go.Scatter(x=x, y=y, mode=mode, line=line, marker=point, legendrank=mark.rank)
        whole.update(**self._entry(mark.name, mark.legend_group, mark.legend), **errors)
        self.made.add_trace(whole.update(**_hovering(mark.hover)), **at)
        if any(mark.hollow):
            # Points of their own, since the legend shows a line with the marker of its first point.
            flagged = [i for i, is_flagged in enumerate(mark.hollow) if is_flagged]
            edge = {"color": colour, "width": 1.5}
            hole = point | {"color": self.colours.background, "line": edge}
            places = {"x": [x[i] for i in flagged], "y": [y[i] for i in flagged]}
            points = go.Scatter(**places, mode="markers", marker=hole, hoverinfo="skip")
            points.update(legendgroup=mark.legend_group, showlegend=False)
            self.made.add_trace(points, **at)

    def band(self, mark: Band, panel: Panel, at: dict[str, Any], group: str = "") -> None:
        triples = zip(_places(mark.x, panel), mark.low, mark.high, strict=True)
        known = [row for row in triples if row[1] is not None and row[2] is not None]
        x, low, high = ([row[i] for row in known] for i in range(3))
        colour = colour_of(self.colours, mark.colour)
        # One closed outline: up to the right along the upper ends, back along the lower ones.
        area = go.Scatter(x=[*x, *reversed(x)], y=[*high, *reversed(low)], mode="lines")
        area.update(fill="toself", fillcolor=translucent(colour, mark.opacity), legendrank=1200)
        area.update(line={"width": 0, "color": colour}, hoverinfo="skip")
        entry = self._entry(mark.name, group or mark.name, mark.legend)
        self.made.add_trace(area.update(**entry), **at)

    def bars(self, mark: Bars, panel: Panel, at: dict[str, Any]) -> None:
        bars = go.Bar(x=_places(mark.x, panel), y=list(mark.y), width=mark.width)
        bars.update(marker={"color": colour_of(self.colours, mark.colour)}, opacity=mark.opacity)
        bars.update(**self._entry(mark.name, mark.name, mark.legend), **_hovering(mark.hover))
        self.made.add_trace(bars, **at)

    def heat(self, mark: Heat, _: Panel, at: dict[str, Any]) -> None:
        low, middle, high = self.colours.heat
        scale = [middle, high] if mark.centre is None else [low, middle, high]
        cells = go.Heatmap(x=list(map(html.escape, mark.x)), y=list(map(html.escape, mark.y)))
        cells.update(z=mark.z, zmid=mark.centre, colorscale=scale, xgap=1, ygap=1)
        if mark.text:
            font = {"color": self.colours.text}
            cells.update(text=mark.text, texttemplate="%{text}", textfont=font)
        if mark.hover:
            lines = [[_hover(text) for text in line] for line in mark.hover]
            cells.update(hovertext=lines, hoverinfo="text")
        # The bar stands beside its own panel, not beside the whole figure.
        beside: Any = self.made.get_subplot(**at)
        bottom, top = beside.yaxis.domain
        bar = {"title": {"text": mark.unit}, "thickness": 14, "outlinewidth": 0}
        bar |= {"y": (bottom + top) / 2, "len": top - bottom}
        self.made.add_trace(cells.update(showscale=bool(mark.unit), colorbar=bar), **at)
        self.made.update_xaxes(type="category", **at).update_yaxes(type="category", **at)

    def rule(self, mark: Rule, panel: Panel, at: dict[str, Any]) -> None:
        colour = colour_of(self.colours, mark.colour)
        line = {"color": colour, "width": 1.5, "dash": mark.dash}
        text: dict[str, Any] = {}
        if mark.name:
            text = {"annotation_text": html.escape(mark.name), "annotation_font_color": colour}
        if text and (panel.log_x if mark.vertical else panel.log_y):
            # Plotly places notes, though not lines, by exponent there.
            text["annotation_x" if mark.vertical else "annotation_y"] = math.log10(mark.at)
        if mark.vertical:
            self.made.add_vline(x=_places([mark.at], panel)[0], line=line, **text, **at)
        else:
            self.made.add_hline(y=mark.at, line=line, **text, **at)

    def _entry(self, name: str, group: str, legend: bool) -> dict[str, Any]:
        """Name and place in the legend: one entry for a group, whatever number of panels has it."""
        shown = legend and group not in self.named
        if legend:
            self.named.add(group)
        return {"name": html.escape(name), "legendgroup": group, "showlegend": shown}

    # Axes and the whole -------------------------------------------------------------------

    def axes(self, panel: Panel, at: dict[str, Any], *, label: bool) -> None:
        grid = {"gridcolor": self.colours.grid, "linecolor": self.colours.grid}
        common = {**grid, "zerolinecolor": self.colours.muted, "zerolinewidth": 1}
        common |= {"tickfont": {"size": 13}, "automargin": True}
        # Few enough ticks for Plotly to choose 1, 2, 5 or powers of ten, and their numbers in full:
        # without a format it writes 2 for 0.2 and 20 alike.
        log = {"type": "log", "nticks": 4, "tickformat": ",~r"}
        across: dict[str, Any] = {**common, "zeroline": panel.rows, **(log if panel.log_x else {})}
        if panel.symlog_x is not None:
            marks = _symlog_ticks(panel)
            across |= {"tickvals": _places(marks, panel), "ticktext": [f"{v:g}" for v in marks]}
        if panel.x_ticks:
            labels = ticks([float(v) for v in panel.x_ticks])
            across |= {"tickvals": labels, "ticktext": [f"{v:g}" for v in labels]}
            if not panel.log_x:
                pad = max((labels[-1] - labels[0]) * 0.03, 0.3)
                across["range"] = [labels[0] - pad, labels[-1] + pad]
        if panel.x_range is not None:
            across["range"] = list(panel.x_range)
        if label:
            across |= {"title_text": html.escape(panel.x), "showticklabels": True}
        self.made.update_xaxes(across, **at)
        up: dict[str, Any] = {**common, "zeroline": False, **(log if panel.log_y else {})}
        up["title_text"] = html.escape(panel.y)
        if panel.rows:
            names = [_short(name) for name in panel.names]
            up |= {"categoryorder": "array", "categoryarray": names[::-1]}
        if panel.y_range is not None:
            # Plotly takes the range of a logarithmic axis as exponents.
            up["range"] = [math.log10(v) if panel.log_y else v for v in panel.y_range]
        elif panel.from_zero:
            up["rangemode"] = "tozero"
        if not panel.right:
            self.made.update_yaxes(up, **at)
            return
        title = {"text": html.escape(panel.right), "standoff": 16}
        other = {**common, "title": title, "showgrid": False, "zeroline": False, "tickmode": "auto"}
        for axis, settings in (("left", up), ("right", other)):
            self.made.update_yaxes(settings, **at, secondary_y=axis == "right")
            # The labels of two axes take the colours of their lines.
            shown = [m for m in panel.marks if isinstance(m, Line) and m.axis == axis]
            if shown:
                font = {"color": colour_of(self.colours, shown[0].colour)}
                self.made.update_yaxes(title_font=font, **at, secondary_y=axis == "right")

    def legend(self, chart: Chart) -> None:
        """What no trace explains: hollow points, and the colours of many blocks."""
        nothing: dict[str, Any] = {"x": [None], "y": [None], "mode": "markers", "hoverinfo": "skip"}
        if any(any(m.hollow) for p in chart.panels for m in p.marks if isinstance(m, Line)):
            edge = {"color": self.colours.text, "width": 1.5}
            point = {"size": 8, "color": self.colours.background, "line": edge}
            name = "flagged (hover says why)"
            self.made.add_trace(go.Scatter(**nothing, marker=point, name=name, legendrank=1500))
        if chart.depth is None:
            return
        first, last = chart.depth
        marker = {"color": [first], "coloraxis": "coloraxis"}
        self.made.add_trace(go.Scatter(**nothing, marker=marker, showlegend=False))
        bar = {"title": {"text": "block"}, "thickness": 14, "outlinewidth": 0, "len": 0.6, "y": 1}
        bar |= {"yanchor": "top", "tickvals": ticks(range(first, last + 1), at_most=6)}
        scale = {"cmin": first, "cmax": last, "colorscale": list(self.colours.depth)}
        self.made.update_layout(coloraxis={**scale, "colorbar": bar})

    def dress(self, chart: Chart, height: int) -> None:
        """Title and the line below it, fonts, colours and margins."""
        colours, layout = self.colours, self.made.update_layout
        title = f"<b>{html.escape(shortened(chart.title, 80))}</b>"
        if chart.below:
            small = html.escape(shortened(chart.below, 110))
            title += f"<br><span style='font-size:0.75em'>{small}</span>"
        place = {"x": 0, "xref": "paper", "yref": "container", "y": 0.98, "yanchor": "top"}
        traces: Any = self.made.data
        names = [trace for trace in traces if trace.showlegend is not False and trace.name]
        above = len(names) > 1
        # Above the titles of the panels, if they have any.
        lift = 26 / height if any(panel.title for panel in chart.panels) else 0.0
        layout(title={"text": title, **place}, height=height + (40 if above else 0))
        layout(showlegend=above, margin={"t": 150 if above else HEAD, "l": 60, "r": 20, "b": 50})
        layout(legend={"orientation": "h", "x": 0, "y": 1 + lift, "yanchor": "bottom"})
        layout(font={"family": FONT, "size": 14, "color": colours.text})
        layout(paper_bgcolor=colours.background, plot_bgcolor=colours.background)
        box = {"align": "left", "bgcolor": colours.background, "bordercolor": colours.muted}
        layout(hoverlabel={**box, "font": {"color": colours.text, "family": FONT}})
        layout(modebar={"color": colours.muted, "bgcolor": "rgba(0,0,0,0)"})
        layout(hovermode="closest", barmode="overlay", bargap=0.05, template=go.layout.Template())
        for note in self.made.layout.annotations:
            # Titles of panels stand at the left, as the title of the whole does.
            if note.yanchor == "bottom" and note.xref == "paper":
                note.update(x=0, xanchor="left", font={"size": 14, "color": colours.text})


def _errors(mark: Line, lows: Sequence[Any], highs: Sequence[Any]) -> dict[str, Any]:
    centre = mark.x if mark.across else mark.y
    numbers = [c if isinstance(c, (int, float)) else 0.0 for c in centre]
    # A missing end is drawn as no bar on that side.
    up = [0 if h is None else max(0.0, h - c) for h, c in zip(highs, numbers, strict=True)]
    down = [0 if b is None else max(0.0, c - b) for b, c in zip(lows, numbers, strict=True)]
    bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5}
    return {"error_x" if mark.across else "error_y": bars}


def _places(values: Sequence[Any], panel: Panel) -> list[Any]:
    if panel.symlog_x is None:
        return [html.escape(v) if isinstance(v, str) else v for v in values]
    return [None if v is None else symlog(v, panel.symlog_x) for v in values]


def _symlog_ticks(panel: Panel) -> list[float]:
    lines = [mark for mark in panel.marks if isinstance(mark, Line)]
    values = [v for line in lines for v in line.x if isinstance(v, (int, float))]
    powers = [10.0**k for k in range(-4, 7) if 10.0**k >= (panel.symlog_x or 0.0)]
    high, low = max(values, default=0.0), min(values, default=0.0)
    shown = [p for p in powers if p <= 2 * high] + [-p for p in powers if -p >= 2 * low]
    return sorted([0.0, *shown])


def _hovering(texts: Sequence[str]) -> dict[str, Any]:
    return {"hovertext": list(map(_hover, texts)), "hoverinfo": "text"} if texts else {}


def _hover(text: str) -> str:
    first, *rest = html.escape(text).split("\n")
    return "<br>".join([f"<b>{first}</b>", *rest]) if rest else first


def _short(name: str) -> str:
    return html.escape(shortened(name, 40))
