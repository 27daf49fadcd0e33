"""The pictures of a paper: values with their intervals, a row per arm, shot count or relation.

Cost: none until they are drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ed_interp.charts.spec import Chart, Colour, Line, Mark, Panel, Rule
from ed_interp.charts.theme import shortened
from ed_interp.eval.paper.claims import where
from ed_interp.eval.paper.records import Place
from ed_interp.eval.paper.values import Picture


def arms(study: Place, metrics: Mapping[str, str]) -> Picture | None:
    """Mean and interval over seeds of each arm, a panel per metric; None without any.

    Args:
        study: The record.
        metrics: Metric -> title of its panel.
    """
    panels = []
    for metric, title in metrics.items():
        rows = where(study["summary"], metric=metric)
        coloured: dict[Colour, Sequence[Place]] = {"accent": where(rows, arm=study["tested"])}
        names = {row: row["arm"].raw for row in rows}
        panels.append(_panel(title, "mean", names, coloured, zero=metric == "forgetting"))
    return _picture("study", study, "Arms, mean and interval over seeds", panels)


def effects(
    comparison: Place,
    verdicts: Mapping[str, Sequence[Place]],
    panels: Sequence[tuple[str, str, str]],
) -> Picture | None:
    """Differences by prompt with their intervals, coloured by verdict; None without any.

    Args:
        comparison: The record.
        verdicts: The effects by their verdict.
        panels: Family, metric and title of each.
    """
    coloured: dict[Colour, Sequence[Place]] = {
        "accent": verdicts["better"],
        "caution": verdicts["worse"],
    }
    made = []
    for family, metric, title in panels:
        rows = where(comparison["effects"], family=family, metric=metric)
        if family == "relation":
            rows = sorted(rows, key=lambda row: row["difference"].raw)
            names = {row: row["name"].raw for row in rows}
        else:
            names = {row: f"{row['shots'].raw} shots" for row in rows}
        made.append(_panel(title, "difference", names, coloured, zero=True))
    heading = f"{comparison['treated']['name'].raw} against {comparison['control']['name'].raw}"
    return _picture("comparison", comparison, heading, made)


def curve(record: Place) -> Picture | None:
    """The main picture of an emergence curve, as its own report has it; None without any."""
    result = record.record.result
    charts = [] if result is None else result.charts()
    name = f"curve-{record.record.id.lower()}"
    return Picture(dataclasses.replace(charts[0], name=name)) if charts else None


def _picture(
    kind: str, record: Place, heading: str, panels: Sequence[Panel | None]
) -> Picture | None:
    kept = [panel for panel in panels if panel is not None]
    name = f"{kind}-{record.record.id.lower()}"
    chart = Chart(name=name, title=heading, heading=heading, panels=kept, share_x=False)
    return Picture(chart) if kept else None


def _panel(
    title: str,
    field: str,
    names: Mapping[Place, str],
    coloured: Mapping[Colour, Sequence[Place]],
    *,
    zero: bool,
) -> Panel | None:
    """The rows in ``names``, those of ``coloured`` over it in their colour; None without rows."""
    marks: list[Mark] = [Rule(at=0.0, vertical=True, dash="solid")] if zero else []
    # All rows first: the axis has them in the order of the marks.
    for colour, rows in {"muted": list(names), **coloured}.items():
        if own := [row for row in rows if row in names]:
            marks.append(
                Line(
                    name=title,
                    x=[float(row[field].raw) for row in own],
                    y=[shortened(names[row], 34) for row in own],
                    low=[row["ci_low"].raw for row in own],
                    high=[row["ci_high"].raw for row in own],
                    across=True,
                    mode="points",
                    interval="bars",
                    colour=colour,
                    legend=False,
                )
            )
    return Panel(marks=marks, title=title, rows=True) if names else None
