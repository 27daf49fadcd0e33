"""Pictures of a study: what each arm learned against what it forgot, and the arms over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ed_interp.charts.spec import Chart, Colour, Line, Panel, Symbol
from ed_interp.eval.study.rows import ArmRow, TrialRow

# Symbols differ too, so that no arm is known by its colour alone.
_LOOKS: dict[str, tuple[str, Symbol, Colour]] = {
    "bias-injection": ("bias injection", "circle", "accent"),
    "treated": ("the checkpoint", "circle", "accent"),
    "lora": ("LoRA, as many parameters", "square", "#1d8a4f"),
    "bias": ("bias alone", "diamond", "muted"),
    "shuffled": ("feedback, time shuffled", "triangle-up", "#a25bd6"),
    "tau-zero": ("feedback, tau 0", "triangle-down", "#c97700"),
    "tau-infinity": ("feedback, tau infinite", "cross", "#c23a3a"),
    "random": ("random direction", "x", "#8f6b42"),
    "frozen": ("frozen", "star", "text"),
}
_LINEAR = 0.02
"""Rise of the cross-entropy, in nats per token, up to which the axis is linear."""


def learned_chart(
    studies: Mapping[str, Sequence[TrialRow]], title: str, *, columns: int = 1
) -> Chart:
    """Accuracy at the fewest shots against forgetting, a mark per seed and a panel per study."""
    # One panel carries the legend: at the right edge of the first row, where there is room.
    last = min(columns, len(studies)) - 1
    panels = [
        _learned(trials, name if len(studies) > 1 else "", legend=number == last)
        for number, (name, trials) in enumerate(studies.items())
    ]
    return Chart(
        name="study",
        title=title,
        heading="Learned and forgotten",
        panels=panels,
        columns=columns,
        share_x=False,
        caption="A mark per seed; the axis is linear near 0, where arms may gain on neutral text, "
        "and logarithmic beyond.",
    )


def _learned(trials: Sequence[TrialRow], title: str, *, legend: bool) -> Panel:
    # Only compared trials that could answer at all have a place in the picture.
    final = [row for row in trials if not row.sweep and row.accuracy and row.forgetting is not None]
    marks = [
        Line(
            name=name,
            x=[row.forgetting for row in rows],
            y=[row.accuracy[0] for row in rows],
            mode="points",
            symbol=symbol,
            colour=colour,
            size=11 if arm in ("bias-injection", "treated", "frozen") else 8,
            legend=legend,
            hover=[
                f"{name}, seed {row.seed}\naccuracy {row.accuracy[0]:.2f}, forgetting "
                f"{row.forgetting:.3f} nats per token"
                for row in rows
            ],
        )
        for arm, (name, symbol, colour) in _LOOKS.items()
        if (rows := [row for row in final if row.arm == arm])
    ]
    shots = final[0].shots[0] if final else 0
    return Panel(marks=marks, title=title, x="forgetting (nats per token)", symlog_x=_LINEAR,
                 y=f"accuracy at {shots} shots", y_range=(-0.05, 1.06))  # fmt: skip


def arms_chart(summary: Sequence[ArmRow], tested: str, title: str) -> Chart:
    """Mean and interval over seeds of every arm; the arm under test is coloured."""
    metrics = {
        "accuracy": "Accuracy",
        "logprob": "Log-probability (nats)",
        "forgetting": "Forgetting (nats per token)",
    }
    panels = []
    for metric, label in metrics.items():
        # Each in units of its own, so a panel each.
        marks = [
            Line(name="under test" if row.arm == tested else "other arms", x=[row.mean],
                 y=[row.arm], low=[row.ci_low], high=[row.ci_high], across=True, mode="points",
                 colour="accent" if row.arm == tested else "muted")
            for row in summary
            if row.metric == metric
        ]  # fmt: skip
        if marks:
            panels.append(Panel(marks=marks, rows=True, title=label))
    return Chart(
        name="arms",
        title=title,
        heading="Arms over seeds",
        panels=panels,
        share_x=False,
        caption="Mean and Student's interval over seeds; an arm with one trial has no interval.",
    )
