"""Sentences about an emergence curve, made from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ed_interp.charts.theme import plural
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow


def headline(
    rows: Sequence[EmergenceRow], behaviour: Sequence[BehaviourRow], unit: str = "bits"
) -> str:
    """The main result in one sentence: the block with the highest E at the most shots."""
    if not rows:
        return "No row was measured."
    most = max(row.shots for row in rows)
    best = max((row for row in rows if row.shots == most), key=lambda row: row.emergence)
    first = min((row for row in rows if row.layer == best.layer), key=lambda row: row.shots)
    parts = [_emergence_clause(first, best, unit)]
    if best.untrained is not None:
        parts.append(f"the untrained twin has {best.untrained:.2f}")
    if behaviour:
        answers = sorted(behaviour, key=lambda row: row.shots)
        parts.append(_accuracy_clause(answers[0], answers[-1]))
    return "; ".join(parts) + "."


def _emergence_clause(first: EmergenceRow, last: EmergenceRow, unit: str) -> str:
    at_end = f"{last.emergence:.2f} {unit} at {plural(last.shots, 'shot')}"
    if first.shots == last.shots:
        return f"Block {last.layer}: E is {at_end}"
    # "Rises" or "falls" only where the intervals at both ends do not overlap.
    verb = _verb(last.ci_low > first.ci_high, last.ci_high < first.ci_low)
    at_start = f"{first.emergence:.2f} {unit} at {plural(first.shots, 'shot')}"
    return f"Block {last.layer}: E {verb} from {at_start} to {at_end}"


def _accuracy_clause(first: BehaviourRow, last: BehaviourRow) -> str:
    chance = f"(chance {last.chance:.2f})"
    if first.shots == last.shots:
        return f"accuracy is {last.accuracy:.2f} {chance}"
    # The gain is paired by prompt, so its own interval decides, not those of both accuracies.
    verb = _verb(last.gain_ci_low > 0, last.gain_ci_high < 0)
    return f"accuracy {verb} from {first.accuracy:.2f} to {last.accuracy:.2f} {chance}"


def _verb(rises: bool, falls: bool) -> str:
    return "rises" if rises else "falls" if falls else "does not clearly change:"


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
