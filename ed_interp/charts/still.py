"""Charts as still pictures: a PNG on white, and an SVG that suits a light and a dark page.

Neither needs a browser. Cost: a second or two, most of it the import of Matplotlib; the SVG keeps
its text as text and weighs some ten kilobytes.
"""

from __future__ import annotations

import html
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any, get_args

from ed_interp.charts.spec import Band, Bars, Chart, Heat, Line, Panel, Rule, Symbol
from ed_interp.charts.theme import FONT_COLOUR, THEMES, Theme, colour_of, shortened, ticks

_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
# Matplotlib's letters, in the order of the symbols.
_SYMBOLS = dict(zip(get_args(Symbol), "osD^vPX*", strict=True))
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_MOST_LABELS = 12
"""Lines of a panel that get a label at their end; more go into a legend."""
_SETTINGS = {
    "font.family": "sans-serif",
    "font.size": 12,
    "svg.fonttype": "none",
    "svg.hashsalt": "ed-interp",
    "axes.grid": True,
    "axes.axisbelow": True,
    **{f"axes.spines.{side}": False for side in ("top", "right", "left", "bottom")},
    **{f"{axis}tick.{kind}.size": 0 for axis in "xy" for kind in ("major", "minor")},
    "legend.frameon": False,
    "axes.titlelocation": "left",
}


def png(chart: Chart) -> bytes:
    """The chart as a PNG of 125 dots per inch, on white, with its title."""
    return _drawn(chart, "light", "png", width=12.8, title=True)


def svg(chart: Chart, *, label: str = "", panels: int | None = None) -> str:
    """The chart as inline SVG: no script, nothing loaded, text in the colour of the page around it.

    Args:
        chart: What to draw.
        label: What a screen reader says in its place; the title by default.
        panels: Draw the first so many panels only.
    """
    text = _drawn(chart, "either", "svg", width=9.0, title=False, panels=panels).decode()
    text = text[text.index("<svg") :].replace(FONT_COLOUR, "currentColor")
    name = html.escape(label or chart.title, quote=True)
    # Points would fix its size; the width of the page around it decides.
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" style="max-width:100%;'
                        'height:auto" ', 1)  # fmt: skip


def _drawn(
    chart: Chart, theme: str, form: str, *, width: float, title: bool, panels: int | None = None
) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = THEMES[theme]  # type: ignore[index]
    shown = list(chart.panels)[:panels]
    columns = min(chart.columns, len(shown))
    lines = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    heights = [max(map(_inches, line)) * width / 12.8 for line in lines]
    words = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = _SETTINGS | dict.fromkeys(words, colours.text)
    style |= {"grid.color": colours.grid, "axes.facecolor": colours.background}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A model named in a script that the font lacks is still a picture worth having.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message=".*constrained_layout not applied")
        head = 0.9 if title else 0.0
        paper = Figure(figsize=(width, sum(heights) + head), dpi=125, layout="constrained",
                       facecolor=colours.background)  # fmt: skip
        FigureCanvasAgg(paper)
        shared = chart.share_x and columns == 1
        sharing: Any = "col" if shared else False
        grid = paper.subplots(
            len(lines), columns, squeeze=False, height_ratios=heights, sharex=sharing
        )
        for place, axes in enumerate(grid.flat):
            if place < len(shown):
                _panel(axes, shown[place], chart, colours)
                if shared and place < len(shown) - 1:
                    axes.set_xlabel("")
            else:
                axes.set_visible(False)
        if chart.depth is not None:
            _depth_bar(paper, grid[0, -1], chart.depth, colours)
        if title:
            top = 1 - head / (sum(heights) + head)
            engine: Any = paper.get_layout_engine()
            engine.set(rect=(0, 0, 1, top), h_pad=0.06, w_pad=0.06)
            _title(paper, chart, colours, top)
        buffer = io.BytesIO()
        paper.savefig(buffer, format=form, metadata=_NO_METADATA if form == "svg" else None)
    return buffer.getvalue()


def _inches(panel: Panel) -> float:
    return max(1.4, 0.3 * len(panel.names) + 0.9) if panel.rows else 3.6 * panel.height


def _title(paper: Any, chart: Chart, colours: Theme, top: float) -> None:
    x, room, long = 0.01, 1 - top, len(chart.title) > 70
    paper.text(x, top + room * 0.62, shortened(chart.title, 100), fontsize=15 if long else 19,
               fontweight="bold", va="center", parse_math=False)  # fmt: skip
    paper.text(x, top + room * 0.18, shortened(chart.below, 130), fontsize=12,
               color=colours.muted, va="center", parse_math=False)  # fmt: skip


