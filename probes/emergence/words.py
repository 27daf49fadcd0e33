"""Sentences about an emergence curve, and its tables, made from its rows.

Short grids are for terminals and notebooks, every number is for the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from ed_interp.charts.theme import plural
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow, ProfileRow
from ed_interp.tables import Table, plain_table

HEADS = {"layer": "block", "emergence": "E"}

_LETTERS = [*ascii_lowercase, *(f"a{letter}" for letter in ascii_lowercase)]
"""Marks of flags; no curve has needed the 27th yet."""


def headline(
    rows: Sequence[EmergenceRow], behaviour: Sequence[BehaviourRow], unit: str = "bits"
) -> str:
    """The main result in one sentence: the block with the highest E at the most shots."""
    if not rows:
        return "No row was measured."
    most = max(row.shots for row in rows)
    best = max((row for row in rows if row.shots == most), key=lambda row: row.emergence)
    first = min((row for row in rows if row.layer == best.layer), key=lambda row: row.shots)
    rows = (first, best)
    ends = {row.shots: f"{row.emergence:.2f} {unit} at {plural(row.shots, 'shot')}" for row in rows}
    # "Rises" or "falls" only where the intervals at both ends do not overlap.
    change = _change(ends, best.ci_low > first.ci_high, best.ci_high < first.ci_low)
    parts = [f"Block {best.layer}: E {change}"]
    if best.untrained is not None:
        parts.append(f"the untrained twin has {best.untrained:.2f}")
    if behaviour:
        answers = sorted(behaviour, key=lambda row: row.shots)
        last = answers[-1]
        ends = {row.shots: f"{row.accuracy:.2f}" for row in (answers[0], last)}
        # The gain is paired by prompt, so its own interval decides, not those of both accuracies.
        change = _change(ends, last.gain_ci_low > 0, last.gain_ci_high < 0)
        parts.append(f"accuracy {change} (chance {last.chance:.2f})")
    return "; ".join(parts) + "."


def _change(ends: Mapping[int, str], rises: bool, falls: bool) -> str:
    """A verb and the values at the fewest and the most shots, which may be the same."""
    if len(ends) == 1:
        return f"is {''.join(ends.values())}"
    verb = "rises" if rises else "falls" if falls else "does not clearly change:"
    return f"{verb} from {' to '.join(ends.values())}"


def glossary(rows: Sequence[Any], meanings: Mapping[str, str]) -> dict[str, str]:
    """The flags that occur, what each means and how often it occurs."""
    return {
        name: f"{meanings.get(name, 'a flag of an estimator that is not installed')} "
        f"({sum(name in row.flags for row in rows):,} of {plural(len(rows), 'value')})"
        for name in occurring(rows)
    }


def occurring(rows: Sequence[Any]) -> list[str]:
    """The names of the flags that some row carries, in order of appearance."""
    return list(dict.fromkeys(flag for row in rows for flag in row.flags))


def spans(counts: Sequence[int]) -> str:
    """Counts in short: ``0-8``, or ``0, 1, 2, 4-6``."""
    # A count that follows the last one extends its run; any other begins a new run.
    runs: list[list[int]] = []
    for count in sorted(set(counts)):
        if runs and count == runs[-1][-1] + 1:
            runs[-1].append(count)
        else:
            runs.append([count])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def grid_table(rows: Sequence[EmergenceRow], caption: str, sample: str) -> Table:
    """E per block (down) and shot count (across), then the controls; flags are letters behind E."""
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
        keys=2,
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
    return plain_table("profile", caption, rows, heads=HEADS, formats=formats, number=".3f", keys=3)


def _bits(value: float | None) -> str:
    # Adding 0.0 turns the -0.0 of a rounded small negative number into 0.0.
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}"
