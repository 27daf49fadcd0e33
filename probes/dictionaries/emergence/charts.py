"""Picture of feature emergence, from its rows."""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.charts.spec import Chart, Line, Panel, Rule
from ed_interp.charts.theme import ticks
from ed_interp.probes.dictionaries.emergence.rows import FeatureEmergenceRow

_PANELS = {
    "informative": "informative features",
    "best_bits": "bits of the best feature",
    "active": "active features",
}


def steps_of(rows: Sequence[FeatureEmergenceRow]) -> list[int | None]:
    """Checkpoints in order of training; the trained model comes last."""
    steps = {row.step for row in rows}
    return [*sorted(step for step in steps if step is not None), *([None] * (None in steps))]


def label(step: int | None) -> str:
    """Name of a checkpoint."""
    return "trained" if step is None else f"step {step:,}"


def emergence_chart(
    title: str, below: str, rows: Sequence[FeatureEmergenceRow], *, entropy: float, about: str
) -> Chart:
    """Informative features, information of the best one and active features, over shots."""
    steps = steps_of(rows)
    panels = []
    for name, axis in _PANELS.items():
        marks: list[Line | Rule] = []
        for place, step in enumerate(steps):
            part = sorted((row for row in rows if row.step == step), key=lambda row: row.shots)
            marks.append(
                Line(
                    name=label(step),
                    x=[row.shots for row in part],
                    y=[getattr(row, name) for row in part],
                    colour=place / (len(steps) - 1) if len(steps) > 1 else "accent",
                    group=label(step),
                    legend=len(steps) > 1,
                )
            )
        if name == "best_bits":
            marks.append(Rule(at=entropy, name=f"entropy of the {about}"))
        panels.append(
            Panel(
                x="shots",
                y=axis,
                marks=marks,
                height=1.0 if name == "informative" else 0.75,
                x_ticks=ticks(sorted({row.shots for row in rows})),
                from_zero=True,
            )
        )
    return Chart(
        name="features",
        title=title,
        below=below,
        heading="Features over shots",
        caption="Informative: whether it is active informs about the label, by a permutation test "
        "that holds over all features together. Active: at the last token of at least 1% of the "
        "prompts.",
        panels=panels,
    )
