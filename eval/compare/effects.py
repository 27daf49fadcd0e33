"""Paired effects of two readings, with one correction for all of them.

Pairs are prompts, or whole texts (tokens of one text are not independent); prompts that ask the
same query are averaged and count as one. Right or wrong is tested by McNemar's exact test where no
query is repeated, everything else by flipping signs; intervals are bootstrapped over the same
pairs; Holm's rule then covers every effect of a comparison. Cost: some matrix products of
``permutations x sample`` by ``sample x cells``.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.reading import Reading
from ed_interp.eval.compare.result import Effect, Forgetting
from ed_interp.eval.compare.texts import TextReading
from ed_interp.statistics import (
    PairedDifference,
    bootstrap_interval,
    holm,
    mcnemar,
    paired_difference,
)

Array = NDArray[np.float64]
NEUTRAL = "neutral text"


@dataclasses.dataclass(frozen=True)
class Inference:
    """How effects are tested."""

    level: float = 0.95
    resamples: int = 1000
    permutations: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InvalidInputError(f"level={self.level}: a number between 0 and 1 is expected")
        if self.resamples < 1 or self.permutations < 1:
            raise InvalidInputError(
                f"resamples={self.resamples}, permutations={self.permutations}: at least 1 of each"
            )


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one effect is about."""

    family: str
    name: str
    metric: str
    shots: int | None = None
    watched: bool = False


def behaviour_effects(
    task: str,
    control: Reading,
    treated: Reading,
    rules: Inference,
    *,
    clusters: Sequence[int] | None = None,
) -> list[Effect]:
    """Accuracy, log-probability and reciprocal rank per shot count; [] without answers.

    Args:
        task: Its name.
        control: Scores of the control.
        treated: Of the treated, on the same prompts.
        rules: How to test.
        clusters: A number per prompt, equal for prompts that are no independent samples.
    """
    values = [_scores(reading) for reading in (control, treated)]
    cells, columns = [], []
    for metric in values[0]:
        for column, shots in enumerate(control.shots):
            cells.append(Cell("behaviour", task, metric, shots))
            columns.append([found[metric][:, column] for found in values])
    return _tested(cells, columns, rules, clusters=clusters) if cells else []


def relation_effects(
    relations: Sequence[str],
    control: Reading,
    treated: Reading,
    rules: Inference,
    *,
    watched: bool,
    clusters: Sequence[int] | None = None,
) -> list[Effect]:
    """Per relation: log-probability over all shot counts, accuracy at the most shots."""
    values = [_scores(reading) for reading in (control, treated)]
    if not values[0]:
        return []
    rows = collections.defaultdict(list)
    for row, name in enumerate(relations):
        rows[name].append(row)
    most = len(control.shots) - 1
    shots = control.shots[0] if most == 0 else None
    found: list[Effect] = []
    for name, members in rows.items():
        cells = [
            Cell("relation", name, "logprob", shots, watched),
            Cell("relation", name, "accuracy", control.shots[most], watched),
        ]
        columns = [
            [value["logprob"][members].mean(1) for value in values],
            [value["accuracy"][members, most] for value in values],
        ]
        own = None if clusters is None else [clusters[row] for row in members]
        found += _tested(cells, columns, rules, clusters=own)
    return found


def emergence_effects(
    control: Reading,
    treated: Reading,
    rules: Inference,
    *,
    clusters: Sequence[int] | None = None,
) -> list[Effect]:
    """E per block and shot count, paired by prompt; [] where it was not read."""
    first, second = control.emergence(), treated.emergence()
    if first is None or second is None:
        return []
    cells, columns = [], []
    for block in range(first.shape[1]):
        for column, shots in enumerate(control.shots):
            cells.append(Cell("emergence", f"block {block}", "emergence", shots))
            columns.append([first[:, block, column], second[:, block, column]])
    found = _tested(cells, columns, rules, clusters=clusters)
    return [_between_prompts(effect, rules.level) for effect in found]


def _between_prompts(effect: Effect, level: float) -> Effect:
    """The effect with a standard error that allows for what prompts do to each other's terms.

    Information is about pairs: when a prompt's state moves, its neighbours' terms move with it.
    The mean is a statistic of order two, of which the standard error is up to twice that of
    independent terms (Hoeffding 1948); that bound is used for the interval and the test.
    """
    low, high = effect.difference - effect.ci_low, effect.ci_high - effect.difference
    error = (low + high) / (2 * stats.norm.ppf((1 + level) / 2))
    p_value = effect.p_value
    if error > 0:
        p_value = float(2 * stats.norm.sf(abs(effect.difference) / (2 * error)))
    return dataclasses.replace(
        effect,
        ci_low=effect.difference - 2 * low,
        ci_high=effect.difference + 2 * high,
        p_value=max(p_value, effect.p_value),
        p_holm=max(p_value, effect.p_value),
        test="order two",
    )


