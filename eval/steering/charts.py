"""The dose-response of a sweep: what it gains, and what it costs, at each strength and place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ed_interp.charts.spec import Chart, Line, Panel, Rule
from ed_interp.eval.steering.rows import SweepCell

_UNSTEERED = SweepCell("", 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, True)
"""At coefficient 0 nothing changes; it is measured once and belongs to every line."""


def dose_response(
    cells: Sequence[SweepCell], chosen: SweepCell | None, budget: float, title: str, below: str
) -> Chart:
    """Change of the score over the coefficient, one line per place; perplexity below it."""
    gains: list[Line | Rule] = []
    costs: list[Line | Rule] = []
    sites = list(dict.fromkeys(cell.site for cell in cells))
    for number, site in enumerate(sites):
        rows = [cell for cell in cells if cell.site == site]
        rows.append(dataclasses.replace(_UNSTEERED, site=site))
        rows.sort(key=lambda row: row.coefficient)
        line = Line(
            name=site,
            # One entry of the legend shows and hides a site in both panels.
            group=site,
            x=[row.coefficient for row in rows],
            y=[row.change for row in rows],
            low=[row.ci_low for row in rows],
            high=[row.ci_high for row in rows],
            colour=number / (len(sites) - 1) if len(sites) > 1 else 0.5,
            hover=[_hover(row) for row in rows],
        )
        gains.append(line)
        ratios = [row.perplexity_ratio for row in rows]
        # Perplexity is one number of all the text, without an interval.
        costs.append(dataclasses.replace(line, y=ratios, low=None, high=None, legend=False))
    if chosen is not None:
        gains.append(
            Line(name="chosen", x=[chosen.coefficient], y=[chosen.change], hover=[_hover(chosen)],
                 mode="points", symbol="star", size=16, colour="text")
        )  # fmt: skip
    gains.append(Rule(at=0.0, dash="solid"))
    costs.append(Rule(at=budget, name="budget"))
    return Chart(
        name="dose-response",
        title=title,
        below=below,
        caption="Above, the mean change of the score on the samples that the choice is made on. "
        "Below, perplexity of the neutral text; a cell above the budget cannot be chosen, and one "
        "of infinite perplexity is left out.",
        panels=[
            Panel(marks=gains, y="change of the score (nats)", height=1.75),
            Panel(marks=costs, x="coefficient", y="perplexity / unsteered", log_y=True),
        ],
    )


def _hover(row: SweepCell) -> str:
    ratio = "infinite" if row.perplexity_ratio is None else f"x {row.perplexity_ratio:.3f}"
    return (
        f"{row.site}, coefficient {row.coefficient:g}\nchange {row.change:+.3f} nats "
        f"({row.ci_low:+.3f} to {row.ci_high:+.3f})\nwrong way {row.wrong_way:.0%}\n"
        f"perplexity {ratio}"
    )
