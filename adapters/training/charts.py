"""Pictures of a training run and of an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.adapters.training.rows import LossRow, Taus
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


def time_constants(taus: Taus | None, title: str) -> list[Chart]:
    """The time constant of each node, by layer."""
    if taus is None:
        return []
    points = [(tau, layer) for layer, values in taus.by_layer.items() for tau in values]
    x, y = zip(*points, strict=True)
    # Block, module and layer: "0.attn.c_attn" of base_model.model.transformer.h.0.attn.c_attn.
    names = [".".join(layer.split(".")[-4:-1]) for layer in y]
    marks = [Line(name="nodes", x=x, y=names, mode="points", legend=False)]
    panel = Panel(marks=marks, x="time constant (tokens)", rows=True, log_x=True)
    return [Chart(name="time-constants", title=title, heading="Time constants", panels=[panel])]