def forgetting_effects(reading: TextReading, rules: Inference) -> tuple[list[Effect], Forgetting]:
    """Cross-entropy on neutral text, tested over texts; and the whole account of it."""
    tokens = reading.tokens
    values = [nll / tokens for nll in (reading.control_nll, reading.treated_nll)]
    cell = Cell("forgetting", NEUTRAL, "cross_entropy")
    effects = _tested([cell], [values], rules, weights=tokens)
    divergence = bootstrap_interval(
        reading.divergence / tokens,
        weights=tokens,
        level=rules.level,
        resamples=rules.resamples,
        seed=rules.seed,
    )
    total = tokens.sum()
    return effects, Forgetting(
        control_cross_entropy=float(reading.control_nll.sum() / total),
        treated_cross_entropy=float(reading.treated_nll.sum() / total),
        divergence_mean=float(reading.divergence.sum() / total),
        divergence_ci_low=float(divergence.low),
        divergence_ci_high=float(divergence.high),
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
    """Sign patterns so many that an effect can survive the correction at all.

    The smallest p-value of ``P`` random patterns is 1 / (P + 1); corrected for ``effects`` tests it
    is to stay a tenth of the level.
    """
    needed = int(np.ceil(10 * effects / (1 - rules.level)))
    return min(max(rules.permutations, needed), 10 * max(rules.permutations, 9999))


def _scores(reading: Reading) -> dict[str, Array]:
    if reading.correct is None or reading.logprob is None or reading.rank is None:
        return {}
    return {
        "accuracy": reading.correct,
        "logprob": reading.logprob,
        "reciprocal_rank": 1.0 / reading.rank,
    }


def _tested(
    cells: Sequence[Cell],
    columns: Sequence[Sequence[Array]],
    rules: Inference,
    *,
    weights: Array | None = None,
    clusters: Sequence[int] | None = None,
) -> list[Effect]:
    """An effect per cell; all have the same pairs, so one set of resamples serves them."""
    control = np.stack([column[0] for column in columns], axis=1)
    treated = np.stack([column[1] for column in columns], axis=1)
    if clusters is not None and len(set(clusters)) < len(clusters):
        control, treated, weights = _means_of(clusters, control, treated)
    found = paired_difference(
        treated,
        control,
        weights=weights,
        level=rules.level,
        resamples=rules.resamples,
        permutations=rules.permutations,
        seed=rules.seed,
    )
    share = np.ones(len(control)) if weights is None else weights
    means = [np.average(side, axis=0, weights=share) for side in (control, treated)]
    return list(_rows(cells, control, treated, means, found, exact=weights is None))


def _means_of(
    clusters: Sequence[int], control: Array, treated: Array
) -> tuple[Array, Array, Array]:
    """Means over each cluster, and its size as the weight: prompts of one query count as one."""
    _, row_of, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    sides = []
    for values in (control, treated):
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, row_of, values)
        sides.append(sums / sizes[:, None])
    return sides[0], sides[1], sizes.astype(np.float64)


def _rows(
    cells: Sequence[Cell],
    control: Array,
    treated: Array,
    means: Sequence[Array],
    found: PairedDifference,
    *,
    exact: bool,
) -> Iterator[Effect]:
    for place, cell in enumerate(cells):
        # McNemar's test takes every prompt for an independent sample.
        mcnemars = cell.metric == "accuracy" and exact
        p_value = float(found.p_value[place])
        if mcnemars:
            p_value = mcnemar(treated[:, place] > 0.5, control[:, place] > 0.5)
        yield Effect(
            family=cell.family,
            name=cell.name,
            metric=cell.metric,
            shots=cell.shots,
            control=float(means[0][place]),
            treated=float(means[1][place]),
            difference=float(found.difference[place]),
            ci_low=float(found.low[place]),
            ci_high=float(found.high[place]),
            p_value=p_value,
            p_holm=p_value,
            test="McNemar" if mcnemars else "sign-flip",
            n=len(control),
            watched=cell.watched,
        )
