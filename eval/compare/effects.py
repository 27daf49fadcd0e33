"""Paired effects of two readings, with one correction for all of them.

Pairs are prompts, or whole texts (tokens of one text are not independent); prompts with the same
query are averaged and count as one. Accuracy is tested by McNemar's exact test if no query is
repeated, everything else by flipping signs; intervals are bootstrapped over the same pairs; Holm's
rule then covers every effect of a comparison. Cost: some matrix products of
``permutations x sample`` by ``sample x cells``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ed_interp.eval.compare.options import Inference
from ed_interp.eval.compare.questions import Questions, same_query
from ed_interp.eval.compare.reading import Reading
from ed_interp.eval.compare.rows import Effect, Forgetting
from ed_interp.eval.compare.texts import TextReading
from ed_interp.options import OptionError
from ed_interp.statistics import bootstrap_interval, holm, mcnemar, paired_difference

Array = NDArray[np.float64]
Pair = tuple[Reading, Reading]
"""Readings of the control and of the treated model, on the same prompts."""
NEUTRAL = "neutral text"


class Cell(NamedTuple):
    """What one effect is about, and its values in each sample."""

    family: str
    name: str
    metric: str
    shots: int | None
    control: Array
    treated: Array
    watched: bool = False
    binary: bool = False
    """Right or wrong in each sample."""


def effects_of(
    questions: Questions,
    target: Pair,
    watched: Pair | None,
    text: TextReading | None,
    rules: Inference,
) -> tuple[tuple[Effect, ...], Forgetting | None]:
    """Every effect of two sets of readings, corrected together."""
    # Apart from the running of models, so that its error rates can be measured on readings that
    # are known not to differ.
    enough = enough_permutations(_count(questions, target, watched, text), rules)
    rules = dataclasses.replace(rules, permutations=enough)
    clusters = same_query(questions.target)
    effects = behaviour_effects(questions.task, target, rules, clusters=clusters)
    # A task of one relation would be tested twice.
    if len(set(questions.relations)) > 1:
        names = questions.relations
        effects += relation_effects(names, target, rules, watched=False, clusters=clusters)
    if watched is not None and questions.watched is not None:
        names, own = questions.watched_relations, same_query(questions.watched)
        effects += relation_effects(names, watched, rules, watched=True, clusters=own)
    forgetting: Forgetting | None = None
    if text is not None:
        of_text, forgetting = forgetting_effects(text, rules)
        effects += of_text
    effects += emergence_effects(target, rules, clusters=clusters)
    # All families together: a side effect is looked for everywhere, and paid for everywhere.
    return corrected(effects), forgetting


def behaviour_effects(
    task: str, readings: Pair, rules: Inference, *, clusters: Sequence[int] | None = None
) -> list[Effect]:
    """Accuracy, log-probability and reciprocal rank per shot count; [] without answers.

    Prompts of one number in ``clusters`` are not independent samples and count as one.
    """
    control, treated = (_scores(reading) for reading in readings)
    cells = [
        Cell("behaviour", task, metric, shots, one, two, binary=metric == "accuracy")
        for metric, values in treated.items()
        for shots, one, two in zip(readings[0].shots, control[metric].T, values.T, strict=True)
    ]
    return paired_effects(cells, rules, clusters=clusters)


def relation_effects(
    relations: Sequence[str],
    readings: Pair,
    rules: Inference,
    *,
    watched: bool,
    clusters: Sequence[int] | None = None,
) -> list[Effect]:
    """Per relation: log-probability over all shot counts, accuracy at the most shots."""
    control, treated = (_scores(reading) for reading in readings)
    counts, effects = readings[0].shots, []
    single = counts[0] if len(counts) == 1 else None
    for name in dict.fromkeys(relations) if control else ():
        rows = [row for row, relation in enumerate(relations) if relation == name]
        one, two = (side["logprob"][rows].mean(1) for side in (control, treated))
        cells = [Cell("relation", name, "logprob", single, one, two, watched)]
        one, two = (side["accuracy"][rows, -1] for side in (control, treated))
        cells += [Cell("relation", name, "accuracy", counts[-1], one, two, watched, True)]
        own = None if clusters is None else [clusters[row] for row in rows]
        effects += paired_effects(cells, rules, clusters=own)
    return effects


def emergence_effects(
    readings: Pair, rules: Inference, *, clusters: Sequence[int] | None = None
) -> list[Effect]:
    """E per block and shot count, paired by prompt; [] if it was not measured."""
    first, second = (reading.emergence() for reading in readings)
    if first is None or second is None:
        return []
    cells = [
        Cell(
            "emergence",
            f"block {block}",
            "emergence",
            shots,
            first[:, block, at],
            second[:, block, at],
        )
        for block in range(first.shape[1])
        for at, shots in enumerate(readings[0].shots)
    ]
    effects = paired_effects(cells, rules, clusters=clusters)
    return [_between_prompts(effect, rules.level) for effect in effects]


def _between_prompts(effect: Effect, level: float) -> Effect:
    """The effect with a standard error that allows for what prompts do to each other's terms."""
    # Information is about pairs: when a prompt's state moves, its neighbours' terms move with it.
    # The mean is a statistic of order two, whose standard error is up to twice that of
    # independent terms (Hoeffding 1948). That bound is used for the interval and for the test.
    middle, p_value = effect.difference, effect.p_value
    low, high = middle - effect.ci_low, effect.ci_high - middle
    error = (low + high) / (2 * stats.norm.ppf((1 + level) / 2))
    if error > 0:
        p_value = max(p_value, float(2 * stats.norm.sf(abs(middle) / (2 * error))))
    ends: dict[str, Any] = {"ci_low": middle - 2 * low, "ci_high": middle + 2 * high}
    return dataclasses.replace(effect, **ends, p_value=p_value, p_holm=p_value, test="order two")


