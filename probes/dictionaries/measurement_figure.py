"""The picture of a :class:`DictionaryMeasurement`: density, monosemanticity, sparse probing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ed_interp.figures.style import FONT, THEMES, Theme, ThemeName, mix

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement


def measurement_figure(measured: DictionaryMeasurement, *, theme: ThemeName = "light") -> go.Figure:
    """Three panels, one above the other, so that they can be read on a narrow screen too."""
    colours = THEMES[theme]
    figure = make_subplots(
        rows=3,
        cols=1,
        vertical_spacing=0.12,
        subplot_titles=(
            "how often features are active",
            "how far one token or category explains them",
            "how few of them name the class",
        ),
    )
    _densities(figure, measured, colours)
    _scores(figure, measured, colours)
    _probes(figure, measured, colours)
    numbers = measured.summary()
    figure.update_layout(
        title={
            "text": f"{measured.dictionary.get('architecture')}, {len(measured.features)} latents "
            f"at {measured.site} of {measured.model}<br><span style='font-size:0.75em'>L0 "
            f"{measured.l0:.1f}, FVU {measured.fvu:.3f}, cross-entropy recovered "
            f"{numbers['ce_recovered_zero']:.3f} (zero), {numbers['ce_recovered_mean']:.3f} "
            f"(mean), {measured.dead} dead</span>",
            "x": 0,
            "xref": "paper",
        },
        height=900,
        margin={"t": 110, "l": 60, "r": 20, "b": 50},
        bargap=0.05,
        barmode="overlay",
        font={"family": FONT, "size": 14, "color": colours.text},
        paper_bgcolor=colours.background,
        plot_bgcolor=colours.background,
        template=go.layout.Template(),
        legend={"orientation": "h", "x": 0, "y": -0.08},
    )
    figure.update_xaxes(gridcolor=colours.grid, zerolinecolor=colours.grid, automargin=True)
    figure.update_yaxes(gridcolor=colours.grid, zerolinecolor=colours.grid, automargin=True)
    return figure


def _densities(figure: go.Figure, measured: DictionaryMeasurement, colours: Theme) -> None:
    bars = measured.density_histogram(bins=24)
    figure.add_trace(
        go.Bar(
            x=[(low + high) / 2 for low, high, _ in bars],
            y=[count for _, _, count in bars],
            width=[high - low for low, high, _ in bars],
            marker={"color": colours.accuracy},
            name="living features",
            showlegend=False,
            hovertemplate="10^%{x:.2f} of the tokens: %{y} features<extra></extra>",
        ),
        row=1,
        col=1,
    )
    figure.update_xaxes(title_text="log10 of the share of tokens", row=1, col=1)
    figure.update_yaxes(title_text="features", row=1, col=1)


def _scores(figure: go.Figure, measured: DictionaryMeasurement, colours: Theme) -> None:
    scored = [row for row in measured.features if row.monosemanticity is not None]
    for name, colour, values in (
        ("shuffled control", colours.muted, [row.control for row in scored]),
        ("features", colours.accuracy, [row.monosemanticity for row in scored]),
    ):
        figure.add_trace(
            go.Histogram(
                x=values,
                xbins={"start": 0, "end": 1.0001, "size": 0.05},
                marker={"color": colour},
                opacity=0.7,
                name=name,
            ),
            row=2,
            col=1,
        )
    figure.update_xaxes(title_text="squared correlation on held-out text", row=2, col=1)
    figure.update_yaxes(title_text="features (log)", type="log", row=2, col=1)


def _probes(figure: go.Figure, measured: DictionaryMeasurement, colours: Theme) -> None:
    tasks = list(dict.fromkeys(row.task for row in measured.probing))
    for place, task in enumerate(tasks):
        rows = [row for row in measured.probing if row.task == task]
        figure.add_trace(
            go.Scatter(
                x=[str(row.features) for row in rows] + ["all channels"],
                y=[row.accuracy for row in rows] + [rows[0].dense],
                mode="lines+markers",
                line={"color": mix(colours.depth, place / max(1, len(tasks) - 1))},
                name=f"{task} (chance {rows[0].chance:.2f})",
            ),
            row=3,
            col=1,
        )
    figure.update_xaxes(title_text="features used", type="category", row=3, col=1)
    figure.update_yaxes(title_text="accuracy", range=[0, 1.03], row=3, col=1)
