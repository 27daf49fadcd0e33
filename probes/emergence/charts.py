"""Charts of an emergence curve, made from its rows.

Cost: none worth speaking of; a chart is data, drawn by :mod:`ed_interp.charts` when it is shown.
"""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar, runtime_checkable

from ed_interp.charts.spec import Band, Chart, Heat, Line, Mark, Panel, Rule
from ed_interp.charts.theme import MANY_BLOCKS, depth, plural
from ed_interp.probes.emergence.rows import (
    BehaviourRow,
    ComparisonRow,
    EmergenceRow,
    ProfileRow,
)

# Order in the legend: blocks (the deepest first, as their lines mostly lie), controls, behaviour.
_BLOCKS, _CONTROLS, _BEHAVIOUR = 500, 1100, 2000


@dataclasses.dataclass(frozen=True)
class Labels:
    """What all pictures of one curve say."""

    title: str
    below: str
    """How it was estimated, for the line under the title."""
    unit: str


@runtime_checkable
class _OfBlock(Protocol):
    @property
    def layer(self) -> int: ...
    @property
    def shots(self) -> int: ...


RowT = TypeVar("RowT", bound=_OfBlock)


def emergence_chart(
    rows: Sequence[EmergenceRow],
    behaviour: Sequence[BehaviourRow],
    labels: Labels,
    meanings: Mapping[str, str],
) -> Chart:
    """E of every block over shots; below it accuracy and log-probability.

    Args:
        rows: One for each block and shot count.
        behaviour: One for each shot count; empty leaves the panel out.
        labels: Title, estimator and unit.
        meanings: What each flag means, for the hover text of flagged points.
    """
    blocks = by_block(rows)
    marks: list[Mark] = [*_twin(blocks, labels.unit), _limit(rows, labels.unit)] if rows else []
    marks += _lines(
        blocks, "emergence", lambda row: _hover(row, labels.unit, meanings), interval="band"
    )
    panels = [Panel(marks=marks, y=f"emergence E ({labels.unit})", x="shots", height=1.3)]
    caption = (
        "E = macro - micro per block. Bands are bootstrap intervals over prompts. The dashed line "
        "depends only on the data: it is E of any noiseless network that keeps distinct inputs "
        "distinct. E can exceed it, because noise also lowers the single-token term. Dotted lines "
        "or the grey band are an untrained twin. Hollow points are flagged; hover to see why."
    )
    if behaviour:
        panels.append(_behaviour_panel(sorted(behaviour, key=lambda row: row.shots)))
        caption += (
            " Below, accuracy with its interval and chance, and the log-probability of the answer:"
            " where one jumps and the other climbs, the jump lies in the metric."
        )
    return Chart(
        name="emergence",
        title=labels.title,
        below=f"emergence per block over shots · {labels.below}",
        heading="Emergence over shots",
        caption=caption,
        panels=_with_shots(panels, rows),
        depth=_depth_bar(blocks),
    )


def heatmap_chart(rows: Sequence[EmergenceRow], labels: Labels) -> Chart:
    """E over block (upwards) and shots; diverging around 0 where E is clearly negative."""
    layers, shots = sorted({row.layer for row in rows}), sorted({row.shots for row in rows})
    cells = {(row.layer, row.shots): row for row in rows}
    grid = [[cells.get((layer, count)) for count in shots] for layer in layers]
    values = [row.emergence for row in rows]
    diverging = min(values, default=0.0) < -0.05 * max(0.0, *values, 0.0)

    def hover(row: EmergenceRow | None) -> str:
        if row is None:
            return ""
        text = f"{_where(row)}\nE {row.emergence:.3f} {labels.unit}"
        return text + (f"\nflags: {', '.join(row.flags)}" if row.flags else "")

    heat = Heat(
        x=[str(count) for count in shots],
        y=[str(layer) for layer in layers],
        z=[[row and row.emergence for row in line] for line in grid],
        text=[
            [f"{row.emergence:.2f}{'*' if row.flags else ''}" if row else "" for row in line]
            for line in grid
        ],
        hover=[[hover(row) for row in line] for line in grid],
        centre=0.0 if diverging else None,
        unit=f"E ({labels.unit})",
    )
    return Chart(
        name="heatmap",
        title=labels.title,
        below=f"emergence · {labels.below}",
        heading="Block by shots",
        caption="The same E at a glance, first block at the bottom. A star marks a flagged value.",
        # Some 26 pixels a block, so that its number can be read, as far as a page is high.
        panels=[
            Panel(marks=[heat], x="shots", y="block", height=min(max(0.9, len(layers) * 0.09), 2.7))
        ],
    )


