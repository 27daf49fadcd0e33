"""Further views of a curve: E as a heat map, its two terms apart, and E over the noise."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ed_interp.figures.common import add_depth_bar, finish, plural, shots_axis
from ed_interp.figures.shapes import Curve, Profile, Row, rows_of
from ed_interp.figures.style import MANY_BLOCKS, THEMES, ThemeName, depth_colour, ticks


def emergence_heatmap(curve: Curve, *, theme: ThemeName = "light") -> go.Figure:
    """E over block (upwards) and shots. A star marks flagged values.

    The colours are sequential, or diverging around 0 where E is clearly negative somewhere.
    """
    colours = THEMES[theme]
    layers, shots = list(curve.layers), list(curve.shots)
    cells: Mapping[tuple[int, int], Row] = {(row.layer, row.shots): row for row in curve.rows}
    grid = [[cells.get((layer, count)) for count in shots] for layer in layers]
    values = [row.emergence for row in curve.rows]
    low, high = min(values, default=0.0), max(values, default=0.0)
    diverging = low < -0.05 * max(high, 0.0)
    negative, zero, positive = colours.heat
    figure = go.Figure(
        go.Heatmap(
            x=[str(count) for count in shots],
            y=layers,
            z=[[row.emergence if row else None for row in line] for line in grid],
            text=[
                [f"{row.emergence:.2f}{'*' if row.flags else ''}" if row else "" for row in line]
                for line in grid
            ],
            texttemplate="%{text}",
            hovertext=[
                [
                    f"block {row.layer}, {plural(row.shots, 'shot')}<br>E {row.emergence:.3f} "
                    f"{html.escape(curve.unit)}"
                    + (f"<br>flags: {html.escape(', '.join(row.flags))}" if row.flags else "")
                    if row
                    else ""
                    for row in line
                ]
                for line in grid
            ],
            hoverinfo="text",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            colorscale=[negative, zero, positive] if diverging else [zero, positive],
            zmid=0 if diverging else None,
            textfont={"color": colours.text},
            colorbar={
                "title": {"text": f"E ({html.escape(curve.unit)})"},
                "thickness": 14,
                "outlinewidth": 0,
            },
        )
    )
    finish(
        figure, curve, colours, height=max(320, min(200 + 26 * len(layers), 1000)), what="emergence"
    )
    figure.update_xaxes(
        type="category", title_text="shots", showgrid=False, tickangle=0, automargin=True
    )
    figure.update_yaxes(title_text="block", tickvals=ticks(layers, at_most=24), showgrid=False)
    return figure


def macro_micro_figure(curve: Curve, *, theme: ThemeName = "light") -> go.Figure:
    """The two terms of E apart: macro (last token) above, micro (lone tokens) below."""
    colours = THEMES[theme]
    layers = list(curve.layers)
    many = len(layers) > MANY_BLOCKS
    unit = html.escape(curve.unit)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    entropy = {row.shots: row.macro_limit for row in sorted(curve.rows, key=lambda row: row.shots)}
    figure.add_trace(
        go.Scatter(
            x=list(entropy),
            y=list(entropy.values()),
            mode="lines+markers" if len(entropy) == 1 else "lines",
            name="entropy of the sequences",
            line={"color": colours.muted, "width": 2, "dash": "dash"},
            hovertemplate=f"%{{x}} shots: macro is at most %{{y:.3f}} {unit}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    for place, term in enumerate(("macro", "micro"), start=1):
        for layer, rows in rows_of(curve).items():
            colour = depth_colour(colours, layer, layers)
            figure.add_trace(
                go.Scatter(
                    x=[row.shots for row in rows],
                    y=[row.macro if term == "macro" else row.micro for row in rows],
                    mode="lines+markers",
                    name=f"block {layer}",
                    legendgroup=f"block {layer}",
                    legendrank=500 - layer,
                    showlegend=not many and place == 1,
                    line={"color": colour, "width": 1.5 if many else 2.5},
                    marker={"size": 4 if many else 7},
                    hovertemplate=(
                        f"block {layer}, %{{x}} shots<br>{term} %{{y:.3f}} {unit}<extra></extra>"
                    ),
                ),
                row=place,
                col=1,
            )
        figure.update_yaxes(title_text=f"{term} ({unit})", row=place, col=1)
    if many:
        add_depth_bar(figure, layers, colours)
    finish(figure, curve, colours, height=640, what="macro and micro information")
    figure.update_xaxes(shots_axis(curve.shots))
    figure.update_xaxes(title_text="shots", row=2, col=1)
    return figure


def profile_figure(curve: Curve, *, theme: ThemeName = "light") -> go.Figure:
    """E over the noise scale, per block, at the most shots; the curve's own noise is marked."""
    colours = THEMES[theme]
    unit = html.escape(curve.unit)
    most = max((row.shots for row in curve.profile), default=0)
    blocks: dict[int, list[Profile]] = {}
    for row in sorted(curve.profile, key=lambda row: (row.layer, row.noise)):
        if row.shots == most:
            blocks.setdefault(row.layer, []).append(row)
    many = len(blocks) > MANY_BLOCKS
    figure = go.Figure()
    for layer, rows in blocks.items():
        colour = depth_colour(colours, layer, list(blocks))
        figure.add_trace(
            go.Scatter(
                x=[row.noise for row in rows],
                y=[row.emergence for row in rows],
                mode="lines+markers",
                name=f"block {layer}",
                legendrank=500 - layer,
                showlegend=not many,
                line={"color": colour, "width": 1.5 if many else 2.5},
                marker={"size": 4 if many else 7},
                hovertext=[
                    f"block {layer}, {plural(most, 'shot')}, noise {row.noise:.3g} "
                    f"(beta {row.beta:.3g})<br>E {row.emergence:.3f} {unit}<br>"
                    f"macro {row.macro:.3f}, micro {row.micro:.3f} {unit}"
                    for row in rows
                ],
                hoverinfo="text",
            )
        )
    if many:
        add_depth_bar(figure, list(blocks), colours)
    finish(figure, curve, colours, height=440, what=f"over noise, at {plural(most, 'shot')}")
    scales = sorted({row.noise for rows in blocks.values() for row in rows})
    labels = scales[:: math.ceil(len(scales) / 10) or 1]
    figure.update_xaxes(
        type="log",
        title_text="noise scale per normalised coordinate",
        tickvals=labels,
        ticktext=[f"{scale:.2g}" for scale in labels],
    )
    figure.update_yaxes(title_text=f"emergence E ({unit})")
    if curve.noise is not None and curve.noise > 0 and blocks:
        figure.add_shape(
            type="line",
            x0=curve.noise,
            x1=curve.noise,
            y0=0,
            y1=1,
            yref="paper",
            line={"color": colours.muted, "dash": "dash", "width": 2},
        )
        figure.add_annotation(
            x=math.log10(curve.noise),  # annotations on a log axis are placed by exponent
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"noise of the curve: {curve.noise:.3g}",
            font={"color": colours.muted, "size": 13},
        )
    return figure
