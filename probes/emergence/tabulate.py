"""Rows from terms per prompt: estimates, bootstrap intervals and flags."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ed_interp.models.hooked import HookedModel
from ed_interp.probes.emergence.estimators.base import flags_of
from ed_interp.probes.emergence.measure import ShotTerms
from ed_interp.probes.emergence.options import EmergenceOptions
from ed_interp.probes.emergence.rows import (
    AgreementRow,
    BehaviourRow,
    ComparisonRow,
    EmergenceRow,
    ProfileRow,
)
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.statistics import bootstrap_interval
from ed_interp.streams.activations import Activations


def emergence_rows(
    terms: Mapping[int, ShotTerms],
    twin: Mapping[int, ShotTerms] | None,
    hooked: HookedModel,
    population: TokenPopulation,
    options: EmergenceOptions,
) -> tuple[EmergenceRow, ...]:
    """One row per block and shot count; ``twin`` are the terms of the untrained twin."""
    intervals = {
        shots: term.interval(level=options.level, resamples=options.resamples, seed=options.seed)
        for shots, term in terms.items()
    }
    general = []
    if hooked.processed_weights:
        general.append("processed-weights")
    if (population.population.answers or 0) > len(population.prompts):
        general.append("fewer-prompts-than-answers")
    rows = []
    for layer, (shots, term) in itertools.product(range(hooked.n_layers), terms.items()):
        interval, macro_interval = intervals[shots]
        macro = float(term.macro_bits()[layer])
        # Of the macro term alone: the micro term is a mean over many small populations.
        flags = flags_of(
            bits=macro,
            ci_low=float(macro_interval.low[layer]),
            limit=term.macro_limit,
            rows=term.sequences,
            constant=term.constant[layer],
            half_precision=hooked.dtype in (torch.bfloat16, torch.float16),
            own=term.flags[layer] if term.flags else (),
        )
        rows.append(
            EmergenceRow(
                layer=layer,
                shots=shots,
                emergence=float(term.bits()[layer]),
                ci_low=float(interval.low[layer]),
                ci_high=float(interval.high[layer]),
                macro=macro,
                micro=float(term.micro_bits()[layer]),
                limit=term.macro_limit - term.micro_limit,
                macro_limit=term.macro_limit,
                untrained=None if twin is None else float(twin[shots].bits()[layer]),
                flags=(*flags, *general),
            )
        )
    return tuple(rows)


def profile_rows(terms: Mapping[int, ShotTerms], beta: float, noise: float) -> list[ProfileRow]:
    """One row per block and shot count at one noise level."""
    return [
        ProfileRow(layer, shots, beta, noise, *map(float, values))
        for shots, term in terms.items()
        for layer, values in enumerate(
            zip(term.bits(), term.macro_bits(), term.micro_bits(), strict=True)
        )
    ]


def behaviour_rows(
    activations: Activations, *, chance: float, options: EmergenceOptions
) -> tuple[BehaviourRow, ...]:
    """One row per shot count, with bootstrap intervals; empty if no answers were scored."""
    # Both a discontinuous metric (accuracy) and a continuous one (log-probability), since a jump
    # in the first alone may be an artefact of its threshold (Schaeffer et al., arXiv 2304.15004).
    scores = activations.scores()
    if scores is None:
        return ()
    correct, logprob, rank = (
        scores[name].double().numpy() for name in ("correct", "logprob", "rank")
    )

    def mean(values: NDArray[np.float64]) -> tuple[float, float, float]:
        ends = bootstrap_interval(
            values, level=options.level, resamples=options.resamples, seed=options.seed
        )
        return float(values.mean()), float(ends.low), float(ends.high)

    return tuple(
        BehaviourRow(
            shots,
            *mean(correct[:, column]),
            *mean(logprob[:, column]),
            float(np.median(rank[:, column])),
            chance,
            # Against the fewest shots, on the same prompts: paired, so much narrower than a
            # difference of two accuracies.
            *mean(correct[:, column] - correct[:, 0]),
            len(correct),
        )
        for column, shots in enumerate(activations.shots)
    )


def comparison_rows(
    estimates: Mapping[str, Sequence[EmergenceRow]],
) -> tuple[tuple[ComparisonRow, ...], tuple[AgreementRow, ...]]:
    """The rows of each estimator side by side, and how far every two of them agree."""
    # Bits differ in meaning between estimators; a result needs the order of blocks and shots not
    # to depend on which one is used. Hence rank correlations, over all blocks and shots.
    columns = [field.name for field in dataclasses.fields(ComparisonRow)][1:]
    rows = [
        ComparisonRow(name, *(getattr(row, column) for column in columns))
        for name, one in estimates.items()
        for row in sorted(one, key=lambda row: (row.layer, row.shots))
    ]
    agreement = []
    pairs = itertools.combinations(estimates, 2)
    for (first, second), quantity in itertools.product(pairs, ("emergence", "macro")):
        left, right = (
            np.array([getattr(row, quantity) for row in rows if row.estimator == name])
            for name in (first, second)
        )
        spearman = kendall = None
        # A correlation with a constant is not defined, and two points always correlate perfectly.
        if len(left) >= 3 and np.ptp(left) > 0 and np.ptp(right) > 0:
            spearman = float(stats.spearmanr(left, right).statistic)
            kendall = float(stats.kendalltau(left, right).statistic)
        agreement.append(AgreementRow(first, second, quantity, spearman, kendall, len(left)))
    return tuple(rows), tuple(agreement)
