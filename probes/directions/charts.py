"""The picture of a preflight: what it measured at each site."""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.charts.spec import Chart, Colour, Line, Panel, Rule, Symbol
from ed_interp.probes.directions.rows import PreflightRow


def preflight_chart(rows: Sequence[PreflightRow], title: str, below: str) -> Chart:
    """AUC, agreement and stability over sites."""
    sites = [row.site for row in rows]
    columns: list[tuple[str, list[float | None], Colour, Symbol]] = [
        ("AUC (held out)", [row.auc for row in rows], "accent", "circle"),
        ("stability", [row.stability for row in rows], "text", "square"),
        ("agreement of pairs", [row.agreement for row in rows], "caution", "diamond"),
    ]
    marks = [
        Line(name=name, x=sites, y=values, colour=colour, symbol=symbol)
        for name, values, colour, symbol in columns
        if any(value is not None for value in values)
    ]
    return Chart(
        name="preflight",
        title=title,
        below=below,
        caption="All three should be high. An AUC of 0.5 is chance.",
        panels=[Panel(marks=[*marks, Rule(at=0.5, name="chance of the AUC")], x="site", y="value")],
    )
