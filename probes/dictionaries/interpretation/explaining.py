"""Explanations of features: a text, and what it predicts.

An explainer turns :class:`Examples` into an :class:`Explanation`, whose ``predict`` says how active
the feature should be at each token of a text, on any scale. It may ask a language model to
simulate a feature from a sentence; the built-in :func:`by_tokens` looks tokens up in a list. Cost
of that: one pass over the tokens at which the feature is active.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_TOKENS = 10
_SHARE = 0.25
_COVERED = 0.8
_TYPICAL = 0.5
_PRIOR = 3
"""Silent occurrences added to every token, so that one seen once does not rank first."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """What an explainer may use: text that no score is computed on."""

    feature: int
    contexts: tuple[tuple[str, ...], ...]
    """Windows of tokens in which the feature is active, strongest first."""
    activations: tuple[tuple[float, ...], ...]
    """Its activation at each of their tokens."""
    occurrences: NDArray[np.int64]
    """``token``: how often each token of the vocabulary occurs in the text."""
    mass: NDArray[np.float64]
    """``token``: activation summed over all its occurrences."""
    token_texts: Sequence[str]
    categories: Mapping[str, tuple[int, ...]]
    """Token ids by name."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A text about a feature, and its predictions."""

    text: str
    predict: Callable[[Sequence[str]], Sequence[float]]
    """Tokens of a context -> expected activation at each, 0 where none is expected."""


Explainer = Callable[[Examples], Explanation]


def by_tokens(examples: Examples) -> Explanation:
    """Name a feature by a category of tokens, or by the tokens at which it is most active.

    A category is taken if its tokens hold 80% of the activation and their mean activation is at
    least half that of the best token. Otherwise it names up to ten tokens with the highest mean
    activation, down to a quarter of the best. It says nothing about context, so features of
    context score low.
    """
    mass = examples.mass
    # Over all occurrences, silent ones too: a token often seen without the feature explains little.
    mean = mass / (examples.occurrences + _PRIOR)
    best = float(mean.max(initial=0.0))
    total = float(mass.sum())
    if best <= 0 or total <= 0:
        return Explanation("never active", lambda tokens: [0.0] * len(tokens))
    name = _category(examples, mean)
    if name is not None:
        members = examples.categories[name]
        # Members that this half of the text did not hold may occur in the other.
        strengths = {
            examples.token_texts[token]: max(float(mean[token]), _SHARE * best) for token in members
        }
        text = f"category: {name}"
    else:
        order = np.argsort(-mean, kind="stable")[:_TOKENS]
        strong = [token for token in order if mean[token] >= _SHARE * best]
        strengths = {examples.token_texts[token]: float(mean[token]) for token in strong}
        text = "tokens: " + ", ".join(repr(examples.token_texts[token]) for token in strong)
    return Explanation(text, lambda tokens: [strengths.get(token, 0.0) for token in tokens])


def _category(examples: Examples, mean: NDArray[np.float64]) -> str | None:
    """The smallest category that qualifies."""
    fit = []
    best, total = float(mean.max()), float(examples.mass.sum())
    for name, members in examples.categories.items():
        ids = list(members)
        covered = float(examples.mass[ids].sum()) / total
        if covered >= _COVERED and float(mean[ids].mean()) >= _TYPICAL * best:
            fit.append((len(ids), name))
    # The smallest says most: countries rather than capitalised words.
    return min(fit)[1] if fit else None