def terms_chart(rows: Sequence[EmergenceRow], labels: Labels) -> Chart:
    """The two terms of E: macro (last token) above, micro (single tokens) below."""
    blocks = by_block(rows)
    entropy = {row.shots: row.macro_limit for row in sorted(rows, key=lambda row: row.shots)}
    ceiling = _control(
        "entropy of the sequences",
        entropy,
        lambda shots, value: f"{shots}: macro is at most {value:.3f} {labels.unit}",
    )

    def lines(term: str) -> list[Line]:
        return _lines(
            blocks,
            term,
            lambda row: f"{_where(row)}\n{term} {getattr(row, term):.3f} {labels.unit}",
            legend=term == "macro",
        )

    panels = [
        Panel(marks=[ceiling, *lines("macro")], y=f"macro ({labels.unit})", x="shots"),
        Panel(marks=lines("micro"), y=f"micro ({labels.unit})", x="shots"),
    ]
    return Chart(
        name="terms",
        title=labels.title,
        below=f"macro and micro information · {labels.below}",
        heading="The two terms",
        caption="Macro is the information a block passes on at the last token of the whole "
        "sequence; micro the same for each token fed alone, averaged. Macro near the dashed "
        "entropy of the sequences only says that they stay distinct.",
        panels=_with_shots(panels, rows),
        depth=_depth_bar(blocks),
    )


def profile_chart(
    profile: Sequence[ProfileRow], labels: Labels, noise: float | None = None
) -> Chart:
    """E over the noise scale, per block, at the most shots; ``noise`` is the curve's own."""
    most = max((row.shots for row in profile), default=0)
    blocks = by_block(row for row in profile if row.shots == most)
    blocks = {layer: sorted(own, key=lambda row: row.noise) for layer, own in blocks.items()}

    def hover(row: ProfileRow) -> str:
        return (
            f"{_where(row)}, noise {row.noise:.3g} (beta {row.beta:.3g})\n"
            f"E {row.emergence:.3f} {labels.unit}\n"
            f"macro {row.macro:.3f}, micro {row.micro:.3f} {labels.unit}"
        )

    marks: list[Mark] = [*_lines(blocks, "emergence", hover, x="noise")]
    if noise is not None and noise > 0 and blocks:
        marks.append(Rule(at=noise, name=f"noise of the curve: {noise:.3g}", vertical=True))
    return Chart(
        name="profile",
        title=labels.title,
        below=f"over noise, at {plural(most, 'shot')} · {labels.below}",
        heading="Over the noise",
        caption="E depends on the noise scale: little noise leaves every sequence distinct, much "
        "noise hides everything. A result should hold over a range of it.",
        panels=[
            Panel(
                marks=marks,
                x="noise scale per normalised coordinate",
                y=f"emergence E ({labels.unit})",
                log_x=True,
                height=1.2,
            )
        ],
        depth=_depth_bar(blocks),
    )


