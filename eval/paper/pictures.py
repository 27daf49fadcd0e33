"""The pictures of a paper: values with their intervals, on the screen and on paper.

One kind serves all trials: a row per arm, shot count or relation, a panel per metric. The still
form is SVG text, made without a browser; it holds names, marks and the numbers of its axes, and
every value it draws stands in a table of appendix D. Cost: milliseconds, and Plotly's import.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import Any, Literal

from ed_interp.eval.paper.document import Parts, Picture
from ed_interp.figures.style import FONT, THEMES, ThemeName, shortened

Tone = Literal["plain", "accent", "caution"]
_WIDTH, _LEFT, _RIGHT, _ROW, _HEAD, _FOOT = 720.0, 230.0, 24.0, 22.0, 34.0, 34.0


@dataclasses.dataclass(frozen=True)
class Mark:
    """A value with its interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    tone: Tone = "plain"
    """``accent`` and ``caution`` have colours of their own."""


@dataclasses.dataclass(frozen=True)
class Panel:
    """Values of one metric."""

    title: str
    marks: tuple[Mark, ...]
    zero: bool = False
    """Draw the line of no difference."""


def interval_picture(name: str, heading: str, caption: Parts, panels: Sequence[Panel]) -> Picture:
    """A picture of panels below one another, for both themes and for paper."""
    from ed_interp.report import page_figure

    kept = tuple(panel for panel in panels if panel.marks)
    figure = page_figure(name, heading, "", lambda theme: interval_figure(kept, theme=theme))
    return Picture(name, caption, figure, interval_svg(kept, label=heading))


def curve_picture(name: str, curve: Any, caption: Parts) -> Picture:
    """The picture of an emergence curve, as its own report has it."""
    from ed_interp import figures
    from ed_interp.probes.emergence.curve import FLAGS
    from ed_interp.report import page_figure

    def draw(theme: ThemeName) -> Any:
        return figures.emergence_figure(curve, theme=theme, flags=FLAGS)

    heading = f"Emergence of {curve.model} on {curve.task}"
    figure = page_figure(name, heading, "", draw)
    return Picture(name, caption, figure, figures.emergence_svg(curve, label=heading))


def interval_figure(panels: Sequence[Panel], *, theme: ThemeName = "light") -> Any:
    """The interactive form: a Plotly figure.

    Args:
        panels: From the top down.
        theme: ``light`` or ``dark``.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    colours = THEMES[theme]
    rows = [len(panel.marks) + 1 for panel in panels]
    height = sum(30 * count + 80 for count in rows)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=[count / sum(rows) for count in rows],
        vertical_spacing=min(80 / height, 0.9 / max(1, len(panels))),
        subplot_titles=[html.escape(panel.title) for panel in panels],
    )
    for place, panel in enumerate(panels, start=1):
        names = [shortened(mark.name, 34) for mark in panel.marks]
        figure.add_trace(
            go.Scatter(
                x=[mark.value for mark in panel.marks],
                y=[html.escape(name) for name in names],
                mode="markers",
                showlegend=False,
                marker={"size": 9, "color": [_colour(mark, theme) for mark in panel.marks]},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [_reach(mark.high, mark.value) for mark in panel.marks],
                    "arrayminus": [_reach(mark.value, mark.low) for mark in panel.marks],
                    "thickness": 1.4,
                    "color": colours.muted,
                },
                hovertemplate="%{y}: %{x:.4g}<extra></extra>",
            ),
            row=place,
            col=1,
        )
        if panel.zero:
            spot: dict[str, Any] = {"row": place, "col": 1}
            figure.add_vline(x=0, line={"color": colours.muted, "width": 1}, **spot)
    figure.update_annotations(x=0, xanchor="left", font={"size": 14})
    figure.update_yaxes(autorange="reversed", automargin=True, gridcolor=colours.grid)
    figure.update_xaxes(automargin=True, gridcolor=colours.grid, zerolinecolor=colours.grid)
    figure.update_layout(
        height=height + 60,
        margin={"t": 60, "l": 20, "r": 20, "b": 30},
        font={"family": FONT, "size": 13, "color": colours.text},
        paper_bgcolor=colours.background,
        plot_bgcolor=colours.background,
        template=go.layout.Template(),
        hoverlabel={"bgcolor": colours.background, "font": {"color": colours.text}},
    )
    return figure


def interval_svg(panels: Sequence[Panel], *, label: str) -> str:
    """The still form: SVG in the colours of paper."""
    colours, top, parts = THEMES["light"], 0.0, []
    for panel in panels:
        parts += _panel(panel, top)
        top += _HEAD + _ROW * len(panel.marks) + _FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {top:g}" role="img" '
        f'aria-label="{html.escape(label)}" font-family="{html.escape(FONT)}" font-size="12">'
        f'<rect width="100%" height="100%" fill="{colours.background}"/>{"".join(parts)}</svg>'
    )


def _panel(panel: Panel, top: float) -> list[str]:
    colours, bottom = THEMES["light"], top + _HEAD + _ROW * len(panel.marks)
    low, high = _range(panel)
    found = [_text(0.0, top + 18, panel.title, colours.text, bold=True)]
    ticks = ticks_between(low, high)

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    for tick in ticks:
        strong = panel.zero and tick == 0
        found.append(_line(across(tick), top + _HEAD - 4, bottom, strong))
        found.append(_text(across(tick), bottom + 15, f"{tick:g}", colours.muted, "middle"))
    for place, mark in enumerate(panel.marks):
        y, colour = top + _HEAD + _ROW * (place + 0.5), _colour(mark, "light")
        found.append(_text(_LEFT - 12, y + 4, shortened(mark.name, 34), colours.text, "end"))
        if mark.low is not None and mark.high is not None:
            found.append(
                f'<line x1="{across(mark.low):.1f}" x2="{across(mark.high):.1f}" y1="{y:g}" '
                f'y2="{y:g}" stroke="{colours.muted}" stroke-width="1.6"/>'
            )
        found.append(f'<circle cx="{across(mark.value):.1f}" cy="{y:g}" r="4" fill="{colour}"/>')
    return found


def ticks_between(low: float, high: float) -> list[float]:
    """Round numbers within a range, about five of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6), 10)
    first = math.ceil(low / step)
    count = math.floor((high - first * step) / step + 1e-9)
    return [0.0 if first + place == 0 else (first + place) * step for place in range(count + 1)]


def _range(panel: Panel) -> tuple[float, float]:
    found = [mark.value for mark in panel.marks]
    found += [end for mark in panel.marks for end in (mark.low, mark.high) if end is not None]
    low, high = min(found), max(found)
    if panel.zero:
        low, high = min(low, 0.0), max(high, 0.0)
    pad = (high - low) * 0.05 or max(abs(high) * 0.1, 0.5)
    return low - pad, high + pad


def _reach(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else max(0.0, high - low)


def _colour(mark: Mark, theme: ThemeName) -> str:
    colours = THEMES[theme]
    return {"accent": colours.accuracy, "caution": colours.logprob}.get(mark.tone, colours.muted)


def _line(x: float, top: float, bottom: float, strong: bool) -> str:
    colour = THEMES["light"].muted if strong else THEMES["light"].grid
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, colour: str, anchor: str = "start", *, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight}>'
        f"{html.escape(text)}</text>"
    )
