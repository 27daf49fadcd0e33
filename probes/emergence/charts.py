"""Charts of an emergence curve, made from its rows: data, which is drawn when it is shown."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from ed_interp.charts.spec import Band, Chart, Heat, Line, Mark, Panel, Rule
from ed_interp.charts.theme import MANY_BLOCKS, depth, plural
from ed_interp.probes.emergence.rows import BehaviourRow, ComparisonRow, EmergenceRow, ProfileRow

# Order in the legend: blocks (the deepest first, as their lines mostly lie), controls, behaviour.
_BLOCKS, _CONTROLS, _BEHAVIOUR = 500, 1100, 2000
_DOUBT = ("ci_low", "ci_high", "flags")


@dataclasses.dataclass(frozen=True)
class Labels:
    """What all pictures of one curve say."""

    title: str
    estimator: str
    """With its noise, for the line under the title."""
    unit: str


AnyRow = EmergenceRow | ProfileRow | ComparisonRow
RowT = TypeVar("RowT", bound=AnyRow)


def emergence_chart(
    rows: Sequence[EmergenceRow],
    behaviour: Sequence[BehaviourRow],
    labels: Labels,
    meanings: Mapping[str, str],
) -> Chart:
    """E of every block over shots; below it accuracy and log-probability, if there are answers."""
    blocks = by_block(rows)
    # The limit is that of the data, the same for every block, so any block's will do.
    limit = {row.shots: row.limit for row in rows}
    # What is drawn first lies lowest: the controls, so that they hide no block.
    marks = [*_twin(blocks), *_control("limit of noiseless networks", limit)]
    marks += _lines(blocks, "emergence", lambda row: _hover(row, labels.unit, meanings), "band")
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
        below=f"emergence per block over shots · {labels.estimator}",
        heading="Emergence over shots",
        caption=caption,
        panels=_with_shots(panels, rows),
        depth=_depth_bar(blocks),
    )


def heatmap_chart(rows: Sequence[EmergenceRow], labels: Labels) -> Chart:
    """E over block (upwards) and shots; diverging around 0 where E is clearly negative."""
    layers, shots = sorted({row.layer for row in rows}), sorted({row.shots for row in rows})
    cells = {(row.layer, row.shots): row for row in rows}
    values = [row.emergence for row in rows]
    # Noise makes small negative values; colours diverge only where E is clearly negative.
    diverging = min(values, default=0.0) < -0.05 * max(0.0, *values, 0.0)

    def grid(of: Callable[[EmergenceRow], Any], empty: Any = "") -> list[list[Any]]:
        where = [[(layer, count) for count in shots] for layer in layers]
        return [[of(cells[key]) if key in cells else empty for key in line] for line in where]

    heat = Heat(
        x=[str(count) for count in shots],
        y=[str(layer) for layer in layers],
        z=grid(lambda row: row.emergence, None),
        text=grid(lambda row: f"{row.emergence:.2f}{'*' if row.flags else ''}"),
        hover=grid(lambda row: _brief(row, labels.unit)),
        centre=0.0 if diverging else None,
        unit=f"E ({labels.unit})",
    )
    # Some 27 pixels a block, so that its number can be read, within the height of a screen.
    height = min(max(0.9, len(layers) * 0.09), 2.7)
    return Chart(
        name="heatmap",
        title=labels.title,
        below=f"emergence · {labels.estimator}",
        heading="Block by shots",
        caption="The same E at a glance, first block at the bottom. A star marks a flagged value.",
        panels=[Panel(marks=[heat], x="shots", y="block", height=height)],
    )


def terms_chart(rows: Sequence[EmergenceRow], labels: Labels) -> Chart:
    """The two terms of E: macro (last token) above, micro (single tokens) below."""
    blocks = by_block(rows)
    entropy = {row.shots: row.macro_limit for row in rows}

    def lines(term: str) -> list[Mark]:
        def hover(row: EmergenceRow) -> str:
            return f"{_where(row)}\n{term} {getattr(row, term):.3f} {labels.unit}"

        return _lines(blocks, term, hover, legend=term == "macro")

    marks = {
        "macro": [*lines("macro"), *_control("entropy of the sequences", entropy)],
        "micro": lines("micro"),
    }
    panels = [
        Panel(marks=own, y=f"{term} ({labels.unit})", x="shots") for term, own in marks.items()
    ]
    return Chart(
        name="terms",
        title=labels.title,
        below=f"macro and micro information · {labels.estimator}",
        heading="The two terms",
        caption="Macro is the information a block passes on at the last token of the whole "
        "sequence; micro the same for each token fed alone, averaged. Macro near the dashed "
        "entropy of the sequences only says that they stay distinct.",
        panels=_with_shots(panels, rows),
        depth=_depth_bar(blocks),
    )


def profile_chart(profile: Sequence[ProfileRow], labels: Labels, noise: float | None) -> Chart:
    """E over the noise scale, per block, at the most shots; ``noise`` is the curve's own."""
    most = max((row.shots for row in profile), default=0)
    ordered = sorted(profile, key=lambda row: row.noise)
    blocks = by_block(row for row in ordered if row.shots == most)

    def hover(row: ProfileRow) -> str:
        return (
            f"{_where(row)}, noise {row.noise:.3g} (beta {row.beta:.3g})\n"
            f"E {row.emergence:.3f} {labels.unit}\n"
            f"macro {row.macro:.3f}, micro {row.micro:.3f} {labels.unit}"
        )

    marks: list[Mark] = [*_lines(blocks, "emergence", hover, x="noise")]
    if noise is not None and noise > 0:
        marks.append(Rule(at=noise, name=f"noise of the curve: {noise:.3g}", vertical=True))
    panel = Panel(
        marks=marks,
        x="noise scale per normalised coordinate",
        y=f"emergence E ({labels.unit})",
        log_x=True,
        height=1.2,
    )
    return Chart(
        name="profile",
        title=labels.title,
        below=f"over noise, at {plural(most, 'shot')} · {labels.estimator}",
        heading="Over the noise",
        caption="E depends on the noise scale: little noise leaves every sequence distinct, much "
        "noise hides everything. A result should hold over a range of it.",
        panels=[panel],
        depth=_depth_bar(blocks),
    )


