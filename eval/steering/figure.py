"""The dose-response of a sweep: an interactive figure and a PNG, in the house style.

Change of the score over the coefficient, one line per place, with its bootstrap band; below it the
perplexity of the neutral text with the budget. Cost: the import of Plotly or matplotlib.
"""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.eval.steering.result import SweepCell, SweepResult
from ed_interp.figures.style import FONT, THEMES, ThemeName, mix, shortened, translucent
from ed_interp.records import write_bytes

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SCORE = "change of the score (nats)"
_PERPLEXITY = "perplexity / unsteered"


def dose_response_figure(result: SweepResult, *, theme: ThemeName = "light") -> go.Figure:
    """Change of the score over the coefficient, one line per place, perplexity below."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ed_interp.figures.common import add_band

    colours = THEMES[theme]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06
    )
    for label, rows, colour in _lines(result, theme):
        x = [row.coefficient for row in rows]
        low, high = [row.ci_low for row in rows], [row.ci_high for row in rows]
        add_band(figure, x, low, high, colour=translucent(colour, 0.14), group=label)
        common: dict[str, Any] = {"mode": "lines+markers", "legendgroup": label, "name": label}
        figure.add_trace(
            go.Scatter(
                x=x,
                y=[row.change for row in rows],
                line={"color": colour, "width": 2.5},
                hovertext=[_hover(row) for row in rows],
                hoverinfo="text",
                **common,
            ),
            row=1,
            col=1,
        )
        figure.add_trace(
            go.Scatter(
                x=x,
                y=[row.perplexity_ratio for row in rows],
                line={"color": colour, "width": 2},
                showlegend=False,
                hovertext=[_hover(row) for row in rows],
                hoverinfo="text",
                **common,
            ),
            row=2,
            col=1,
        )
    if result.chosen is not None:
        figure.add_trace(
            go.Scatter(
                x=[result.chosen.coefficient],
                y=[result.chosen.change],
                mode="markers",
                name="chosen",
                marker={"symbol": "star", "size": 16, "color": colours.text},
                hovertext=[_hover(result.chosen)],
                hoverinfo="text",
            ),
            row=1,
            col=1,
        )
    # Typed as names there, and documented as numbers.
    upper: dict[str, Any] = {"row": 1, "col": 1}
    lower: dict[str, Any] = {"row": 2, "col": 1}
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1}, **upper)
    figure.add_hline(
        y=result.budget,
        line={"color": colours.muted, "width": 1.5, "dash": "dash"},
        annotation_text="budget",
        **lower,
    )
    title, below = _titles(result)
    figure.update_layout(
        height=620,
        title={
            "text": f"<b>{html.escape(title)}</b><br>"
            f"<span style='font-size:0.75em'>{html.escape(below)}</span>",
            "x": 0,
            "xref": "paper",
        },
        font={"family": FONT, "size": 14, "color": colours.text},
        paper_bgcolor=colours.background,
        plot_bgcolor=colours.background,
        margin={"t": 90, "l": 60, "r": 20, "b": 50},
        template=go.layout.Template(),
    )
    grid = {"gridcolor": colours.grid, "zerolinecolor": colours.grid, "linecolor": colours.grid}
    figure.update_xaxes(grid)
    figure.update_yaxes(grid)
    figure.update_xaxes(title_text="coefficient", row=2, col=1)
    figure.update_yaxes(title_text=_SCORE, row=1, col=1)
    figure.update_yaxes(title_text=_PERPLEXITY, type="log", row=2, col=1)
    return figure


def dose_response_png(result: SweepResult, path: Path) -> Path:
    """Draw the same to ``path`` without a browser, atomically.

    Raises:
        RunFolderError: ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = THEMES["light"]
    figure = Figure(figsize=(12.8, 8.0), dpi=125, facecolor=colours.background)
    FigureCanvasAgg(figure)
    shape = figure.add_gridspec(
        2, 1, height_ratios=[1.75, 1], left=0.085, right=0.97, top=0.86, bottom=0.085, hspace=0.1
    )
    upper = figure.add_subplot(shape[0])
    lower = figure.add_subplot(shape[1], sharex=upper)
    for label, rows, colour in _lines(result, "light"):
        x = [row.coefficient for row in rows]
        low, high = [row.ci_low for row in rows], [row.ci_high for row in rows]
        upper.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
        shown: dict[str, Any] = {"color": colour, "linewidth": 2.4, "marker": "o", "markersize": 5}
        upper.plot(x, [row.change for row in rows], label=label, **shown)
        known = [
            (row.coefficient, row.perplexity_ratio)
            for row in rows
            if row.perplexity_ratio is not None
        ]
        lower.plot(*map(list, zip(*known, strict=True)), **shown)
    if result.chosen is not None:
        place = (result.chosen.coefficient, result.chosen.change)
        upper.scatter(*place, marker="*", s=260, color=colours.text, zorder=5, label="chosen")
    upper.axhline(0, color=colours.muted, linewidth=1)
    lower.axhline(result.budget, color=colours.muted, linewidth=1.5, linestyle="--", label="budget")
    lower.set_yscale("log")
    lower.set_xlabel("coefficient", fontsize=14, color=colours.text)
    upper.tick_params(labelbottom=False)
    for axes, name in ((upper, _SCORE), (lower, _PERPLEXITY)):
        axes.set_ylabel(name, fontsize=14, color=colours.text)
        axes.tick_params(labelsize=13, colors=colours.text, length=0)
        axes.grid(True, color=colours.grid, linewidth=1)
        axes.legend(frameon=False, fontsize=12, labelcolor=colours.text)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
    title, below = _titles(result)
    text: dict[str, Any] = {"va": "center", "parse_math": False}
    figure.text(0.085, 0.95, title, fontsize=20, fontweight="bold", color=colours.text, **text)
    figure.text(0.085, 0.905, shortened(below, 130), fontsize=12, color=colours.muted, **text)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_bytes(path, buffer.getvalue())


def _lines(result: SweepResult, theme: ThemeName) -> list[tuple[str, list[SweepCell], str]]:
    """(label, cells with the unsteered point among them, colour) of every place."""
    labels = list(dict.fromkeys(cell.site for cell in result.cells))
    depth = THEMES[theme].depth
    found = []
    for number, label in enumerate(labels):
        rows = [cell for cell in result.cells if cell.site == label]
        rows.append(SweepCell(label, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, True))
        colour = mix(depth, number / (len(labels) - 1) if len(labels) > 1 else 0.5)
        found.append((label, sorted(rows, key=lambda row: row.coefficient), colour))
    return found


def _titles(result: SweepResult) -> tuple[str, str]:
    title = f"{shortened(result.model, 50)} · {shortened(result.method, 34)}"
    return title, shortened(f"Steering: {result.verdict}", 200)


def _hover(row: SweepCell) -> str:
    ratio = "infinite" if row.perplexity_ratio is None else f"x {row.perplexity_ratio:.3f}"
    return (
        f"<b>{html.escape(row.site)}, coefficient {row.coefficient:g}</b><br>change "
        f"{row.change:+.3f} nats ({row.ci_low:+.3f} to {row.ci_high:+.3f})<br>wrong way "
        f"{row.wrong_way:.0%}<br>perplexity {ratio}"
    )