def forgetting_effects(reading: TextReading, rules: Inference) -> tuple[list[Effect], Forgetting]:
    """Cross-entropy on neutral text, tested over texts; and all numbers about forgetting."""
    tokens = reading.tokens
    one, two = reading.control_nll / tokens, reading.treated_nll / tokens
    cell = Cell("forgetting", NEUTRAL, "cross_entropy", None, one, two)
    low, high = bootstrap_interval(reading.divergence / tokens, weights=tokens, **rules.resampling)
    total = tokens.sum()
    return paired_effects([cell], rules, weights=tokens), Forgetting(
        control_cross_entropy=float(reading.control_nll.sum() / total),
        treated_cross_entropy=float(reading.treated_nll.sum() / total),
        divergence_mean=float(reading.divergence.sum() / total),
        divergence_ci_low=float(low),
        divergence_ci_high=float(high),
        divergence_p99=float(np.percentile(reading.by_token, 99)),
        texts=len(tokens),
        tokens=int(total),
        contexts=reading.contexts,
    )


def corrected(effects: Sequence[Effect]) -> tuple[Effect, ...]:
    """The effects with Holm's correction over all of them."""
    adjusted = holm([effect.p_value for effect in effects])
    return tuple(
        dataclasses.replace(effect, p_holm=float(value))
        for effect, value in zip(effects, adjusted, strict=True)
    )


def enough_permutations(effects: int, rules: Inference) -> int:
    """Number of sign patterns at which an effect can survive the correction at all."""
    # The smallest p-value of P random patterns is 1 / (P + 1). Corrected for all effects it is to
    # be a tenth of the level, so that a clear effect is not lost to the number of patterns.
    needed = int(np.ceil(10 * effects / (1 - rules.level)))
    return min(max(rules.permutations, needed), 10 * max(rules.permutations, 9999))


def check_power(questions: Questions, rules: Inference, prompts: int) -> None:
    """Refuse so few prompts per watched relation that no side effect could survive the correction.

    Raises:
        InvalidInputError: ``prompts`` are too few.
    """
    if questions.watched is None:
        return
    cells = 3 * len(questions.target.shots) + 2 * len(set(questions.watched_relations)) + 1
    # n prompts have 2^n sign patterns, of which two are as extreme as the observed one: p cannot
    # go below 2 / 2^n, which times the number of effects must stay below the level.
    needed = math.ceil(1 + math.log2(2 * cells / (1 - rules.level)))
    if prompts < needed:
        raise OptionError(
            "watch_prompts",
            f"must be {needed} or greater, got {prompts}: with {cells} or more "
            "effects to correct for, none in a relation could be detected; or watch fewer "
            "relations (watch=None for none)",
        )


def _count(
    questions: Questions, target: Pair, watched: Pair | None, text: TextReading | None
) -> int:
    """An upper bound of the number of effects."""
    shots, first = len(questions.target.shots), target[0]
    blocks = first.terms[first.shots[0]].macro.shape[0] if first.terms else 0
    names = {*questions.relations, *(questions.watched_relations if watched else ())}
    return 3 * shots + 2 * len(names) + (text is not None) + blocks * shots


def _scores(reading: Reading) -> dict[str, Array]:
    if reading.correct is None or reading.logprob is None or reading.rank is None:
        return {}
    return {
        "accuracy": reading.correct,
        "logprob": reading.logprob,
        "reciprocal_rank": 1.0 / reading.rank,
    }


def paired_effects(
    cells: Sequence[Cell],
    rules: Inference,
    *,
    weights: Array | None = None,
    clusters: Sequence[int] | None = None,
) -> list[Effect]:
    """An effect per cell; all have the same pairs, so one set of resamples serves them."""
    if not cells:
        return []
    control = np.stack([cell.control for cell in cells], axis=1)
    treated = np.stack([cell.treated for cell in cells], axis=1)
    if clusters is not None and len(set(clusters)) < len(clusters):
        # The mean of each cluster, with its size as the weight.
        _, row_of, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
        sums = np.zeros((2, len(sizes), len(cells)))
        # `sums[0, row_of] += control` would keep only one prompt of each cluster.
        np.add.at(sums[0], row_of, control)
        np.add.at(sums[1], row_of, treated)
        control, treated = sums / sizes[:, None]
        weights = sizes.astype(np.float64)
    change = paired_difference(
        treated, control, weights=weights, permutations=rules.permutations, **rules.resampling
    )
    means = [np.average(side, axis=0, weights=weights) for side in (control, treated)]
    # One line per cell, in the order of the fields of an effect.
    numbers = np.stack([*means, change.difference, change.low, change.high], axis=1).tolist()
    effects = []
    for place, cell in enumerate(cells):
        p_value, test = float(change.p_value[place]), "sign-flip"
        # McNemar's test takes every prompt for an independent sample, so not for clusters.
        if cell.binary and weights is None:
            p_value = mcnemar(treated[:, place] > 0.5, control[:, place] > 0.5)
            test = "McNemar"
        # The second p-value is for as long as all effects are not known and `corrected` together.
        tested = (p_value, p_value, test, len(control), cell.watched)
        fields: Any = (*cell[:4], *numbers[place], *tested)
        effects.append(Effect(*fields))
    return effects
