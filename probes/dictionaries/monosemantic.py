"""Monosemanticity without a judge model: how well one token or category predicts a feature.

For every feature the predictor (the identity of the current token, or its membership of one
category) that correlates most with its activation is chosen on one half of the text; the score is
the squared correlation on the other half, or 0 if its sign turns. The control does the same with
the activations shuffled over the tokens of each half, which keeps their distribution and breaks
their relation to the text. A feature of context instead of one token scores low, as it should: the
score says how far the simplest reading of a feature goes.

Categories of tokens are by spelling (digits, punctuation, capitalised, ...), which every tokenizer
has, and the words of the built-in relations (countries, capitals, animals, ...) that are single
tokens in the tokenizer.

Cost: one sparse product of ``predictor x token`` by ``token x latent``, twice, and one decoding of
the vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ed_interp.probes.dictionaries.reader import Observation

Categories = dict[str, tuple[int, ...]]
"""Token ids by name."""

_FEWEST = 3
"""A category of fewer tokens says no more than its tokens do."""

_SPELLING: dict[str, Callable[[str], bool]] = {
    "digits": lambda text: text.strip().isdigit(),
    "punctuation": lambda text: bool(text.strip()) and not any(map(str.isalnum, text.strip())),
    "line end": lambda text: "\n" in text,
    "capitalised": lambda text: text.strip()[:1].isupper(),
    "begins a word": lambda text: text[:1] == " " and text[1:2].isalpha(),
    "continues a word": lambda text: text[:1].islower(),
    "one letter": lambda text: len(text.strip()) == 1 and text.strip().isalpha(),
}
LEAST_FIRED = 10
"""A feature that is active at fewer tokens in either half is not scored."""


@dataclasses.dataclass(frozen=True)
class Monosemanticity:
    """Arrays of ``latent``; NaN for a feature that was active too rarely."""

    score: NDArray[np.float64]
    """Squared correlation on the held-out half."""
    control: NDArray[np.float64]
    """The same with shuffled activations."""
    predictor: tuple[str | None, ...]
    """``token:France`` or ``category:country (input)``."""


def monosemanticity(
    observed: Observation, texts: list[str], categories: Categories, *, seed: int = 0
) -> Monosemanticity:
    """Score every feature; ``texts`` are those of the vocabulary, ``categories`` token ids."""
    members = sparse.lil_array((len(texts), len(categories)))
    for column, ids in enumerate(categories.values()):
        members[list(ids), column] = 1.0
    # ``token id x predictor``, 0 or 1, then ``token x predictor``.
    table = sparse.hstack([sparse.eye_array(len(texts)), members], format="csr")
    predictors = table[observed.ids]
    names = [f"token:{text}" for text in texts] + [f"category:{name}" for name in categories]
    # By window and not by token, as neighbouring tokens are alike.
    half = observed.window % 2 == 0
    rng = np.random.default_rng(seed)
    halves = [(predictors[part], observed.activations[part]) for part in (half, ~half)]
    shuffled = [(left, right[rng.permutation(right.shape[0])]) for left, right in halves]
    score, best = _held_out(*halves)
    control, _ = _held_out(*shuffled)
    rare = np.minimum(*(np.diff(part.tocsc().indptr) for _, part in halves)) < LEAST_FIRED
    score[rare] = control[rare] = np.nan
    chosen = tuple(None if few else names[place] for few, place in zip(rare, best, strict=True))
    return Monosemanticity(score, control, chosen)


def _held_out(
    first: tuple[Any, Any], second: tuple[Any, Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared correlation on the second half with the predictor chosen on the first."""
    correlation = _correlation(*first).tocsc()
    latents = correlation.shape[1]
    best = np.zeros(latents, dtype=np.int64)
    for latent in range(latents):
        column = slice(correlation.indptr[latent], correlation.indptr[latent + 1])
        if column.stop > column.start:
            best[latent] = correlation.indices[column][np.argmax(correlation.data[column])]
    held_out = _correlation(*second).tocsr()[best, np.arange(latents)]
    return np.maximum(np.asarray(held_out).ravel(), 0.0) ** 2, best


def _correlation(predictors: Any, activations: Any) -> Any:
    """Pearson's correlation of every predictor with every latent that it occurs with."""
    tokens = activations.shape[0]
    share = np.asarray(predictors.mean(0)).ravel()
    mean = np.asarray(activations.mean(0)).ravel()
    spread = np.asarray(activations.multiply(activations).mean(0)).ravel() - mean**2
    # Pairs that never occur together cannot correlate positively. Left out, they keep the result as
    # sparse as the text.
    together = (predictors.T @ activations).tocoo()
    row, column = together.coords
    # Rounding can take a variance below 0.
    scale = np.sqrt(np.maximum(share * (1 - share), 0)[row] * np.maximum(spread, 0)[column])
    covariance = together.data / tokens - share[row] * mean[column]
    value = np.divide(covariance, scale, out=np.zeros(len(scale)), where=scale > 1e-12)
    return sparse.coo_array((value, (row, column)), shape=together.shape)


def vocabulary(tokenizer: Any) -> tuple[list[str], Categories]:
    """The text of every token, by id, and the categories of tokens."""
    texts: list[str] = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return texts, token_categories(texts)


def token_categories(texts: list[str]) -> Categories:
    """The categories of a vocabulary, from the texts of its tokens."""
    categories = {
        name: [token for token, text in enumerate(texts) if belongs(text)]
        for name, belongs in _SPELLING.items()
    }
    # The same word with and without the space before it is two tokens.
    ids: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        ids.setdefault(text.strip(), []).append(token)
    for name, words in _words().items():
        categories[name] = [token for word in sorted(words) for token in ids.get(word, ())]
    return {name: tuple(tokens) for name, tokens in categories.items() if len(tokens) >= _FEWEST}


def _words() -> dict[str, set[str]]:
    """The words of every group of inputs and of every relation's outputs."""
    from ed_interp.models.recipe.corpus import LABELS
    from ed_interp.models.recipe.tables import relations

    words: dict[str, set[str]] = {}
    for name, relation in relations().items():
        if any(" " in source for source, _ in relation.pairs):
            continue  # phrases: none is a single token
        # Relations of a group share their inputs: one category for these, one for each output.
        words.setdefault(f"{relation.group} (input)", set()).update(i for i, _ in relation.pairs)
        words.setdefault(LABELS[name], set()).update(o for _, o in relation.pairs)
    return words
