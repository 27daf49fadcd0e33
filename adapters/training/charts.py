"""The picture of a training run."""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.adapters.training.rows import LossRow
from ed_interp.charts.spec import Chart, Line, Panel


def losses(rows: Sequence[LossRow], title: str) -> list[Chart]:
    """Training and held-out loss over steps."""
    marks = []
    for name, label, colour in (("loss", "training", "muted"), ("eval_loss", "held out", "accent")):
        values = [(row.step, getattr(row, name)) for row in rows]
        points = [(step, value) for step, value in values if value is not None]
        if points:
            x, y = zip(*points, strict=True)
            marks.append(Line(name=label, x=x, y=y, colour=colour))
    if not marks:
        return []
    panel = Panel(marks=marks, x="step", y="loss (nats per token)")
    return [Chart(name="losses", title=title, heading="Losses", panels=[panel])]
