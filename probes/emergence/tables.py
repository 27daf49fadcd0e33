"""Tables of an emergence curve, made from its rows: short grids for terminals and notebooks, every
number for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from ed_interp.charts.theme import plural
from ed_interp.probes.emergence.rows import (
    AgreementRow,
    BehaviourRow,
    ComparisonRow,
    EmergenceRow,
    ProfileRow,
)
from ed_interp.probes.emergence.words import occurring
from ed_interp.tables import Table


def grid_table(rows: Sequence[EmergenceRow], caption: str, sample: str = "") -> Table:
    """E per block (down) and shot count (across), then the controls.

    Flags are letters behind the numbers, explained below; one that holds everywhere is only
    named, since a letter in every cell would tell nothing.
    """
    layers, shots = sorted({row.layer for row in rows}), sorted({row.shots for row in rows})
    cells = {(row.layer, row.shots): row for row in rows}
    everywhere = set.intersection(*(set(row.flags) for row in rows)) if rows else set()
    letters = dict(
        zip([name for name in occurring(rows) if name not in everywhere], _letters(), strict=False)
    )

    def cell(row: EmergenceRow | None) -> str:
        if row is None:
            return ""
        return _bits(row.emergence) + "".join(letters.get(flag, "") for flag in row.flags)

    lines = [
        [f"block {layer}", *(cell(cells.get((layer, count))) for count in shots)]
        for layer in layers
    ]
    last = {count: cells[layers[-1], count] for count in shots if (layers[-1], count) in cells}
    notes = ["limit: any noiseless network that keeps distinct inputs distinct; E can exceed it"]
    # Short names, so that nine shot counts fit into 80 columns.
    lines.append(["limit", *(_bits(last[c].limit) if c in last else "" for c in shots)])
    if any(row.untrained is not None for row in last.values()):
        twin = {count: row.untrained for count, row in last.items()}
        lines.append(["twin", *(_bits(twin.get(count)) for count in shots)])
        notes.append("twin: last block of the untrained twin, which has fresh weights")
    if letters:
        notes.append(", ".join(f"{letter}: {name}" for name, letter in letters.items()))
    if everywhere:
        notes.append(f"everywhere: {', '.join(f for f in occurring(rows) if f in everywhere)}")
    return Table(
        name="grid",
        caption=caption,
        heads=["shots", *map(str, shots)],
        rows=lines,
        notes=[*notes, *([sample] if sample else [])],
        page=False,
    )


def rows_table(rows: Sequence[EmergenceRow], unit: str) -> Table:
    """Every number of every row."""
    heads = ["block", "shots", "E", "interval", "macro", "micro", "limit", "entropy", "untrained"]
    return Table(
        name="emergence",
        caption=f"Emergence per block and shots, in {unit}: E = macro - micro, the limit of "
        "noiseless networks, the entropy of the sequences, and E of the untrained twin",
        heads=[*heads, "flags"],
        rows=[
            [
                str(row.layer),
                str(row.shots),
                f"{row.emergence:.3f}",
                _interval(row.ci_low, row.ci_high),
                f"{row.macro:.3f}",
                f"{row.micro:.3f}",
                f"{row.limit:.3f}",
                f"{row.macro_limit:.3f}",
                "not run" if row.untrained is None else f"{row.untrained:.3f}",
                ", ".join(row.flags),
            ]
            for row in sorted(rows, key=lambda row: (row.layer, row.shots))
        ],
        text=frozenset({9}),
        terminal=False,
    )


def answers_table(behaviour: Sequence[BehaviourRow]) -> Table:
    """Accuracy, log-probability and rank over shot counts."""
    rows = sorted(behaviour, key=lambda row: row.shots)
    return Table(
        name="answers",
        caption=f"Answers: accuracy (chance {rows[0].chance:.3f}), log-probability in nats, median "
        "rank of the first token",
        heads=["shots", *(str(row.shots) for row in rows)],
        rows=[
            ["accuracy", *(f"{row.accuracy:.3f}" for row in rows)],
            ["logprob", *(f"{row.logprob:.2f}" for row in rows)],
            ["rank", *(f"{row.rank:.0f}" for row in rows)],
        ],
        page=False,
    )


def behaviour_table(behaviour: Sequence[BehaviourRow]) -> Table:
    """Every number of the behaviour."""
    return Table(
        name="behaviour",
        caption="Behaviour per shots: accuracy of the whole answer, its mean log-probability in "
        "nats, median rank of its first token, and the gain in accuracy over the fewest shots, "
        "paired by prompt",
        heads=[
            "shots",
            "accuracy",
            "interval",
            "chance",
            "gain",
            "interval",
            "log-probability",
            "interval",
            "rank",
            "prompts",
        ],
        rows=[
            [
                str(row.shots),
                f"{row.accuracy:.3f}",
                _interval(row.ci_low, row.ci_high),
                f"{row.chance:.3f}",
                f"{row.gain:+.3f}",
                f"{row.gain_ci_low:+.3f} to {row.gain_ci_high:+.3f}",
                f"{row.logprob:.3f}",
                _interval(row.logprob_ci_low, row.logprob_ci_high),
                f"{row.rank:.1f}",
                f"{row.n:,}",
            ]
            for row in sorted(behaviour, key=lambda row: row.shots)
        ],
        terminal=False,
    )


def profile_table(profile: Sequence[ProfileRow], unit: str) -> Table:
    """E at every noise level."""
    return Table(
        name="profile",
        caption=f"Emergence over the noise scale, in {unit}",
        heads=["block", "shots", "beta", "noise", "E", "macro", "micro"],
        rows=[
            [
                str(row.layer),
                str(row.shots),
                f"{row.beta:.4f}",
                f"{row.noise:.4f}",
                f"{row.emergence:.3f}",
                f"{row.macro:.3f}",
                f"{row.micro:.3f}",
            ]
            for row in sorted(profile, key=lambda row: (row.layer, row.shots, row.noise))
        ],
        folded=True,
        terminal=False,
    )


def agreement_table(agreement: Sequence[AgreementRow]) -> Table:
    """Rank correlations of every two estimators."""

    def rank(value: float | None) -> str:
        return "none" if value is None else f"{value:.2f}"

    return Table(
        name="agreement",
        caption="Agreement of the estimators: rank correlation over blocks and shots",
        heads=["estimators", "quantity", "Spearman", "Kendall", "values"],
        rows=[
            [
                f"{row.first}, {row.second}",
                row.quantity,
                rank(row.spearman),
                rank(row.kendall),
                str(row.values),
            ]
            for row in agreement
        ],
        text=frozenset({0, 1}),
    )


def comparison_table(rows: Sequence[ComparisonRow], unit: str = "bits") -> Table:
    """Every number by every estimator."""
    return Table(
        name="comparison",
        caption=f"Emergence by every estimator, in {unit}",
        heads=["estimator", "block", "shots", "E", "interval", "macro", "micro", "flags"],
        rows=[
            [
                row.estimator,
                str(row.layer),
                str(row.shots),
                f"{row.emergence:.3f}",
                _interval(row.ci_low, row.ci_high),
                f"{row.macro:.3f}",
                f"{row.micro:.3f}",
                ", ".join(row.flags),
            ]
            for row in rows
        ],
        text=frozenset({0, 7}),
        folded=True,
        terminal=False,
    )


def sample_text(settings: Mapping[str, Any], shots: int) -> str:
    """How many prompts were drawn, and of how many where that is known."""
    drawn = settings.get("population", {})
    text = f"{drawn.get('prompts', '?')} prompts, seed {settings.get('seed', '?')}"
    if (size := drawn.get("exact_size")) is not None:
        text += f"; {size:,} different ones exist at {plural(shots, 'shot')}"
    return text


def _letters() -> list[str]:
    """Marks of flags: a, b, c, ..., then aa, ab, ... which no estimator has needed yet."""
    return [*ascii_lowercase, *(f"a{letter}" for letter in ascii_lowercase)]


def _bits(value: float | None) -> str:
    # Adding 0.0 turns the -0.0 of a rounded small negative number into 0.0.
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"
