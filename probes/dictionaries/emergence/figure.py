"""Pictures of :class:`FeatureEmergence`, in the style of the emergence curve, and its page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ed_interp.figures.common import dress
from ed_interp.figures.style import THEMES, Theme, ThemeName, mix, ticks
from ed_interp.records import write_bytes

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.emergence.result import FeatureEmergence, FeatureEmergenceRow

_PANELS = (
    ("informative", "informative features"),
    ("best_bits", "bits of the best feature"),
    ("active", "active features"),
)


def feature_emergence_figure(found: FeatureEmergence, *, theme: ThemeName = "light") -> go.Figure:
    """Informative features, information of the best one and active features, over shots."""
    colours = THEMES[theme]
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.4, 0.3, 0.3]
    )
    for step in found.steps:
        rows = _rows(found, step)
        for panel, (name, _) in enumerate(_PANELS, start=1):
            figure.add_trace(
                go.Scatter(
                    x=[row.shots for row in rows],
                    y=[getattr(row, name) for row in rows],
                    mode="lines+markers",
                    name=_label(step),
                    legendgroup=_label(step),
                    showlegend=panel == 1 and len(found.steps) > 1,
                    line={"color": _colour(colours, found, step), "width": 2.5},
                    hovertemplate=f"{_label(step)}, %{{x}} shots: %{{y:.4g}}<extra></extra>",
                ),
                row=panel,
                col=1,
            )
    for panel, (_, label) in enumerate(_PANELS, start=1):
        figure.update_yaxes(title_text=label, rangemode="tozero", row=panel, col=1)
    figure.add_hline(
        y=found.label_entropy,
        line={"dash": "dash", "color": colours.muted, "width": 1},
        annotation_text=f"entropy of the {found.about}",
        annotation_font_color=colours.muted,
        row=2,
        col=1,
    )
    shots = sorted({row.shots for row in found.rows})
    figure.update_xaxes(title_text="shots", tickvals=ticks(shots), row=3, col=1)
    if len(found.steps) > 1:
        figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    dress(figure, colours, height=820, title=_title(found), below=headline(found))
    return figure


def still(found: FeatureEmergence, path: Path) -> Path:
    """The same as a PNG, atomically.

    Raises:
        RunFolderError: ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = THEMES["light"]
    figure = Figure(figsize=(11.2, 9.0), dpi=125, facecolor=colours.background)
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [4, 3, 3]})
    for axis, (name, label) in zip(axes, _PANELS, strict=True):
        for step in found.steps:
            rows = _rows(found, step)
            axis.plot(
                [row.shots for row in rows],
                [getattr(row, name) for row in rows],
                "o-",
                color=_colour(colours, found, step),
                label=_label(step),
            )
        axis.set_ylabel(label, color=colours.text)
        axis.set_ylim(bottom=0)
        axis.grid(color=colours.grid)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].axhline(found.label_entropy, color=colours.muted, ls="--", lw=1)
    axes[2].set_xlabel("shots", color=colours.text)
    axes[2].set_xticks(ticks(sorted({row.shots for row in found.rows})))
    if len(found.steps) > 1:
        axes[0].legend(frameon=False, fontsize=10, bbox_to_anchor=(1.01, 1), loc="upper left")
    figure.suptitle(_title(found), x=0.01, ha="left", fontweight="bold", color=colours.text)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_bytes(path, buffer.getvalue())


def whole_page(found: FeatureEmergence) -> str:
    """One self-contained page: the finding, the figure, every number."""
    from ed_interp.report import page_figure
    from ed_interp.report_tables import Table, render_tables

    caption = (
        "Informative: being active tells about the label, by a permutation test that holds over "
        "all features together. Active: at the last token of at least 1% of the prompts."
    )

    def draw(theme: ThemeName) -> Any:
        return feature_emergence_figure(found, theme=theme)

    rows = [
        (
            _label(row.step),
            str(row.shots),
            str(row.informative),
            f"{row.best_bits:.3f}",
            str(row.active),
            f"{row.l0:.1f}",
            f"{row.fvu:.3f}",
            ", ".join(f"{feature} ({bits:.2f})" for feature, bits in row.top[:5]),
            ", ".join(map(str, row.new[:12])) + (" ..." if len(row.new) > 12 else ""),
        )
        for row in found.rows
    ]
    counts = ("informative", "best bits", "active", "L0", "FVU")
    heads = ("model", "shots", *counts, "most informative (bits)", "new")
    return render_tables(
        title=_title(found),
        headline=headline(found),
        how=f"The last token of {found.settings['population']['prompts']} prompts of "
        f"{found.task}, {found.latents} latents at {found.site}; information about the "
        f"{found.about}, whose entropy is {found.label_entropy:.2f} bits, with the mean over "
        f"{found.settings['permutations']} permutations of the labels subtracted.",
        figures=[page_figure("features", "Features over shots", caption, draw)],
        tables=[Table("Features per checkpoint and shots", heads, rows, frozenset({7, 8}))],
        settings=found.settings,
    )


def headline(found: FeatureEmergence) -> str:
    """The finding at the most shots against the fewest, of the model as it is."""
    rows = _rows(found, found.steps[-1])
    first, last = rows[0], rows[-1]
    best = f", the best of them {last.best_bits:.2f} of {found.label_entropy:.2f} bits"
    return (
        f"{first.informative} features tell about the {found.about} at {first.shots} shots and "
        f"{last.informative} at {last.shots}{best if last.informative else ''}."
    )


def _title(found: FeatureEmergence) -> str:
    return f"Features of {found.model} at {found.site} on {found.task}"


def _rows(found: FeatureEmergence, step: int | None) -> list[FeatureEmergenceRow]:
    return sorted((row for row in found.rows if row.step == step), key=lambda row: row.shots)


def _label(step: int | None) -> str:
    return "trained" if step is None else f"step {step:,}"


def _colour(colours: Theme, found: FeatureEmergence, step: int | None) -> str:
    place = found.steps.index(step)
    last = len(found.steps) - 1
    return mix(colours.depth, place / last) if last else colours.accuracy