def _panel(axes: Any, panel: Panel, chart: Chart, colours: Theme) -> None:
    right = axes.twinx() if panel.right else None
    names = panel.names
    ends: list[tuple[Any, float, str, str]] = []
    legend = False
    for mark in panel.marks:
        if isinstance(mark, Line):
            own = right if right is not None and mark.axis == "right" else axes
            ends += _line(own, mark, names, colours)
            legend |= mark.mode == "points" and mark.legend
        elif isinstance(mark, Band):
            colour = colour_of(colours, mark.colour)
            axes.fill_between(mark.x, mark.low, mark.high, color=colour, alpha=mark.opacity,
                              linewidth=0, label=mark.name if mark.legend else None)  # fmt: skip
            if mark.legend:
                ends.append((axes, (mark.low[-1] + mark.high[-1]) / 2, mark.name, colour))
        elif isinstance(mark, Bars):
            axes.bar(mark.x, mark.y, mark.width or 0.8, color=colour_of(colours, mark.colour),
                     alpha=mark.opacity, label=mark.name if mark.legend else None)  # fmt: skip
            legend |= mark.legend
        elif isinstance(mark, Heat):
            _heat(axes, mark, colours)
        else:
            _rule(axes, mark, colours)
    _scales(axes, panel, names)
    if right is not None:
        right.grid(False)
        right.set_ylabel(panel.right, parse_math=False)
        for own, side in ((axes, "left"), (right, "right")):
            first = next((m for m in panel.marks if isinstance(m, Line) and m.axis == side), None)
            if first is not None:
                own.yaxis.label.set_color(colour_of(colours, first.colour))
    if legend or len(ends) > _MOST_LABELS:
        _legend(axes, right)
    elif len(ends) > 1:
        _label_ends(axes, ends, offset=58.0 if right is not None else 10.0)
    if any(any(m.hollow) for m in panel.marks if isinstance(m, Line)):
        axes.annotate("hollow points are flagged; see the report", (1, 1), (0, 4), ha="right",
                      xycoords="axes fraction", textcoords="offset points", fontsize=10,
                      color=colours.muted)  # fmt: skip


def _line(axes: Any, mark: Line, names: list[str], colours: Theme) -> list[Any]:
    """Draw a line; returns what its label at the end needs."""
    colour, dash = colour_of(colours, mark.colour), _DASHES[mark.dash]
    x, y = _gaps(mark.x), _gaps(mark.y)
    if names and mark.across:
        y = [names.index(str(name)) for name in mark.y]
    if not x:
        return []
    if mark.low is not None and mark.high is not None:
        low, high = _gaps(mark.low), _gaps(mark.high)
        if mark.across:
            axes.hlines(y, low, high, color=colour, linewidth=1.6)
        elif mark.interval == "bars" or len(x) == 1:
            axes.vlines(x, low, high, color=colour, linewidth=1.6)
        else:
            faint = 0.06 if mark.width < 2 else 0.16
            axes.fill_between(x, low, high, color=colour, alpha=faint, linewidth=0)
    label = mark.name if mark.legend else None
    if mark.mode != "points" and len(x) > 1:
        axes.plot(x, y, color=colour, linestyle=dash, linewidth=mark.width, zorder=3, label=label)
        label = None
    if mark.mode != "line" or len(x) == 1:
        hollow = mark.hollow or [False] * len(x)
        # A hollow point is filled with the background, so that its line does not show through.
        inside = colours.background if colours.background != "none" else "white"
        axes.scatter(x, y, s=mark.size**2 * 0.6, marker=_SYMBOLS[mark.symbol], label=label,
                     facecolors=[inside if h else colour for h in hollow], edgecolors=colour,
                     linewidths=1.5, zorder=4)  # fmt: skip
    last = y[-1]
    if not mark.legend or mark.mode == "points" or not isinstance(last, (int, float)):
        return []
    return [(axes, last, mark.name, colour)]


def _gaps(values: Sequence[Any]) -> list[Any]:
    # A missing value interrupts the line, which is what NaN does to Matplotlib.
    return [math.nan if v is None else v for v in values]


