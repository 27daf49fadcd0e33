"""A study in words and tables, made from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ed_interp.eval.study.rows import ArmRow, StudiedArm, TrialRow
from ed_interp.eval.study.summary import LEVEL
from ed_interp.tables import Table, plain_table

_COLUMNS = {
    "accuracy": ("accuracy", 2, True),
    "logprob": ("log-prob", 2, True),
    "forgetting": ("forgetting", 3, True),
    "harmed": ("worse", 1, False),
    "decode_ratio": ("time", 2, False),
}
"""Metric -> its heading, digits, and whether the interval is shown."""
_NAMES = {
    "logprob": "log-probability (nats)",
    "forgetting": "forgetting (nats per token)",
    "harmed": "number of relations and texts made worse",
}

HOW = (
    "Every arm is trained on the same examples with the same steps and seeds, at the best learning "
    "rate of its own sweep (by the loss on held-out training examples), and compared with the "
    "frozen model on inputs that were not trained on. Means over seeds have Student's interval; "
    "each control is paired by seed with the arm under test and compared by the paired t-test, "
    "corrected by Holm's rule over all arms and metrics."
)
GLOSSARY = {
    "forgetting": "rise of the cross-entropy on neutral text, nats per token",
    "worse": "number of relations and texts that became worse at the corrected level",
    "time": "time of decoding relative to the frozen model",
}


def headline(tested: str, trials: Sequence[TrialRow], summary: Sequence[ArmRow]) -> str:
    """What the arm under test did, which differences from the controls hold, and side effects."""
    count, held = sum(row.p_holm is not None for row in summary), _held(summary)
    parts = [_effect(tested, trials, summary)]
    if count:
        parts.append(
            f"{len(held)} of {count} differences between {tested} and the other arms hold at "
            f"the {1 - LEVEL:.0%} level (paired by seed, Holm)."
        )
    # The clearest few; the table has all.
    parts += [
        f"{tested} minus {row.arm}: {_NAMES.get(row.metric, row.metric)} {row.difference:+.3f} "
        f"({row.difference_low:+.3f} to {row.difference_high:+.3f})."
        for row in [row for row in held if row.arm != "frozen"][:3]
    ]
    if harmed := sorted({name for row in trials if row.arm == tested for name in row.harmed}):
        more = f" and {len(harmed) - 6} more" if len(harmed) > 6 else ""
        parts.append(f"Made worse by {tested}, at any seed: {', '.join(harmed[:6])}{more}.")
    return " ".join(filter(None, parts))


def _effect(tested: str, trials: Sequence[TrialRow], summary: Sequence[ArmRow]) -> str:
    """The wanted effect and forgetting, with intervals over seeds or p-values over prompts."""
    tests = next((row.p_holm for row in trials if row.arm == tested and row.p_holm), ())
    parts = []
    for row in summary:
        metric = row.metric.removesuffix("_change")
        if row.arm == tested and row.metric in ("accuracy_change", "logprob_change", "forgetting"):
            parts.append(f"{_NAMES.get(metric, metric)} {row.mean:+.3f}")
            if row.ci_low is not None:
                parts[-1] += f" ({row.ci_low:+.3f} to {row.ci_high:+.3f})"
            elif metric == "logprob" and tests:
                # One seed has no interval; its tests are one per shot count.
                ends = dict.fromkeys(f"{p:.2g}" for p in (min(tests), max(tests)))
                parts[-1] += f" (corrected p {' to '.join(ends)})"
    return f"{tested} minus frozen, means over shots: {', '.join(parts)}." if parts else ""


def cautions(failures: Sequence[TrialRow]) -> str:
    """Trials that failed, or were started more than once."""
    parts = []
    for row in failures:
        state = f"done at attempt {row.attempt}" if row.status == "done" else "failed"
        reason = f" ({row.error})" if row.error else ""
        parts.append(f"{row.arm}, rate {row.rate:g}, seed {row.seed}: {state}{reason}.")
    return " ".join(parts)


def _held(summary: Sequence[ArmRow]) -> list[ArmRow]:
    rows = [row for row in summary if row.p_holm is not None and row.p_holm < 1 - LEVEL]
    return sorted(rows, key=lambda row: row.p_holm or 0.0)


def tables(
    tested: str,
    arms: Sequence[StudiedArm],
    best: Mapping[str, float],
    trials: Sequence[TrialRow],
    summary: Sequence[ArmRow],
) -> Iterator[Table]:
    """Arms with intervals over seeds, what holds between them, and every trial."""
    rows = {(row.arm, row.metric): row for row in summary}
    yield Table(
        name="arms",
        caption="Arms, means over shots and seeds",
        heads=("arm", "rate", "parameters", *(head for head, _, _ in _COLUMNS.values())),
        rows=[
            (arm.name, f"{best[arm.name]:g}" if arm.name in best else "",
             "" if arm.parameters is None else f"{arm.parameters:,}",
             *(_cell(rows.get((arm.name, metric))) for metric in _COLUMNS))
            for arm in arms
        ],
        notes=["± half of Student's interval over seeds"] * any(row.ci_low for row in summary),
    )  # fmt: skip
    minus = f"difference: {tested} minus the arm, paired by seed"
    held = [
        (f"{row.metric}, minus {row.arm}", f"{row.difference:+.3f}",
         f"{row.difference_low:+.3f} to {row.difference_high:+.3f}", f"{row.p_holm:.2g}")
        for row in _held(summary)
    ]  # fmt: skip
    if held:
        heads = (tested, "difference", "interval", "corrected p")
        yield Table(name="held", caption="Differences that hold", heads=heads, rows=held)
    yield plain_table("summary", "Every arm and metric", summary, minus, keys=2)
    by_shots = "accuracy and log-probability (nats) by shot count"
    yield plain_table("trials", "Trials", trials, by_shots, keys=4)


def _cell(row: ArmRow | None) -> str:
    if row is None:
        return ""
    _, digits, interval = _COLUMNS[row.metric]
    if not interval or row.ci_low is None or row.ci_high is None:
        return f"{row.mean:.{digits}f}"
    return f"{row.mean:.{digits}f}±{(row.ci_high - row.ci_low) / 2:.{digits}f}"
