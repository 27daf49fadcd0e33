"""The chart of a calibration, made from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ed_interp.charts.spec import Band, Chart, Line, Mark, Panel, Symbol
from ed_interp.probes.emergence.calibration.rows import (
    ABSOLUTE_BITS,
    RELATIVE,
    CalibrationRow,
    allowed,
)

_SYMBOLS: tuple[Symbol, ...] = get_args(Symbol)


def calibration_chart(rows: Sequence[CalibrationRow], *, title: str, below: str) -> Chart:
    """Estimate against truth: the diagonal, the band of the rule, a line per family."""
    # The rule bends where 10% of the truth exceeds 0.25 bits, so the band needs points between.
    most = max([row.truth for row in rows], default=1.0)
    grid = [(1.05 * most or 1.0) * step / 60 for step in range(61)]
    # A wild estimate runs out of the picture, rather than press all others onto one line.
    top = most or 1.0
    high = min(max([top, *(row.high for row in rows)]), 2 * top + 1)
    low = max(min([0.0, *(row.low for row in rows)]), -1 - top / 2)
    marks: list[Mark] = [
        Band(
            name=f"right: within {ABSOLUTE_BITS:g} bits or {RELATIVE:.0%}",
            x=grid,
            low=[value - allowed(value) for value in grid],
            high=[value + allowed(value) for value in grid],
        ),
        Line(name="truth", x=grid, y=grid, colour="muted", dash="dash", width=2, mode="line"),
    ]
    families = list(dict.fromkeys(row.family for row in rows))
    for index, family in enumerate(families):
        own = sorted((row for row in rows if row.family == family), key=lambda row: row.truth)
        marks.append(
            Line(
                name=family,
                x=[row.truth for row in own],
                y=[row.estimate for row in own],
                low=[row.low for row in own],
                high=[row.high for row in own],
                interval="bars",
                # Families have no order, but the scale of depth is legible in both themes.
                colour=index / max(1, len(families) - 1),
                symbol=_SYMBOLS[index % len(_SYMBOLS)],
                size=9,
                width=2,
                hover=[
                    f"{row.population}\ntruth {row.truth:.3f} bits\n"
                    f"estimate {row.estimate:.3f} bits"
                    + (f"\nflags: {', '.join(row.flags)}" if row.flags else "")
                    for row in own
                ],
            )
        )
    return Chart(
        name="calibration",
        title=title,
        below=below,
        heading="Estimate against truth",
        caption="The estimator on populations of known information. Grey: where it counts as "
        "right. Bars reach from the least to the most over seeds. What lies beyond twice the "
        "largest truth is not in the picture, but in the table.",
        panels=[
            Panel(
                marks=marks,
                x="true mutual information (bits)",
                y="estimate (bits)",
                y_range=(low - 0.05 * (high - low), high + 0.05 * (high - low)),
                height=1.7,
            )
        ],
    )