def comparison_chart(rows: Sequence[ComparisonRow], *, title: str, unit: str = "bits") -> Chart:
    """E of every block over shots, one panel per estimator, each on its own scale."""

    def hover(row: ComparisonRow) -> str:
        flags = ", ".join(row.flags)
        return f"{row.estimator}, {_where(row)}\nE {row.emergence:.3f} {unit}\n{flags}".rstrip()

    panels: list[Panel] = []
    for name, own in itertools.groupby(rows, key=lambda row: row.estimator):
        # The same blocks in every panel: one legend is enough.
        lines = _lines(by_block(own), "emergence", hover, interval="bars", legend=not panels)
        panels.append(Panel(marks=lines, title=name, y=f"E ({unit})", x="shots"))
    return Chart(
        name="comparison",
        title=title,
        below="estimators side by side on the same activations; hollow points are flagged",
        heading="Estimators side by side",
        caption="The same activations, other estimators of information. Their bits differ in "
        "meaning, so compare shape and order. A conclusion that rests on an order on which the "
        "rank correlations in the table disagree depends on the choice of the estimator.",
        panels=_with_shots(panels, rows),
        depth=_depth_bar(by_block(rows)),
    )


# Parts --------------------------------------------------------------------------------------


def by_block(rows: Iterable[RowT]) -> dict[int, list[RowT]]:
    """The rows of each block, blocks and shot counts ascending."""
    ordered = sorted(rows, key=lambda row: (row.layer, row.shots))
    return {
        layer: list(block) for layer, block in itertools.groupby(ordered, key=lambda row: row.layer)
    }


def _depth_bar(blocks: Mapping[int, object]) -> tuple[int, int] | None:
    return (min(blocks), max(blocks)) if len(blocks) > MANY_BLOCKS else None


def _with_shots(panels: Sequence[Panel], rows: Sequence[_OfBlock]) -> list[Panel]:
    """Panels whose x axis is labelled at shot counts that were measured, only."""
    counts = sorted({row.shots for row in rows})
    return [dataclasses.replace(panel, x_ticks=counts) for panel in panels]


def _lines(
    blocks: Mapping[int, Sequence[RowT]],
    y: str,
    hover: Callable[[RowT], str],
    *,
    x: str = "shots",
    interval: Literal["band", "bars"] | None = None,
    legend: bool = True,
) -> list[Line]:
    """A line per block, of a field of its rows over another; flagged points are hollow."""
    many = len(blocks) > MANY_BLOCKS
    lines = []
    for layer, rows in blocks.items():
        line = Line(
            name=f"block {layer}",
            x=[getattr(row, x) for row in rows],
            y=[getattr(row, y) for row in rows],
            colour=depth(layer, list(blocks)),
            width=1.5 if many else 2.5,
            size=5 if many else 8,
            legend=legend and not many,
            group=f"block {layer}",
            rank=_BLOCKS - layer,
            hover=[hover(row) for row in rows],
        )
        if interval is not None:
            low, high, flags = (
                [getattr(row, name) for row in rows] for name in ("ci_low", "ci_high", "flags")
            )
            hollow = [bool(names) for names in flags]
            line = dataclasses.replace(line, low=low, high=high, interval=interval, hollow=hollow)
        lines.append(line)
    return lines


def _control(name: str, values: Mapping[int, float], hover: Callable[[str, float], str]) -> Line:
    """A dashed line over shot counts that every block shares, since it depends on the data."""
    return Line(
        name=name,
        x=list(values),
        y=list(values.values()),
        colour="muted",
        dash="dash",
        width=2,
        mode=_mode(values),
        rank=_CONTROLS,
        hover=[hover(plural(shots, "shot"), value) for shots, value in values.items()],
    )


def _mode(places: Collection[int]) -> Literal["both", "line"]:
    """A line through a single point cannot be seen, so that point gets a marker."""
    return "both" if len(places) == 1 else "line"


def _where(row: _OfBlock) -> str:
    return f"block {row.layer}, {plural(row.shots, 'shot')}"


def _hover(row: EmergenceRow, unit: str, meanings: Mapping[str, str]) -> str:
    lines = [
        _where(row),
        f"E {row.emergence:.3f} {unit} (interval {row.ci_low:.3f} to {row.ci_high:.3f})",
        f"macro {row.macro:.3f} of at most {row.macro_limit:.3f} {unit}",
        f"micro {row.micro:.3f} {unit}",
        f"limit of noiseless networks {row.limit:.3f} {unit}",
    ]
    if row.untrained is not None:
        lines.append(f"untrained twin {row.untrained:.3f} {unit}")
    for flag in row.flags:
        text = f"{flag}: {meanings[flag]}" if meanings.get(flag) else flag
        lines.append("⚑ " + "\n   ".join(textwrap.wrap(text, 58)))
    return "\n".join(lines)