def _heat(axes: Any, mark: Heat, colours: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    low, middle, high = colours.heat
    values = [_gaps(line) for line in mark.z]
    flat = [v for line in values for v in line if not math.isnan(v)] or [0.0]
    if mark.centre is None:
        scale, ends = [middle, high], (min(flat), max(flat))
    else:
        scale = [low, middle, high]
        reach = max(abs(v - mark.centre) for v in flat) or 1.0
        ends = (mark.centre - reach, mark.centre + reach)
    colourmap = LinearSegmentedColormap.from_list("heat", scale)
    axes.imshow(values, aspect="auto", origin="lower", cmap=colourmap, vmin=ends[0], vmax=ends[1])
    axes.set_xticks(range(len(mark.x)), mark.x)
    axes.set_yticks(range(len(mark.y)), mark.y)
    axes.grid(False)
    for row, line in enumerate(mark.text):
        for column, text in enumerate(line):
            axes.text(column, row, text, ha="center", va="center", fontsize=9, parse_math=False)


def _rule(axes: Any, mark: Rule, colours: Theme) -> None:
    colour = colour_of(colours, mark.colour)
    draw = axes.axvline if mark.vertical else axes.axhline
    draw(mark.at, color=colour, linewidth=1.4, linestyle=_DASHES[mark.dash], zorder=2)
    if not mark.name:
        return
    # At the end of the line, in data units along one axis and in the axes' own along the other.
    place = (mark.at, 1.0) if mark.vertical else (1.0, mark.at)
    across = axes.get_xaxis_transform() if mark.vertical else axes.get_yaxis_transform()
    axes.annotate(mark.name, place, (0, 3), xycoords=across, textcoords="offset points", ha="right",
                  color=colour, fontsize=11, parse_math=False)  # fmt: skip


def _scales(axes: Any, panel: Panel, names: list[str]) -> None:
    if panel.log_x:
        axes.set_xscale("log")
    if panel.symlog_x is not None:
        axes.set_xscale("symlog", linthresh=panel.symlog_x)
    if panel.log_y:
        axes.set_yscale("log")
    if panel.x_ticks:
        labels = ticks([float(v) for v in panel.x_ticks])
        axes.set_xticks(labels, [f"{v:g}" for v in labels])
        axes.minorticks_off()
    if panel.x_range is not None:
        axes.set_xlim(*panel.x_range)
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    elif panel.from_zero:
        axes.set_ylim(bottom=0)
    if names:
        axes.set_yticks(range(len(names)), [shortened(name, 40) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)  # the first at the top
    axes.set_xlabel(panel.x, parse_math=False)
    axes.set_ylabel(panel.y, parse_math=False)
    if panel.title:
        axes.set_title(panel.title, fontsize=12, parse_math=False)


def _legend(axes: Any, right: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if right is not None:
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    unique = dict(zip(labels, handles, strict=True))
    if len(unique) > 1:
        axes.legend(unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.02),
                    fontsize=10)  # fmt: skip


def _depth_bar(paper: Any, axes: Any, layers: tuple[int, int], colours: Theme) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    scale = LinearSegmentedColormap.from_list("depth", list(colours.depth))
    colours_of = ScalarMappable(Normalize(*layers), scale)
    bar = paper.colorbar(colours_of, ax=axes, fraction=0.03, pad=0.12)
    bar.outline.set_visible(False)
    bar.set_ticks(ticks(range(layers[0], layers[1] + 1), at_most=12))
    bar.ax.set_title("block", fontsize=11, pad=8)


def _label_ends(axes: Any, ends: Sequence[Any], *, offset: float) -> None:
    """Write each label beside the end of its line, pushed apart where they would touch."""
    places = []
    for own, value, _, _ in ends:
        # Through the screen, so that both axes and every scale come to one unit.
        point = own.transData.transform((0, value))
        height = axes.transAxes.inverted().transform(point)[1]
        places.append(min(max(height, 0.0), 1.0) if math.isfinite(height) else 0.5)
    tall = axes.get_position().height * axes.figure.get_figheight()
    for height, (_, _, text, colour) in zip(spread(places, 0.2 / tall), ends, strict=True):
        axes.annotate(text, (1, height), (offset, 0), xycoords="axes fraction", va="center",
                      textcoords="offset points", color=colour, fontsize=11,
                      parse_math=False)  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """``places`` moved as little as needed for neighbours to lie ``gap`` apart; order is kept."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    # Neighbours that touch form a group around its mean; groups that touch merge.
    groups: list[list[float]] = []
    for i in order:
        groups.append([places[i]])
        while len(groups) > 1:
            if _ends(groups[-2], gap)[1] + gap <= _ends(groups[-1], gap)[0] + 1e-12:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [_ends(group, gap)[0] + gap * k for group in groups for k in range(len(group))]
    result = [0.0] * len(places)
    for i, place in zip(order, placed, strict=True):
        result[i] = place
    return result


def _ends(group: Sequence[float], gap: float) -> tuple[float, float]:
    middle, half = sum(group) / len(group), gap * (len(group) - 1) / 2
    return middle - half, middle + half
