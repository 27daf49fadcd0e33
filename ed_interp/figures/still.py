"""Still pictures of a curve: a PNG by matplotlib, and a small SVG for notebooks and fallbacks.

Neither needs a browser. The PNG is 1600 x 1000 pixels and costs about two seconds, most of it the
import of matplotlib; the SVG is a few kilobytes of text.
"""

from __future__ import annotations

import dataclasses
import html
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ed_interp.figures.shapes import Curve, behaviour_of, limit_of, rows_of, twin_range
from ed_interp.figures.style import EITHER, MANY_BLOCKS, THEMES, depth_colour, shortened, ticks
from ed_interp.records import write_bytes


def emergence_png(curve: Curve, path: Path) -> Path:
    """Draw the main figure to ``path``, atomically.

    Raises:
        RunFolderError: ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = THEMES["light"]
    behaviour = behaviour_of(curve)
    figure = Figure(figsize=(12.8, 8.0), dpi=125, facecolor=colours.background)
    FigureCanvasAgg(figure)
    many = len(curve.layers) > MANY_BLOCKS
    # One label per line needs room at the right; a colour bar and the second axis need less.
    shape = figure.add_gridspec(
        2 if behaviour else 1,
        1,
        height_ratios=[1.75, 1] if behaviour else [1],
        left=0.075,
        right=0.815,
        top=0.87,
        bottom=0.085,
        hspace=0.12,
    )
    upper = lowest = figure.add_subplot(shape[0])
    _draw_emergence(upper, curve)
    if many:
        _draw_depth_bar(figure, upper, curve)
    if behaviour:
        lowest = figure.add_subplot(shape[1], sharex=upper)
        upper.tick_params(labelbottom=False)
        _draw_behaviour(lowest, curve)
    lowest.set_xlabel("shots", fontsize=14, color=colours.text)
    title = f"{shortened(curve.model, 50)} · {shortened(curve.task, 34)}"
    figure.text(
        0.075,
        0.955,
        title,
        fontsize=20 if len(title) < 56 else 15,
        fontweight="bold",
        color=colours.text,
        va="center",
        parse_math=False,
    )
    noise = "" if curve.noise is None else f", noise {curve.noise:.3g} per normalised coordinate"
    figure.text(
        0.075,
        0.91,
        shortened(f"Emergence per block over shots · {curve.estimator} estimator{noise}", 110),
        fontsize=13,
        color=colours.muted,
        va="center",
        parse_math=False,
    )
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A model named in a script that the font lacks is still a picture worth having.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png")
    return write_bytes(path, buffer.getvalue())


def _draw_emergence(axes: Any, curve: Curve) -> None:
    colours = THEMES["light"]
    layers = list(curve.layers)
    many = len(layers) > MANY_BLOCKS
    lone = "_" if len(curve.shots) == 1 else ""  # a line needs two points
    labels: list[tuple[float, str, str]] = []
    for layer, rows in rows_of(curve).items():
        colour = depth_colour(colours, layer, layers)
        shots = [row.shots for row in rows]
        axes.fill_between(
            shots,
            [row.ci_low for row in rows],
            [row.ci_high for row in rows],
            color=colour,
            alpha=0.06 if many else 0.15,
            linewidth=0,
        )
        axes.plot(
            shots,
            [row.emergence for row in rows],
            color=colour,
            linewidth=1.6 if many else 2.6,
            zorder=3,
        )
        axes.scatter(
            shots,
            [row.emergence for row in rows],
            s=14 if many else 42,
            facecolors=[colours.background if row.flags else colour for row in rows],
            edgecolors=colour,
            linewidths=1.2 if many else 1.8,
            zorder=4,
        )
        if len(rows) == 1:  # a band needs two
            axes.vlines(shots, rows[0].ci_low, rows[0].ci_high, color=colour, linewidth=1.6)
        if rows and not many:
            labels.append((rows[-1].emergence, f"block {layer}", colour))
        twin = [(row.shots, row.untrained) for row in rows if row.untrained is not None]
        if twin and not many:
            axes.plot(
                *zip(*twin, strict=True), color=colour, linewidth=1.6, linestyle=":", marker=lone
            )
    span = twin_range(curve)
    if span:
        if many:
            low, high = zip(*span.values(), strict=True)
            axes.fill_between(list(span), low, high, color=colours.muted, alpha=0.35, linewidth=0)
        labels.append((sum(list(span.values())[-1]) / 2, "untrained twin", colours.muted))
    limit = limit_of(curve)
    if limit:
        axes.plot(
            list(limit),
            list(limit.values()),
            color=colours.muted,
            linewidth=2,
            linestyle="--",
            marker=lone,
        )
        labels.append((list(limit.values())[-1], "noiseless limit", colours.muted))
    axes.margins(x=0.02)
    _clean(axes, curve, f"emergence E ({curve.unit})")
    _label_ends(axes, labels)
    if any(row.flags for row in curve.rows):
        axes.annotate(
            "hollow points are flagged; see the report",
            (1, 1),
            xycoords="axes fraction",
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=11,
            color=colours.muted,
        )


def _draw_depth_bar(figure: Any, axes: Any, curve: Curve) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    scale = LinearSegmentedColormap.from_list("depth", list(THEMES["light"].depth))
    mappable = ScalarMappable(Normalize(curve.layers[0], curve.layers[-1]), scale)
    # Below the labels, which stand where the lines end.
    inset = axes.inset_axes((1.175, 0.0, 0.018, 1.0))
    bar = figure.colorbar(mappable, cax=inset)
    bar.outline.set_visible(False)
    bar.set_ticks(ticks(list(curve.layers), at_most=12))
    bar.ax.tick_params(labelsize=12, colors=THEMES["light"].text, length=0)
    bar.ax.set_title("block", fontsize=13, color=THEMES["light"].text, pad=8)


def _draw_behaviour(axes: Any, curve: Curve) -> None:
    colours = THEMES["light"]
    rows = behaviour_of(curve)
    shots = [row.shots for row in rows]
    axes.fill_between(
        shots,
        [row.ci_low for row in rows],
        [row.ci_high for row in rows],
        color=colours.accuracy,
        alpha=0.18,
        linewidth=0,
    )
    axes.plot(
        shots, [row.accuracy for row in rows], color=colours.accuracy, linewidth=2.6, marker="o"
    )
    axes.plot(
        shots,
        [row.chance for row in rows],
        color=colours.muted,
        linewidth=2,
        linestyle=":",
        marker="_" if len(rows) == 1 else "",
    )
    if len(rows) == 1:
        axes.vlines(shots, rows[0].ci_low, rows[0].ci_high, color=colours.accuracy)
    _clean(axes, curve, "accuracy")
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.label.set_color(colours.accuracy)
    other = axes.twinx()
    other.fill_between(
        shots,
        [row.logprob_ci_low for row in rows],
        [row.logprob_ci_high for row in rows],
        color=colours.logprob,
        alpha=0.12,
        linewidth=0,
    )
    if len(rows) == 1:
        other.vlines(shots, rows[0].logprob_ci_low, rows[0].logprob_ci_high, color=colours.logprob)
    other.plot(
        shots,
        [row.logprob for row in rows],
        color=colours.logprob,
        linewidth=2.2,
        linestyle="-.",
        marker="D",
        markersize=5,
    )
    _clean(other, curve, "")  # its label at the end of the line says the unit
    other.grid(False)
    other.tick_params(axis="y", colors=colours.logprob)
    # Labels in the units of the left axis, beyond the ticks of the right one.
    low, high = other.get_ylim()
    end = -0.03 + 1.06 * (rows[-1].logprob - low) / (high - low)
    _label_ends(
        axes,
        [
            (rows[-1].accuracy, "accuracy", colours.accuracy),
            (rows[-1].chance, "chance", colours.muted),
            (end, "log-prob. (nats)", colours.logprob),
        ],
        offset=56.0,
        gap=0.11,
    )


def _clean(axes: Any, curve: Curve, label: str) -> None:
    colours = THEMES["light"]
    labels = ticks(list(curve.shots))
    axes.set_xticks(labels, [str(tick) for tick in labels])
    axes.set_ylabel(label, fontsize=14, color=colours.text, parse_math=False)
    axes.tick_params(labelsize=13, colors=colours.text, length=0)
    axes.grid(True, color=colours.grid, linewidth=1)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_ends(
    axes: Any,
    labels: list[tuple[float, str, str]],
    *,
    offset: float = 12.0,
    gap: float = 0.062,
) -> None:
    """Write each label beside the end of its line, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    places = [min(max((value - low) / (high - low), 0.0), 1.0) for value, _, _ in labels]
    heights = spread(places, gap)
    for height, (_, text, colour) in zip(heights, labels, strict=True):
        axes.annotate(
            text,
            (1, height),
            xycoords="axes fraction",
            xytext=(offset, 0),
            textcoords="offset points",
            va="center",
            fontsize=13,
            color=colour,
            linespacing=1.0,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """``places`` moved as little as needed for neighbours to lie ``gap`` apart; order is kept."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    # Neighbours that touch form a group around its mean; groups that touch merge.
    groups: list[list[float]] = []
    for i in order:
        groups.append([places[i]])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap) + 1e-12:
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [_bottom(group, gap) + gap * k for group in groups for k in range(len(group))]
    result = [0.0] * len(places)
    for i, place in zip(order, placed, strict=True):
        result[i] = place
    return result


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)


def emergence_svg(curve: Curve, *, label: str, width: int = 640, height: int = 260) -> str:
    """A small picture of E over shots as inline SVG: needs no script and loads nothing.

    Text takes the colour of the page around it, so that it suits light and dark.

    Args:
        label: what a screen reader says in its place.
    """
    layers, shots = list(curve.layers), list(curve.shots)
    values = [row.emergence for row in curve.rows]
    low, high = min([0.0, *values]), max([*values, 1e-9])
    left, right, top, bottom = 52, width - 84, 14, height - 40
    first, last = (shots[0], shots[-1]) if shots else (0, 0)

    def x(count: int) -> float:
        share = (count - first) / (last - first) if last > first else 0.5
        return round(left + share * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - top), 1)

    text = 'fill="currentColor" font-size="12" font-family="system-ui, sans-serif"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px;width:100%;height:auto" aria-label="{html.escape(label)}">'
    ]
    for k in range(5):
        value = low + (high - low) * k / 4
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{y(value)}" y2="{y(value)}" '
            f'stroke="currentColor" stroke-opacity="0.15"/>'
            f'<text x="{left - 8}" y="{y(value) + 4}" text-anchor="end" {text}>{value:.2f}</text>'
        )
    for count in ticks(shots):
        parts.append(
            f'<text x="{x(count)}" y="{bottom + 18}" text-anchor="middle" {text}>{count}</text>'
        )
    parts.append(
        f'<text x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle" {text}>'
        f"E ({html.escape(curve.unit)}) over shots</text>"
    )
    ends = {layer: rows[-1] for layer, rows in rows_of(curve).items()}
    theme = dataclasses.replace(THEMES["light"], depth=EITHER)
    for layer, rows in rows_of(curve).items():
        colour = depth_colour(theme, layer, layers)
        points = " ".join(f"{x(row.shots)},{y(row.emergence)}" for row in rows)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        if len(rows) == 1:
            parts.append(
                f'<circle cx="{x(rows[0].shots)}" cy="{y(rows[0].emergence)}" r="4" '
                f'fill="{colour}"/>'
            )
    named = layers if len(layers) <= MANY_BLOCKS else [layers[0], layers[-1]]
    heights = spread([float(y(ends[layer].emergence)) for layer in named], 15.0)
    for place, layer in zip(heights, named, strict=True):
        parts.append(
            f'<text x="{right + 8}" y="{place + 4:.1f}" {text}>'
            f'<tspan fill="{depth_colour(theme, layer, layers)}">●</tspan> block {layer}</text>'
        )
    return "".join(parts) + "</svg>"