def comparison_chart(rows: Sequence[ComparisonRow], *, title: str, unit: str = "bits") -> Chart:
    """E of every block over shots, one panel per estimator, each on its own scale."""
    panels: list[Panel] = []
    for name, own in itertools.groupby(rows, key=lambda row: row.estimator):
        # The same blocks in every panel, so that one legend is enough.
        lines = _lines(
            by_block(own), "emergence", lambda row: _brief(row, unit), "bars", legend=not panels
        )
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
    blocks: dict[int, list[RowT]] = {}
    for row in sorted(rows, key=lambda row: (row.layer, row.shots)):
        blocks.setdefault(row.layer, []).append(row)
    return blocks


def _lines(
    blocks: Mapping[int, Sequence[RowT]],
    y: str,
    hover: Callable[[RowT], str],
    interval: Literal["band", "bars"] | None = None,
    *,
    x: str = "shots",
    legend: bool = True,
) -> list[Mark]:
    """A line per block, one field of its rows over another; flagged points are hollow."""
    # Many lines are thin and have a colour bar, few have an entry each in the legend.
    many = len(blocks) > MANY_BLOCKS
    marks: list[Mark] = []
    for layer, rows in blocks.items():
        # Rows of a profile have neither intervals nor flags.
        values = {name: [getattr(row, name, None) for row in rows] for name in (x, y, *_DOUBT)}
        marks.append(
            Line(
                name=f"block {layer}",
                x=values[x],
                y=values[y],
                low=values["ci_low"] if interval else None,
                high=values["ci_high"] if interval else None,
                interval=interval or "band",
                colour=depth(layer, list(blocks)),
                width=1.5 if many else 2.5,
                size=5 if many else 8,
                hollow=[bool(flags) for flags in values["flags"]] if interval else (),
                legend=legend and not many,
                group=f"block {layer}",
                rank=_BLOCKS - layer,
                hover=[hover(row) for row in rows],
            )
        )
    return marks


