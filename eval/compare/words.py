"""A comparison in words and tables.

Every sentence is made from the numbers; nothing is said that the corrected tests do not support.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ed_interp.eval.compare.rows import Adaptivity, Cost, Effect, Forgetting, Identity
from ed_interp.tables import Table, plain_table

_METRICS = {
    "accuracy": "accuracy",
    "logprob": "log-probability",
    "reciprocal_rank": "reciprocal rank",
    "cross_entropy": "cross-entropy",
    "emergence": "emergence",
}
_UNITS = "log-probability in nats, cross-entropy in nats per token, emergence in bits"

HOW = (
    "Both models get the same prompts and texts, and every difference is paired: by prompt (equal "
    "queries are averaged and count as one) or by text. Intervals are bootstrapped over the pairs. "
    "Accuracy is tested by McNemar's exact test if no query is repeated, emergence by a normal "
    "test with twice the standard error, everything else by flipping signs; p-values are corrected "
    "by Holm's rule over all effects. A watched relation is outside the task: a change there is a "
    "side effect."
)


def pick(
    effects: Sequence[Effect], family: str, metric: str, name: str | None = None
) -> tuple[Effect, ...]:
    """The effects of one family and metric, and of one name if given."""
    return tuple(
        effect
        for effect in effects
        if (effect.family, effect.metric) == (family, metric) and name in (None, effect.name)
    )


def significant(effects: Sequence[Effect], alpha: float) -> tuple[Effect, ...]:
    """Effects that hold at the corrected level, strongest evidence first."""
    kept = [effect for effect in effects if effect.verdict(alpha) != "unchanged"]
    return tuple(sorted(kept, key=lambda effect: (effect.p_holm, -abs(effect.difference))))


def harmed(effects: Sequence[Effect], alpha: float) -> tuple[Effect, ...]:
    """What became worse: relations by name, the task itself, and neutral text."""
    return tuple(each for each in significant(effects, alpha) if each.verdict(alpha) == "worse")


def headline(
    task: str, effects: Sequence[Effect], forgetting: Forgetting | None, alpha: float
) -> str:
    """What happened to the task, then to everything else."""
    parts = [_task_sentence(task, effects, alpha)]
    # Strongest evidence first, so the first effect of a relation is the one to name.
    worst: dict[str, Effect] = {}
    for effect in harmed(effects, alpha):
        if effect.family == "relation":
            worst.setdefault(effect.name, effect)
    if worst:
        names = [f"{name} ({each.metric} {each.difference:+.2f})" for name, each in worst.items()]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        parts.append(f"Side effects: worse at {', '.join(names[:4])}{more}.")
    elif any(effect.family == "relation" for effect in effects):
        parts.append("No relation became worse at the corrected level.")
    if forgetting is not None:
        (effect,) = pick(effects, "forgetting", "cross_entropy")
        verdicts = {"worse": "forgotten", "better": "improved"}
        parts.append(
            f"Neutral text is {verdicts.get(effect.verdict(alpha), 'unchanged')}: cross-entropy "
            f"{forgetting.control_cross_entropy:.3f} to {forgetting.treated_cross_entropy:.3f} "
            f"nats per token, divergence {forgetting.divergence_mean:.3g} (99th percentile "
            f"{forgetting.divergence_p99:.3g})."
        )
    return " ".join(parts)


def _task_sentence(task: str, effects: Sequence[Effect], alpha: float) -> str:
    """The largest change of accuracy that holds, else of the log-probability, else none."""
    accuracy = pick(effects, "behaviour", "accuracy")
    if not accuracy:
        return f"{task} has no answers to score."
    if best := largest(significant(accuracy, alpha)):
        return (
            f"Accuracy on {task} {at_shots(best)} went from {best.control:.2f} to "
            f"{best.treated:.2f} ({best.difference:+.2f}, {best.ci_low:+.2f} to "
            f"{best.ci_high:+.2f})."
        )
    if best := largest(significant(pick(effects, "behaviour", "logprob"), alpha)):
        return (
            f"Accuracy on {task} is unchanged; the answers' log-probability changed by up to "
            f"{best.difference:+.2f} nats ({at_shots(best)})."
        )
    return f"Accuracy and log-probability on {task} are unchanged."


def largest(effects: Sequence[Effect]) -> Effect | None:
    """The effect of the largest difference, by size."""
    return max(effects, key=lambda effect: abs(effect.difference), default=None)


def at_shots(effect: Effect) -> str:
    """``at 4 shots``, or nothing if the metric is over all of them."""
    if effect.shots is None:
        return ""
    return f"at {effect.shots} shot{'' if effect.shots == 1 else 's'}"


def cautions(identity: Identity | None) -> str:
    """Reasons to doubt that a difference comes from training."""
    # Only with require_identity=False: otherwise the comparison was refused.
    if identity is None or not identity.checked:
        return ""
    parts = []
    if identity.neutral is False:
        parts.append(
            "The adapter is not neutral at the start: freshly initialised, it moves the logits by "
            f"up to {identity.largest_difference or 0:.3g}, so its effect is not that of training."
        )
    if identity.base_is_control is False:
        parts.append("With its adapter off, the treated model differs from the control.")
    return " ".join(parts)


def summary(
    effects: Sequence[Effect], forgetting: Forgetting | None, cost: Cost | None
) -> dict[str, Any]:
    """The main numbers as one flat row: the task at the fewest and most shots, text, cost."""
    row: dict[str, Any] = {}
    for metric in ("accuracy", "logprob"):
        rows = pick(effects, "behaviour", metric)
        for end, effect in zip(("fewest", "most"), (*rows[:1], *rows[-1:]), strict=False):
            row[f"{metric}_{end}_shots"] = effect.treated
            row[f"{metric}_{end}_shots_change"] = effect.difference
            row[f"{metric}_{end}_shots_p"] = effect.p_holm
    if forgetting is not None:
        row |= {"forgetting": forgetting.increase, "divergence": forgetting.divergence_mean}
        row["divergence_p99"] = forgetting.divergence_p99
    if change := largest(pick(effects, "emergence", "emergence")):
        row |= {"emergence_change": change.difference, "emergence_p": change.p_holm}
        row["emergence_where"] = f"{change.name}, {change.shots} shots"
    if cost is not None:
        row |= {"adapter_parameters": cost.adapter_parameters, "decode_ratio": cost.decode_ratio}
    return row


# Tables -------------------------------------------------------------------------------------


def effect_tables(effects: Sequence[Effect], alpha: float) -> Iterator[Table]:
    """The effects that hold, then every effect by family."""
    held = significant(effects, alpha)
    count = f"{len(held)} of {len(effects)} effects hold at the corrected level {alpha:.2g}"
    yield effect_table("significant", "Effects that hold after correction", held, alpha, count)
    captions = {
        "behaviour": "The task, per shot count",
        "relation": "Relations, those of the task and the watched ones",
        "forgetting": "Neutral text",
        "emergence": "Emergence per block",
    }
    for family, caption in captions.items():
        if rows := [effect for effect in effects if effect.family == family]:
            table = effect_table(family, caption, rows, alpha)
            yield dataclasses.replace(table, terminal=False, folded=True)


def effect_table(
    name: str, caption: str, effects: Sequence[Effect], alpha: float, *notes: str
) -> Table:
    """Effects with their intervals, corrected p-values and verdicts."""
    heads = ("effect", "metric", "shots", "control", "treated", "difference", "interval",
             "corrected p", "verdict", "test", "n")  # fmt: skip
    rows = [
        (e.name, _METRICS.get(e.metric, e.metric), "all" if e.shots is None else str(e.shots),
         f"{e.control:.3f}", f"{e.treated:.3f}", f"{e.difference:+.3f}",
         f"{e.ci_low:+.3f} to {e.ci_high:+.3f}", f"{e.p_holm:.2g}", e.verdict(alpha), e.test,
         str(e.n))
        for e in effects
    ]  # fmt: skip
    return Table(name=name, caption=caption, heads=heads, rows=rows, text=frozenset({1, 8, 9}),
                 keys=3, notes=(*notes, _UNITS))  # fmt: skip


def session_tables(adaptivity: Adaptivity) -> Iterator[Table]:
    """Turn by turn, and what is left after a pause."""
    neutral = "leaves" if adaptivity.reset_is_neutral else "does not leave"
    reset = f"A reset {neutral} the model as it was before the first turn, bit for bit."
    turns = "A session with feedback, after each turn"
    yield plain_table("session", turns, adaptivity.turns, reset)
    expected, measured = adaptivity.half_life_expected, adaptivity.half_life
    half = f"half-life {'not reached' if measured is None else f'{measured:.3g}'}"
    if expected is not None:
        half += f", expected {expected:.3g} (tau ln 2)"
    if adaptivity.decay:
        left = "What is left of the experience after a pause"
        yield plain_table("decay", left, adaptivity.decay, half)
