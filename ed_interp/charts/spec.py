"""What a picture shows, without a word about how it is drawn.

    Chart(
        name="depth", title="icl-gpt2", caption="Norm of the stream per block.",
        panels=[Panel(x="block", y="norm", marks=[Line(name="norm", x=[0, 1], y=[1.0, 2.0])])],
    )

Cost: none; nothing is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

# int beside float, since type checks at run time do not take one for the other.
Number = int | float
Colour = str | int | float
"""``text``, ``muted``, ``accent`` (blue), ``caution`` (orange), a number from 0 to 1 along the
scale of depth, or ``#rrggbb``, which is the same in both themes."""

Dash = Literal["solid", "dash", "dot", "dashdot"]
Symbol = Literal[
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"
]
Values = Sequence[Number | None]
Places = Sequence[Number] | Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line or points, with intervals if there are any."""

    name: str
    x: Sequence[Number | None] | Sequence[str]
    y: Sequence[Number | None] | Sequence[str]
    low: Values | None = None
    """Lower ends of the intervals of y (of x, if `across`)."""
    high: Values | None = None
    interval: Literal["band", "bars"] = "band"
    """A shaded band needs two points: a single one gets a bar whatever is said here."""
    across: bool = False
    """The intervals are those of x: rows of names on the y axis."""
    colour: Colour = "accent"
    dash: Dash = "solid"
    mode: Literal["both", "line", "points"] = "both"
    symbol: Symbol = "circle"
    size: Number = 8
    width: Number = 2.5
    hollow: Sequence[bool] = ()
    """Points to draw hollow: flagged ones. Empty for none."""
    hover: Sequence[str] = ()
    """Text of each point, with line breaks; made from x and y where empty."""
    axis: Literal["left", "right"] = "left"
    legend: bool = True
    group: str = ""
    """Marks of one group are shown and hidden together and have one entry in the legend."""
    rank: int = 1000
    """Order in the legend, smallest first."""

    @property
    def legend_group(self) -> str:
        """What it is shown and hidden with."""
        return self.group or self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """A shaded area without a line of its own."""

    name: str
    x: Sequence[Number]
    low: Sequence[Number]
    high: Sequence[Number]
    colour: Colour = "muted"
    legend: bool = True
    opacity: Number = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars from zero; those of one panel lie over one another."""

    name: str
    x: Places
    y: Sequence[Number]
    width: Number | None = None
    colour: Colour = "accent"
    opacity: Number = 0.8
    hover: Sequence[str] = ()
    legend: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heat:
    """Cells in colour: sequential, or diverging around `centre`."""

    x: Sequence[str]
    y: Sequence[str]
    z: Sequence[Sequence[Number | None]]
    """One row for each of `y`, the first at the bottom."""
    text: Sequence[Sequence[str]] = ()
    """What stands in each cell."""
    hover: Sequence[Sequence[str]] = ()
    centre: Number | None = None
    unit: str = ""
    """Title of the colour bar; without one there is no bar."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A reference line across the whole panel."""

    at: Number
    name: str = ""
    vertical: bool = False
    dash: Dash = "dash"
    colour: Colour = "muted"


Mark = Line | Band | Bars | Heat | Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    marks: Sequence[Mark]
    title: str = ""
    x: str = ""
    """Label of the axis, as all labels with its unit."""
    y: str = ""
    right: str = ""
    """Label of the right axis, for lines that use it."""
    height: Number = 1.0
    """Relative to the other panels."""
    rows: bool = False
    """The y axis holds names, the first at the top; the height follows their number."""
    log_x: bool = False
    log_y: bool = False
    symlog_x: Number | None = None
    """Linear up to here on both sides of 0, logarithmic beyond."""
    x_range: tuple[Number, Number] | None = None
    y_range: tuple[Number, Number] | None = None
    x_ticks: Sequence[Number] | None = None
    """The only places that get a label, such as the shot counts that were measured."""
    from_zero: bool = False
    """The y axis begins at 0."""

    @property
    def names(self) -> list[str]:
        """The names on the y axis of a panel of rows, from the top."""
        rows = [mark.y for mark in self.marks if isinstance(mark, Line) and mark.across]
        return list(dict.fromkeys(str(name) for names in rows for name in names))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture: panels below one another, or in columns."""

    name: str
    """File name and anchor: letters, digits and hyphens."""
    title: str
    """What was measured on what; heading of a picture that stands alone."""
    panels: Sequence[Panel]
    heading: str = ""
    """Heading of the picture on a page, where the page has the title already."""
    below: str = ""
    """A line under the title of a picture that stands alone."""
    caption: str = ""
    """How to read it, on a page."""
    columns: int = 1
    depth: tuple[int, int] | None = None
    """First and last block: a bar explains the colours in place of the legend."""
    png: bool = False
    """Also written as a PNG of its own; the first chart of a result always is."""
    share_x: bool = True
    """Panels of a column have one x axis, labelled at the bottom."""
