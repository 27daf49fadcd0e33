"""The picture of a comparison: behaviour over shots, relations with intervals, emergence by block.

An interactive Plotly figure in the house style. Cost: importing Plotly takes half a second.
"""

from __future__ import annotations

import html

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ed_interp.eval.compare.result import Comparison, Effect
from ed_interp.figures.style import FONT, THEMES, Theme, ThemeName, shortened

_ROW, _HEAD = 22, 330


def comparison_figure(comparison: Comparison, *, theme: ThemeName = "light") -> go.Figure:
    """Control and treated over shots; below, what changed per relation; beside it, emergence.

    Args:
        comparison: What was compared.
        theme: ``light`` or ``dark``.
    """
    colours = THEMES[theme]
    relations = comparison.effect("relation", "logprob")
    figure = make_subplots(
        rows=2,
        cols=2,
        row_heights=[0.4, 0.6],
        vertical_spacing=0.14,
        horizontal_spacing=0.16,
        subplot_titles=(
            "accuracy over shots",
            "log-probability over shots (nats)",
            "change of log-probability by relation (nats)",
            "change of emergence (bits)",
        ),
    )
    for column, metric in ((1, "accuracy"), (2, "logprob")):
        _behaviour(figure, comparison.effect("behaviour", metric), column, colours)
    _relations(figure, relations, comparison.alpha, colours)
    _emergence(figure, comparison.effect("emergence", "emergence"), colours)
    title = f"{comparison.treated.get('name')} against {comparison.control.get('name')}"
    figure.update_layout(
        height=_HEAD + max(260, _ROW * (len(relations) + 2)),
        title={
            "text": f"<b>{html.escape(shortened(title))}</b> · {html.escape(comparison.task)}",
            "x": 0,
            "xref": "paper",
        },
        font={"family": FONT, "size": 13, "color": colours.text},
        paper_bgcolor=colours.background,
        plot_bgcolor=colours.background,
        template=go.layout.Template(),
        margin={"t": 100, "l": 60, "r": 30, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.06, "yanchor": "bottom"},
        hoverlabel={"bgcolor": colours.background, "font": {"color": colours.text}},
    )
    axis = {"gridcolor": colours.grid, "zerolinecolor": colours.muted, "automargin": True}
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure


def verdict_colour(verdict: str, colours: Theme) -> str:
    """Better and worse in two colours that can be told apart without red and green."""
    return {"better": colours.accuracy, "worse": colours.logprob}.get(verdict, colours.muted)


def _behaviour(figure: go.Figure, effects: tuple[Effect, ...], column: int, colours: Theme) -> None:
    for side, colour, dash in (
        ("control", colours.muted, "dash"),
        ("treated", colours.accuracy, "solid"),
    ):
        figure.add_trace(
            go.Scatter(
                x=[effect.shots for effect in effects],
                y=[getattr(effect, side) for effect in effects],
                mode="lines+markers",
                name=side,
                legendgroup=side,
                showlegend=column == 1,
                line={"color": colour, "dash": dash, "width": 2.5},
                customdata=[[effect.difference, effect.p_holm] for effect in effects],
                hovertemplate=f"{side} %{{y:.3f}} at %{{x}} shots<br>difference "
                "%{customdata[0]:+.3f}, corrected p %{customdata[1]:.2g}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text="shots", row=1, col=column)


def _relations(
    figure: go.Figure, effects: tuple[Effect, ...], alpha: float, colours: Theme
) -> None:
    """A point and its interval for each, largest loss at the top."""
    ordered = sorted(effects, key=lambda effect: -effect.difference)
    for verdict in ("worse", "better", "unchanged"):
        kept = [effect for effect in ordered if effect.verdict(alpha) == verdict]
        if not kept:
            continue
        figure.add_trace(
            go.Scatter(
                x=[effect.difference for effect in kept],
                y=[effect.name for effect in kept],
                mode="markers",
                name=verdict,
                marker={"color": verdict_colour(verdict, colours), "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [effect.ci_high - effect.difference for effect in kept],
                    "arrayminus": [effect.difference - effect.ci_low for effect in kept],
                    "thickness": 1.4,
                },
                customdata=[[effect.p_holm] for effect in kept],
                hovertemplate="%{y}: %{x:+.3f}, corrected p %{customdata[0]:.2g}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    names = [effect.name for effect in ordered]
    figure.update_yaxes(categoryorder="array", categoryarray=names, row=2, col=1)


def _emergence(figure: go.Figure, effects: tuple[Effect, ...], colours: Theme) -> None:
    if not effects:
        return
    blocks = list(dict.fromkeys(effect.name for effect in effects))
    shots = sorted({effect.shots for effect in effects if effect.shots is not None})
    cells = {(effect.name, effect.shots): effect.difference for effect in effects}
    low, middle, high = colours.heat
    figure.add_trace(
        go.Heatmap(
            x=[str(count) for count in shots],
            y=blocks,
            z=[[cells[block, count] for count in shots] for block in blocks],
            zmid=0,
            colorscale=[[0, low], [0.5, middle], [1, high]],
            texttemplate="%{z:+.2f}",
            textfont={"color": colours.text},
            showscale=False,
            hovertemplate="%{y}, %{x} shots: %{z:+.3f} bits<extra></extra>",
        ),
        row=2,
        col=2,
    )
    figure.update_xaxes(title_text="shots", row=2, col=2)
