"""Monosemanticity without a judge: how far one token or category explains a feature.

For every feature the predictor (the present token's identity, or membership of the present token
in one category) that correlates most with its activation is chosen on one half of the text; the
score is the squared correlation on the other half, 0 where its sign turns. The control does the
same with the activations shuffled over the tokens of each half, which leaves their distribution
and breaks their tie with the text. A feature about context rather than about one token scores low,
as it should: this measures the simplest reading of a feature, and says how far it goes.

Cost: one sparse product of ``predictor x token`` by ``token x latent``, twice.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ed_interp.probes.dictionaries.observation import Observation

LEAST_FIRED = 10
"""A feature that is active at fewer tokens of either half is not scored."""


@dataclasses.dataclass(frozen=True)
class Monosemanticity:
    """Per feature, arrays of ``latent``; NaN where it was active too rarely."""

    score: NDArray[np.float64]
    """Squared correlation on the held-out half."""
    control: NDArray[np.float64]
    """The same with shuffled activations."""
    predictor: tuple[str | None, ...]
    """``token:France`` or ``category:country (input)``."""


def monosemanticity(
    observed: Observation,
    texts: list[str],
    categories: dict[str, tuple[int, ...]],
    *,
    seed: int = 0,
) -> Monosemanticity:
    """Score every feature.

    Args:
        observed: Activations on held-out text; its windows are divided in two.
        texts: Of the tokens, by id.
        categories: Token ids by name.
        seed: Of the control's shuffling.
    """
    predictors = _predictors(len(texts), categories)[observed.ids]
    names = [f"token:{text}" for text in texts] + [f"category:{name}" for name in categories]
    half = observed.window % 2 == 0
    rng = np.random.default_rng(seed)
    halves = [(predictors[chosen], observed.activations[chosen]) for chosen in (half, ~half)]
    shuffled = [(left, right[rng.permutation(right.shape[0])]) for left, right in halves]
    score, best = _held_out(*halves)
    control, _ = _held_out(*shuffled)
    rare = np.minimum(*(np.diff(part.tocsc().indptr) for _, part in halves)) < LEAST_FIRED
    score[rare] = control[rare] = np.nan
    chosen_names = tuple(
        None if few else names[place] for few, place in zip(rare, best, strict=True)
    )
    return Monosemanticity(score, control, chosen_names)


def _predictors(vocabulary: int, categories: dict[str, tuple[int, ...]]) -> Any:
    """``token id x predictor``, 0 or 1."""
    members = sparse.lil_array((vocabulary, len(categories)))
    for column, ids in enumerate(categories.values()):
        members[list(ids), column] = 1.0
    return sparse.hstack([sparse.eye_array(vocabulary), members], format="csr")


def _held_out(
    first: tuple[Any, Any], second: tuple[Any, Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared correlation on the second half with the predictor chosen on the first."""
    found = _correlation(*first).tocsc()
    latents = found.shape[1]
    best = np.zeros(latents, dtype=np.int64)
    for latent in range(latents):
        column = slice(found.indptr[latent], found.indptr[latent + 1])
        if column.stop > column.start:
            best[latent] = found.indices[column][np.argmax(found.data[column])]
    there = _correlation(*second).tocsr()[best, np.arange(latents)]
    score = np.maximum(np.asarray(there).ravel(), 0.0) ** 2
    return score, best


def _correlation(predictors: Any, activations: Any) -> Any:
    """Pearson's correlation of every predictor with every latent, where they occur together.

    Elsewhere it is not positive and stays out, so that the result is as sparse as the text.
    """
    tokens = activations.shape[0]
    share = np.asarray(predictors.mean(0)).ravel()
    mean = np.asarray(activations.mean(0)).ravel()
    spread = np.asarray(activations.multiply(activations).mean(0)).ravel() - mean**2
    together = (predictors.T @ activations).tocoo()
    row, column = together.coords
    variances = np.maximum(share * (1 - share), 0)[row] * np.maximum(spread, 0)[column]
    scale = np.sqrt(variances)
    covariance = together.data / tokens - share[row] * mean[column]
    value = np.divide(covariance, scale, out=np.zeros(len(scale)), where=scale > 1e-12)
    return sparse.coo_array((value, (row, column)), shape=together.shape)
