"""A comparison in words and numbers for people: the main sentence, one row, a page for notebooks.

Every sentence is made from the numbers; nothing is said that the corrected tests do not hold.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from ed_interp.eval.compare.result import Comparison, Effect

_NAMES = {
    "accuracy": "accuracy",
    "logprob": "log-probability (nats)",
    "reciprocal_rank": "reciprocal rank",
    "cross_entropy": "cross-entropy (nats per token)",
    "emergence": "emergence (bits)",
}


def headline(comparison: Comparison) -> str:
    """What happened to the task, then to everything else."""
    parts = [_task_sentence(comparison)]
    harmed = comparison.side_effects()
    others = [effect for effect in harmed if effect.family == "relation"]
    if others:
        worst = {effect.name: effect for effect in reversed(others)}
        named = [
            f"{name} ({effect.metric} {effect.difference:+.2f})" for name, effect in worst.items()
        ]
        more = f" and {len(named) - 4} more" if len(named) > 4 else ""
        parts.append(f"Side effects: worse at {', '.join(named[:4])}{more}.")
    elif any(effect.family == "relation" for effect in comparison.effects):
        parts.append("No relation became worse at the corrected level.")
    text = comparison.forgetting
    if text is not None:
        effect = comparison.effect("forgetting", "cross_entropy")[0]
        verdict = effect.verdict(comparison.alpha)
        told = {"worse": "forgotten", "better": "improved"}.get(verdict, "unchanged")
        parts.append(
            f"Neutral text is {told}: cross-entropy {text.control_cross_entropy:.3f} to "
            f"{text.treated_cross_entropy:.3f} nats per token, divergence "
            f"{text.divergence_mean:.3g} (99th percentile {text.divergence_p99:.3g})."
        )
    return " ".join(parts)


def row(comparison: Comparison) -> dict[str, Any]:
    """One flat row: who, the task at the fewest and most shots, side effects, text, cost."""
    accuracy = comparison.effect("behaviour", "accuracy")
    logprob = comparison.effect("behaviour", "logprob")
    found: dict[str, Any] = {
        "control": comparison.control.get("name"),
        "treated": comparison.treated.get("name"),
        "task": comparison.task,
    }
    for label, effects in (("accuracy", accuracy), ("logprob", logprob)):
        for place, end in ((0, "fewest"), (-1, "most")):
            if effects:
                effect = effects[place]
                found[f"{label}_{end}_shots"] = effect.treated
                found[f"{label}_{end}_shots_change"] = effect.difference
                found[f"{label}_{end}_shots_p"] = effect.p_holm
    found["harmed"] = list(comparison.harmed())
    if comparison.forgetting is not None:
        text = comparison.forgetting
        found |= {"forgetting": text.increase, "divergence": text.divergence_mean}
        found["divergence_p99"] = text.divergence_p99
    emergence = comparison.effect("emergence", "emergence")
    if emergence:
        largest = max(emergence, key=lambda effect: abs(effect.difference))
        found["emergence_change"] = largest.difference
        found["emergence_where"] = f"{largest.name}, {largest.shots} shots"
        found["emergence_p"] = largest.p_holm
    if comparison.cost is not None:
        found["adapter_parameters"] = comparison.cost.adapter_parameters
        found["decode_ratio"] = comparison.cost.decode_ratio
    return found


def html_summary(comparison: Comparison) -> str:
    """A short HTML form for notebooks: the sentence and the effects that hold. No script."""
    found = comparison.found()
    title = f"{comparison.treated.get('name')} against {comparison.control.get('name')}"
    lines = [
        '<div style="max-width: 60rem">',
        f"<p style='font-size: 1.05em; margin: .3em 0'><strong>{html.escape(title)} · "
        f"{html.escape(comparison.task)}</strong></p>",
        f"<p style='margin: .3em 0'>{html.escape(comparison.headline())}</p>",
    ]
    if found:
        lines.append(_table(found, comparison.alpha))
    lines.append(
        f"<p style='margin: .3em 0; font-size: .9em'>{len(found)} of {len(comparison.effects)} "
        "effects hold after Holm's correction. All of them: <code>comparison.to_frame()</code>; "
        "picture: <code>comparison.plot()</code>.</p></div>"
    )
    return "\n".join(lines)


def metric_name(metric: str) -> str:
    """A metric for people, with its unit."""
    return _NAMES.get(metric, metric)


def at_shots(effect: Effect) -> str:
    """``at 4 shots``, or nothing where the metric is over all of them."""
    if effect.shots is None:
        return ""
    return f"at {effect.shots} shot{'' if effect.shots == 1 else 's'}"


def _task_sentence(comparison: Comparison) -> str:
    """The largest change of accuracy that holds, else that none does."""
    effects = comparison.effect("behaviour", "accuracy")
    if not effects:
        return f"{comparison.task} has no answers to score."
    held = [effect for effect in effects if effect.verdict(comparison.alpha) != "unchanged"]
    if not held:
        likelier = [
            effect
            for effect in comparison.effect("behaviour", "logprob")
            if effect.verdict(comparison.alpha) != "unchanged"
        ]
        if not likelier:
            return f"Accuracy and log-probability on {comparison.task} are unchanged."
        best = max(likelier, key=lambda effect: abs(effect.difference))
        return (
            f"Accuracy on {comparison.task} is unchanged; the answers' log-probability changed by "
            f"up to {best.difference:+.2f} nats ({at_shots(best)})."
        )
    best = max(held, key=lambda effect: abs(effect.difference))
    return (
        f"Accuracy on {comparison.task} {at_shots(best)} went from {best.control:.2f} to "
        f"{best.treated:.2f} ({best.difference:+.2f}, {best.ci_low:+.2f} to {best.ci_high:+.2f})."
    )


def _table(effects: Sequence[Effect], alpha: float) -> str:
    heads = ("effect", "shots", "control", "treated", "difference", "corrected p", "")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    lines = []
    for effect in effects[:20]:
        cells = (
            f"{effect.name}: {metric_name(effect.metric)}",
            "all" if effect.shots is None else str(effect.shots),
            f"{effect.control:.3f}",
            f"{effect.treated:.3f}",
            f"{effect.difference:+.3f} [{effect.ci_low:+.3f}, {effect.ci_high:+.3f}]",
            f"{effect.p_holm:.2g}",
            effect.verdict(alpha),
        )
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return (
        "<table class='dataframe' style='font-variant-numeric: tabular-nums'>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
