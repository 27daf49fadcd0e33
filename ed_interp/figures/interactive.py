"""The main figure: emergence per block over shots, and behaviour below it."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ed_interp.figures.common import (
    add_band,
    add_depth_bar,
    error_bars,
    finish,
    plural,
    shots_axis,
)
from ed_interp.figures.shapes import (
    Curve,
    Row,
    behaviour_of,
    flag_meanings,
    limit_of,
    rows_of,
    twin_range,
)
from ed_interp.figures.style import (
    MANY_BLOCKS,
    THEMES,
    Theme,
    ThemeName,
    depth_colour,
    translucent,
)


def emergence_figure(
    curve: Curve, *, theme: ThemeName = "light", flags: Mapping[str, str] | None = None
) -> go.Figure:
    """Emergence E of every block over shots; below it accuracy and log-probability.

    Colour is depth. Bands are bootstrap intervals; the dashed line is the limit of noiseless
    networks; dotted lines (a grey band, with many blocks) are the untrained twin; hollow points
    are flagged, and their hover text says why.

    Args:
        flags: what each flag means; by default what the curve's module says.
    """
    colours = THEMES[theme]
    behaviour = behaviour_of(curve)
    figure = make_subplots(
        rows=2 if behaviour else 1,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.07,
        row_heights=[0.62, 0.38] if behaviour else [1.0],
        specs=[[{}], [{"secondary_y": True}]] if behaviour else [[{}]],
    )
    meanings = flag_meanings(curve) if flags is None else flags
    _add_twin(figure, curve, colours)
    _add_limit(figure, curve, colours)
    _add_blocks(figure, curve, colours, meanings)
    figure.update_yaxes(title_text=f"emergence E ({html.escape(curve.unit)})", row=1, col=1)
    if behaviour:
        _add_behaviour(figure, curve, colours)
    finish(figure, curve, colours, height=720 if behaviour else 480)
    figure.update_xaxes(shots_axis(curve.shots))
    figure.update_xaxes(title_text="shots", row=2 if behaviour else 1, col=1)
    return figure


def _add_blocks(
    figure: go.Figure, curve: Curve, colours: Theme, meanings: Mapping[str, str]
) -> None:
    layers = list(curve.layers)
    many = len(layers) > MANY_BLOCKS
    unit = html.escape(curve.unit)
    for layer, rows in rows_of(curve).items():
        colour = depth_colour(colours, layer, layers)
        add_band(
            figure,
            [row.shots for row in rows],
            [row.ci_low for row in rows],
            [row.ci_high for row in rows],
            colour=translucent(colour, 0.06 if many else 0.16),
            group=f"block {layer}",
        )
        size = 5 if many else 8
        figure.add_trace(
            go.Scatter(
                x=[row.shots for row in rows],
                y=[row.emergence for row in rows],
                mode="lines+markers",
                name=f"block {layer}",
                legendgroup=f"block {layer}",
                legendrank=500 - layer,  # deepest first, as the lines mostly lie
                showlegend=not many,
                line={"color": colour, "width": 1.5 if many else 2.5},
                marker={"size": size, "color": colour},
                # A band needs two shot counts.
                error_y=error_bars(rows[0].emergence, rows[0].ci_low, rows[0].ci_high)
                if len(rows) == 1
                else None,
                hovertext=[_hover(row, unit, meanings) for row in rows],
                hoverinfo="text",
            ),
            row=1,
            col=1,
        )
        flagged = [row for row in rows if row.flags]
        if flagged:
            _add_hollow(figure, flagged, f"block {layer}", colour, colours.background, size)
    if any(row.flags for row in curve.rows):
        _add_hollow(figure, [], "flagged (hover says why)", colours.text, colours.background, 8)
    if many:
        add_depth_bar(figure, layers, colours)


def _add_hollow(
    figure: go.Figure, rows: list[Row], name: str, colour: str, inside: str, size: int
) -> None:
    """Hollow points over those of ``rows``; without any, the entry in the legend for them.

    Points of their own, since the legend shows a line with the marker of its first point.
    """
    figure.add_trace(
        go.Scatter(
            x=[row.shots for row in rows] if rows else [None],
            y=[row.emergence for row in rows] if rows else [None],
            mode="markers",
            name=name,
            legendgroup=name,
            legendrank=1500,
            showlegend=not rows,
            marker={"size": size, "color": inside, "line": {"color": colour, "width": 1.5}},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )


def _hover(row: Row, unit: str, meanings: Mapping[str, str]) -> str:
    lines = [
        f"<b>block {row.layer}, {plural(row.shots, 'shot')}</b>",
        f"E {row.emergence:.3f} {unit} (interval {row.ci_low:.3f} to {row.ci_high:.3f})",
        f"macro {row.macro:.3f} of at most {row.macro_limit:.3f} {unit}",
        f"micro {row.micro:.3f} {unit}",
        f"limit of noiseless networks {row.limit:.3f} {unit}",
    ]
    if row.untrained is not None:
        lines.append(f"untrained twin {row.untrained:.3f} {unit}")
    for flag in row.flags:
        told = f"{flag}: {meanings[flag]}" if flag in meanings else flag
        wrapped = [html.escape(line) for line in textwrap.wrap(told, 58)]
        lines.append("⚑ " + "<br>   ".join(wrapped))
    return "<br>".join(lines)


def _add_limit(figure: go.Figure, curve: Curve, colours: Theme) -> None:
    limit = limit_of(curve)
    unit = html.escape(curve.unit)
    figure.add_trace(
        go.Scatter(
            x=list(limit),
            y=list(limit.values()),
            mode="lines+markers" if len(limit) == 1 else "lines",
            name="limit of noiseless networks",
            legendrank=1100,
            line={"color": colours.muted, "width": 2, "dash": "dash"},
            hovertemplate=(
                f"%{{x}} shots: any noiseless network that keeps<br>distinct inputs distinct "
                f"has %{{y:.3f}} {unit}<extra></extra>"
            ),
        ),
        row=1,
        col=1,
    )


def _add_twin(figure: go.Figure, curve: Curve, colours: Theme) -> None:
    span = twin_range(curve)
    if not span:
        return
    layers = list(curve.layers)
    unit = html.escape(curve.unit)
    if len(layers) > MANY_BLOCKS:
        low = [ends[0] for ends in span.values()]
        high = [ends[1] for ends in span.values()]
        add_band(
            figure,
            list(span),
            low,
            high,
            colour=translucent(colours.muted, 0.3),
            group="untrained twin",
            name="untrained twin, all blocks",
        )
        return
    for layer, rows in rows_of(curve).items():
        found = [(row.shots, row.untrained) for row in rows if row.untrained is not None]
        figure.add_trace(
            go.Scatter(
                x=[shots for shots, _ in found],
                y=[value for _, value in found],
                mode="lines+markers" if len(found) == 1 else "lines",
                name="untrained twin" if layer == layers[0] else f"untrained twin, block {layer}",
                legendgroup="untrained twin",
                legendrank=1200,
                showlegend=layer == layers[0],
                line={
                    "color": depth_colour(colours, layer, layers),
                    "width": 1.5,
                    "dash": "dot",
                },
                hovertemplate=(
                    f"untrained twin, block {layer}<br>%{{x}} shots: %{{y:.3f}} {unit}"
                    "<extra></extra>"
                ),
            ),
            row=1,
            col=1,
        )


def _add_behaviour(figure: go.Figure, curve: Curve, colours: Theme) -> None:
    rows = behaviour_of(curve)
    shots = [row.shots for row in rows]
    add_band(
        figure,
        shots,
        [row.ci_low for row in rows],
        [row.ci_high for row in rows],
        colour=translucent(colours.accuracy, 0.18),
        group="accuracy",
        place={"row": 2, "col": 1, "secondary_y": False},
    )
    figure.add_trace(
        go.Scatter(
            x=shots,
            y=[row.accuracy for row in rows],
            mode="lines+markers",
            name="accuracy",
            legendrank=2000,
            legendgroup="accuracy",
            line={"color": colours.accuracy, "width": 2.5},
            marker={"size": 8},
            error_y=error_bars(rows[0].accuracy, rows[0].ci_low, rows[0].ci_high)
            if len(rows) == 1
            else None,
            hovertext=[
                f"<b>{plural(row.shots, 'shot')}</b>, {plural(row.n, 'prompt')}<br>"
                f"accuracy {row.accuracy:.3f} (interval {row.ci_low:.3f} to {row.ci_high:.3f})<br>"
                f"chance {row.chance:.3f}<br>"
                f"gain {row.gain:+.3f} (interval {row.gain_ci_low:+.3f} to "
                f"{row.gain_ci_high:+.3f})<br>"
                f"median rank of the answer's first token {row.rank:g}"
                for row in rows
            ],
            hoverinfo="text",
        ),
        row=2,
        col=1,
        secondary_y=False,
    )
    figure.add_trace(
        go.Scatter(
            x=shots,
            y=[row.chance for row in rows],
            mode="lines+markers" if len(shots) == 1 else "lines",
            name="chance",
            legendrank=2000,
            line={"color": colours.muted, "width": 2, "dash": "dot"},
            hovertemplate="chance at %{x} shots: %{y:.3f}<extra></extra>",
        ),
        row=2,
        col=1,
        secondary_y=False,
    )
    add_band(
        figure,
        shots,
        [row.logprob_ci_low for row in rows],
        [row.logprob_ci_high for row in rows],
        colour=translucent(colours.logprob, 0.14),
        group="log-probability",
        place={"row": 2, "col": 1, "secondary_y": True},
    )
    figure.add_trace(
        go.Scatter(
            x=shots,
            y=[row.logprob for row in rows],
            mode="lines+markers",
            name="log-probability",
            legendrank=2000,
            legendgroup="log-probability",
            line={"color": colours.logprob, "width": 2.5, "dash": "dashdot"},
            marker={"size": 8, "symbol": "diamond"},
            error_y=error_bars(rows[0].logprob, rows[0].logprob_ci_low, rows[0].logprob_ci_high)
            if len(rows) == 1
            else None,
            hovertext=[
                f"<b>{plural(row.shots, 'shot')}</b><br>log-probability of the answer "
                f"{row.logprob:.3f} nats<br>(interval {row.logprob_ci_low:.3f} to "
                f"{row.logprob_ci_high:.3f})"
                for row in rows
            ],
            hoverinfo="text",
        ),
        row=2,
        col=1,
        secondary_y=True,
    )
    figure.update_yaxes(
        title={"text": "accuracy", "font": {"color": colours.accuracy}},
        range=[-0.03, 1.03],
        row=2,
        col=1,
        secondary_y=False,
    )
    figure.update_yaxes(
        title={
            "text": "log-probability (nats)",
            "font": {"color": colours.logprob},
            "standoff": 16,
        },
        tickmode="auto",
        showgrid=False,
        row=2,
        col=1,
        secondary_y=True,
    )
