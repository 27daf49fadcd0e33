"""Tables of an emergence curve, made from its rows.

Short grids are for terminals and notebooks, every number is for the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from ed_interp.charts.theme import plural
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow, ProfileRow
from ed_interp.probes.emergence.words import occurring
from ed_interp.tables import Table, plain_table


def grid_table(rows: Sequence[EmergenceRow], caption: str, sample: str) -> Table:
    """E per block (down) and shot count (across), then the controls.

    Flags are letters behind the numbers, explained below.
    """
    layers, shots = sorted({row.layer for row in rows}), sorted({row.shots for row in rows})
    cells = {(row.layer, row.shots): row for row in rows}
    # A letter in every cell would say nothing, so a flag that holds everywhere is only named.
    everywhere = set.intersection(*(set(row.flags) for row in rows)) if rows else set()
    marked = [name for name in occurring(rows) if name not in everywhere]
    letters = dict(zip(marked, _LETTERS, strict=False))

    def line(name: str, layer: int, text: Callable[[EmergenceRow], str]) -> list[str]:
        places = [(layer, count) for count in shots]
        return [name, *(text(cells[place]) if place in cells else "" for place in places)]

    def cell(row: EmergenceRow) -> str:
        return _bits(row.emergence) + "".join(letters.get(flag, "") for flag in row.flags)

    lines = [line(f"block {layer}", layer, cell) for layer in layers]
    notes = ["limit: any noiseless network that keeps distinct inputs distinct; E can exceed it"]
    last = layers[-1] if layers else 0
    # Short names, so that nine shot counts fit into 80 columns.
    lines.append(line("limit", last, lambda row: _bits(row.limit)))
    if any(row.untrained is not None for row in rows):
        lines.append(line("twin", last, lambda row: _bits(row.untrained)))
        notes.append("twin: last block of the untrained twin, which has fresh weights")
    if letters:
        notes.append(", ".join(f"{letter}: {name}" for name, letter in letters.items()))
    if everywhere:
        notes.append(f"everywhere: {', '.join(f for f in occurring(rows) if f in everywhere)}")
    heads = ["shots", *map(str, shots)]
    return Table(
        name="grid", caption=caption, heads=heads, rows=lines, notes=[*notes, sample], page=False
    )


def rows_table(rows: Sequence[EmergenceRow], unit: str) -> Table:
    """Every number of every row."""
    return plain_table(
        "emergence",
        f"Emergence per block and shots, in {unit}: E = macro - micro, the limit of noiseless "
        "networks, the entropy of the sequences, and E of the untrained twin",
        sorted(rows, key=lambda row: (row.layer, row.shots)),
        heads={**HEADS, "macro_limit": "entropy"},
        number=".3f",
        folded=False,
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
    return plain_table(
        "behaviour",
        "Behaviour per shots: accuracy of the whole answer, its mean log-probability in nats, "
        "median rank of its first token, and the gain in accuracy over the fewest shots, paired "
        "by prompt",
        sorted(behaviour, key=lambda row: row.shots),
        heads={"logprob": "log-probability", "n": "prompts"},
        formats={"rank": ".1f", **dict.fromkeys(("gain", "gain_ci_low", "gain_ci_high"), "+.3f")},
        number=".3f",
        folded=False,
    )


def profile_table(profile: Sequence[ProfileRow], unit: str) -> Table:
    """E at every noise level."""
    rows = sorted(profile, key=lambda row: (row.layer, row.shots, row.noise))
    caption, formats = f"Emergence over the noise scale, in {unit}", {"beta": ".4f", "noise": ".4f"}
    return plain_table("profile", caption, rows, heads=HEADS, formats=formats, number=".3f")


def sample_text(settings: Mapping[str, Any], shots: int) -> str:
    """How many prompts were drawn, and of how many where that is known."""
    drawn = settings.get("population", {})
    text = f"{drawn.get('prompts', '?')} prompts, seed {settings.get('seed', '?')}"
    if (size := drawn.get("exact_size")) is not None:
        text += f"; {size:,} different ones exist at {plural(shots, 'shot')}"
    return text


HEADS = {"layer": "block", "emergence": "E"}

_LETTERS = [*ascii_lowercase, *(f"a{letter}" for letter in ascii_lowercase)]
"""Marks of flags; no curve has needed the 27th yet."""


def _bits(value: float | None) -> str:
    # Adding 0.0 turns the -0.0 of a rounded small negative number into 0.0.
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}"
