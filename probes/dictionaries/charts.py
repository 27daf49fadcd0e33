"""Pictures of every result about dictionaries, from their rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ed_interp.charts.spec import Bars, Chart, Colour, Line, Panel, Rule
from ed_interp.charts.theme import ticks
from ed_interp.probes.dictionaries.rows import FeatureEmergenceRow, ProbeRow, TrainingRow

_BIN = 0.05


def training_chart(title: str, history: Sequence[TrainingRow]) -> Chart:
    """Variance unexplained, L0 and loss over steps."""
    steps = [row.step for row in history]
    curves = {
        "fraction of variance unexplained": [row.fvu for row in history],
        "active latents per token": [row.l0 for row in history],
        "loss": [row.loss for row in history],
    }
    return Chart(
        name="training",
        title=title,
        heading="Training",
        caption="Of single batches, before the learning rate has decayed: measure for the quality.",
        panels=[
            Panel(
                x="step",
                y=name,
                from_zero=True,
                marks=[Line(name=name, x=steps, y=values, mode="line", legend=False)],
            )
            for name, values in curves.items()
        ],
    )


def measurement_chart(
    title: str,
    below: str,
    densities: Sequence[tuple[float, float, int]],
    scores: Sequence[Sequence[float]],
    probing: Sequence[ProbeRow],
) -> Chart:
    """Density, monosemanticity against its control, and sparse probing.

    ``densities`` are (low, high, features) over the logarithm to base 10 of the density,
    ``scores`` monosemanticity and its control.
    """
    living = Bars(
        name="living features",
        x=[(low + high) / 2 for low, high, _ in densities],
        y=[count for _, _, count in densities],
        width=densities[0][1] - densities[0][0],
        hover=[f"10^{(low + high) / 2:.2f} of tokens: {n} features" for low, high, n in densities],
        legend=False,
    )
    return Chart(
        name="measurement",
        title=title,
        below=below,
        heading="Features",
        caption="Density: share of tokens at which a feature is active. Squared correlation: how "
        "well one token or category predicts it on other text; the control has its activations "
        "shuffled. Accuracy: of a logistic regression on few features.",
        share_x=False,
        panels=[
            Panel(
                title="how often features are active",
                x="log10 of the share of tokens",
                y="features",
                marks=[living],
            ),
            Panel(
                title="how well one token or category predicts them",
                x="squared correlation on held-out text",
                y="features (log)",
                log_y=True,
                marks=[
                    histogram("shuffled control", [control for _, control in scores], "muted"),
                    histogram("features", [score for score, _ in scores]),
                ],
            ),
            Panel(
                title="how few of them predict the class",
                x="features used",
                y="accuracy",
                y_range=(0, 1.03),
                marks=_probes(probing),
            ),
        ],
    )


def histogram(name: str, values: Iterable[float], colour: Colour = "accent") -> Bars:
    """Counts of values between 0 and 1 in twenty bins."""
    # The last bin takes 1 too.
    bins = Counter(min(math.floor(value / _BIN), round(1 / _BIN) - 1) for value in values)
    # Empty bins are left out, as a logarithmic axis has no place for 0.
    places = sorted(bins)
    return Bars(
        name=name,
        x=[(place + 0.5) * _BIN for place in places],
        y=[bins[place] for place in places],
        width=_BIN,
        colour=colour,
        opacity=0.7,
        hover=[f"{p * _BIN:.2f} to {(p + 1) * _BIN:.2f}: {bins[p]} {name}" for p in places],
    )


def _probes(probing: Sequence[ProbeRow]) -> list[Line]:
    tasks = list(dict.fromkeys(row.task for row in probing))
    lines = []
    for place, task in enumerate(tasks):
        rows = [row for row in probing if row.task == task]
        lines.append(
            Line(
                name=f"{task} (chance {rows[0].chance:.2f})",
                # As text: all channels is not a number of features, so the axis is one of names.
                x=[*(str(row.features) for row in rows), "all channels"],
                y=[*(row.accuracy for row in rows), rows[0].dense],
                colour=place / max(1, len(tasks) - 1),
            )
        )
    return lines


_EMERGENCE = {
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
    title: str, below: str, rows: Sequence[FeatureEmergenceRow], entropy: float, about: str
) -> Chart:
    """Informative features, information of the best one and active features, over shots."""
    steps = steps_of(rows)
    panels = []
    for name, axis in _EMERGENCE.items():
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
                    legend=len(steps) > 1,  # a single line explains itself
                )
            )
        if name == "best_bits":
            marks.append(Rule(at=entropy, name=f"entropy of the {about}"))
        panels.append(
            Panel(
                x="shots",
                y=axis,
                marks=marks,
                # The finding gets more room than what explains it.
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