def _limit(rows: Sequence[EmergenceRow], unit: str) -> Line:
    limit = {row.shots: row.limit for row in sorted(rows, key=lambda row: row.shots)}
    return _control(
        "limit of noiseless networks",
        limit,
        lambda shots, value: (
            f"{shots}: any noiseless network that keeps\n"
            f"distinct inputs distinct has {value:.3f} {unit}"
        ),
    )


def _twin(blocks: Mapping[int, Sequence[EmergenceRow]], unit: str) -> list[Mark]:
    """The untrained twin: dotted lines, or with many blocks the range over all of them."""
    values: dict[int, dict[int, float]] = {}
    for layer, block in blocks.items():
        for row in block:
            if row.untrained is not None:
                values.setdefault(layer, {})[row.shots] = row.untrained
    if len(blocks) > MANY_BLOCKS and values:
        shots = sorted({count for line in values.values() for count in line})
        columns = [[line[count] for line in values.values() if count in line] for count in shots]
        low, high = [min(column) for column in columns], [max(column) for column in columns]
        return [Band(name="untrained twin, all blocks", x=shots, low=low, high=high, opacity=0.3)]
    return [
        Line(
            name="untrained twin" if layer == min(values) else f"untrained twin, block {layer}",
            x=list(line),
            y=list(line.values()),
            colour=depth(layer, list(blocks)),
            dash="dot",
            width=1.5,
            mode=_mode(line),
            legend=layer == min(values),
            group="untrained twin",
            rank=_CONTROLS + 1,
            hover=[
                f"untrained twin, block {layer}\n{plural(count, 'shot')}: {value:.3f} {unit}"
                for count, value in line.items()
            ],
        )
        for layer, line in values.items()
    ]


def _behaviour_panel(rows: Sequence[BehaviourRow]) -> Panel:
    shots = [row.shots for row in rows]
    accuracy = Line(
        name="accuracy",
        x=shots,
        y=[row.accuracy for row in rows],
        low=[row.ci_low for row in rows],
        high=[row.ci_high for row in rows],
        colour="accent",
        rank=_BEHAVIOUR,
        hover=[
            f"{plural(row.shots, 'shot')}, {plural(row.n, 'prompt')}\n"
            f"accuracy {row.accuracy:.3f} (interval {row.ci_low:.3f} to {row.ci_high:.3f})\n"
            f"chance {row.chance:.3f}\n"
            f"gain {row.gain:+.3f} (interval {row.gain_ci_low:+.3f} to {row.gain_ci_high:+.3f})\n"
            f"median rank of the answer's first token {row.rank:g}"
            for row in rows
        ],
    )
    chance = Line(
        name="chance",
        x=shots,
        y=[row.chance for row in rows],
        colour="muted",
        dash="dot",
        width=2,
        mode=_mode(shots),
        rank=_BEHAVIOUR,
        hover=[f"chance at {plural(row.shots, 'shot')}: {row.chance:.3f}" for row in rows],
    )
    logprob = Line(
        name="log-probability",
        x=shots,
        y=[row.logprob for row in rows],
        low=[row.logprob_ci_low for row in rows],
        high=[row.logprob_ci_high for row in rows],
        colour="caution",
        dash="dashdot",
        symbol="diamond",
        axis="right",
        rank=_BEHAVIOUR,
        hover=[
            f"{plural(row.shots, 'shot')}\nlog-probability of the answer {row.logprob:.3f} nats\n"
            f"(interval {row.logprob_ci_low:.3f} to {row.logprob_ci_high:.3f})"
            for row in rows
        ],
    )
    return Panel(
        marks=[accuracy, chance, logprob],
        y="accuracy",
        right="log-probability (nats)",
        x="shots",
        height=0.8,
        # A little beyond 0 and 1, so that markers at the ends are whole.
        y_range=(-0.03, 1.03),
    )