def _control(name: str, values: Mapping[int, float]) -> list[Mark]:
    """A dashed line over shot counts that every block shares, since it depends on the data."""
    x = sorted(values)
    y = [values[shots] for shots in x]
    line = Line(name=name, x=x, y=y, colour="muted", dash="dash", width=2, mode="line")
    return [dataclasses.replace(line, rank=_CONTROLS)] if x else []


def _twin(blocks: Mapping[int, Sequence[EmergenceRow]]) -> list[Mark]:
    """The untrained twin: dotted lines, or with many blocks the range over all of them."""
    values = {
        layer: {row.shots: row.untrained for row in block if row.untrained is not None}
        for layer, block in blocks.items()
    }
    shots = sorted({count for line in values.values() for count in line})
    if len(blocks) > MANY_BLOCKS and shots:
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
            mode="line",
            legend=layer == min(values),
            group="untrained twin",
            rank=_CONTROLS + 1,
        )
        for layer, line in values.items()
        if line
    ]


def _behaviour_panel(rows: Sequence[BehaviourRow]) -> Panel:
    def line(name: str, field: str, ends: Sequence[str], hover: Callable[..., str]) -> Line:
        values = {key: [getattr(row, key) for row in rows] for key in (field, *ends)}
        low, high = (values[end] for end in ends) if ends else (None, None)
        return Line(
            name=name,
            x=[row.shots for row in rows],
            y=values[field],
            low=low,
            high=high,
            rank=_BEHAVIOUR,
            hover=[f"{plural(row.shots, 'shot')}{hover(row)}" for row in rows],
        )

    accuracy = line(
        "accuracy",
        "accuracy",
        ("ci_low", "ci_high"),
        lambda row: (
            f", {plural(row.n, 'prompt')}\n"
            f"accuracy {row.accuracy:.3f} (interval {row.ci_low:.3f} to {row.ci_high:.3f})\n"
            f"chance {row.chance:.3f}\n"
            f"gain {row.gain:+.3f} (interval {row.gain_ci_low:+.3f} to {row.gain_ci_high:+.3f})\n"
            f"median rank of the answer's first token {row.rank:g}"
        ),
    )
    chance = line("chance", "chance", (), lambda row: f": chance {row.chance:.3f}")
    logprob = line(
        "log-probability",
        "logprob",
        ("logprob_ci_low", "logprob_ci_high"),
        lambda row: (
            f"\nlog-probability of the answer {row.logprob:.3f} nats\n"
            f"(interval {row.logprob_ci_low:.3f} to {row.logprob_ci_high:.3f})"
        ),
    )
    return Panel(
        marks=[
            accuracy,
            dataclasses.replace(chance, colour="muted", dash="dot", width=2, mode="line"),
            dataclasses.replace(
                logprob, colour="caution", dash="dashdot", symbol="diamond", axis="right"
            ),
        ],
        y="accuracy",
        right="log-probability (nats)",
        x="shots",
        height=0.8,
        # A little beyond 0 and 1, so that markers at the ends are whole.
        y_range=(-0.03, 1.03),
    )


def _depth_bar(blocks: Mapping[int, object]) -> tuple[int, int] | None:
    return (min(blocks), max(blocks)) if len(blocks) > MANY_BLOCKS else None


def _with_shots(panels: Sequence[Panel], rows: Sequence[AnyRow]) -> list[Panel]:
    """Panels whose x axis is labelled only at shot counts that were measured."""
    counts = sorted({row.shots for row in rows})
    return [dataclasses.replace(panel, x_ticks=counts) for panel in panels]


def _where(row: AnyRow) -> str:
    return f"block {row.layer}, {plural(row.shots, 'shot')}"


def _brief(row: EmergenceRow | ComparisonRow, unit: str) -> str:
    text = f"{_where(row)}\nE {row.emergence:.3f} {unit}"
    return text + (f"\nflags: {', '.join(row.flags)}" if row.flags else "")


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
