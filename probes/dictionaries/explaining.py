"""Explanations of features, and their detection and fuzzing scores on held-out text.

An explainer turns :class:`Examples` into an :class:`Explanation`, whose ``predict`` says how active
the feature should be at each token of a text, on any scale. It may ask a language model to
simulate a feature from a sentence; the built-in :func:`by_tokens` looks tokens up in a list.

Paulo, Mallen, Juang, Belrose: "Automatically Interpreting Millions of Features in Large Language
Models" (arXiv 2410.13928) ask a language model; here the explanation itself predicts:

- detection: does it tell contexts in which the feature is active from contexts in which it is not?
  The area under the ROC curve of the highest prediction in a context.
- fuzzing: in contexts where the feature is active, does it tell the active tokens from as many
  others of the same contexts? The area under the ROC curve of the prediction at the token.

Both are 0.5 by chance. The control scores each feature by the explanation of another one, drawn at
random. Examples come from one half of the text, scores from the other.
Cost: one reading of the text; then about a millisecond per feature with the built-in explainer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from ed_interp.errors import InvalidInputError
from ed_interp.options import takes_options
from ed_interp.probes.dictionaries.monosemantic import Categories, vocabulary
from ed_interp.probes.dictionaries.options import EXPLAIN_WINDOW, ExplainOptions
from ed_interp.probes.dictionaries.reader import Observation, Reader, observe
from ed_interp.probes.dictionaries.results import Interpretations
from ed_interp.probes.dictionaries.rows import InterpretationRow
from ed_interp.probes.dictionaries.text import windows_of
from ed_interp.progress import Progress, track
from ed_interp.results import keep

Indices = NDArray[np.int64]
# Tokens of a context with the feature active, places of the active ones, and of others.
Active = tuple[list[str], Indices, Indices]

LEAST_FIRED = 10
"""A feature that is active in fewer windows of either half is not scored."""
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
        # Members that this half of the text did not hold may occur in the other.
        chosen, least, text = examples.categories[name], _SHARE * best, f"category: {name}"
    else:
        order = np.argsort(-mean, kind="stable")[:_TOKENS].tolist()
        chosen, least = tuple(token for token in order if mean[token] >= _SHARE * best), 0.0
        text = "tokens: " + ", ".join(repr(examples.token_texts[token]) for token in chosen)
    strengths = {examples.token_texts[token]: max(float(mean[token]), least) for token in chosen}
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


@takes_options(ExplainOptions)
def score_explanations(
    dictionary: Any,
    model: Any = None,
    *,
    explain: Explainer = by_tokens,
    text: Any = None,
    options: ExplainOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Interpretations:
    """Explain features and score the explanations on held-out contexts.

    Args:
        dictionary, model: As for :func:`~ed_interp.probes.dictionaries.measuring.measure`, like
            ``out``, ``overwrite``, ``progress`` and what it raises.
        explain: From examples to an explanation, as ``by_tokens`` does.
        text: As for training; one half of its held-out part for examples, the other for scores.

    Raises:
        InvalidInputError: no such feature, or an explanation that predicts another number of
            tokens than it was passed.
    """
    opened = Reader.open(options, dictionary, model)
    every = tuple(range(opened.dictionary.latents))
    chosen = every if options.features is None else options.features
    opened.dictionary.check_features(chosen)
    windows = windows_of(options, opened.hooked, text, window=EXPLAIN_WINDOW)
    reader = opened.on(windows)
    explainer = getattr(explain, "__name__", type(explain).__name__)

    def make(_: Path | None) -> Interpretations:
        held = windows.once("held-out", seed=options.seed, tokens=options.tokens)
        observed = observe(reader, held, progress=progress)
        texts, categories = vocabulary(reader.hooked.tokenizer)
        shown, scored = _Half(observed, texts, odd=False), _Half(observed, texts, odd=True)
        # With few windows an area under the curve is 0 or 1 by accident.
        scoreable = [
            feature
            for feature in chosen
            if min(len(shown.windows_of(feature)), len(scored.windows_of(feature))) >= LEAST_FIRED
        ]
        with track(progress, "explaining features", len(scoreable)) as advance:
            explanations = []
            for feature in scoreable:
                explanations.append(explain(shown.examples(feature, options.contexts, categories)))
                advance(1)
        return Interpretations(
            model=reader.hooked.name,
            site=reader.site.name,
            rows=tuple(_rows(scored, scoreable, explanations, options, progress)),
            skipped=len(chosen) - len(scoreable),
            settings={**reader.settings(), "explainer": explainer},
        )

    # The explainer is a function and no option: runs that differ in it are different runs.
    record = {**options.to_dict(), "explainer": explainer}
    return keep(make, options=record, out=out, overwrite=overwrite, progress=progress)


def _rows(
    scored: _Half, features: Sequence[int], explanations: Sequence[Explanation],
    options: ExplainOptions, progress: Progress,
) -> list[InterpretationRow]:  # fmt: skip
    # A cyclic shift by a random amount assigns each feature the explanation of another.
    shift = int(np.random.default_rng(options.seed).integers(1, max(2, len(features))))
    rows = []
    with track(progress, "scoring explanations", len(features)) as advance:
        for number, feature in enumerate(features):
            rng = np.random.default_rng((options.seed, feature))
            active, silent = scored.sample(feature, options.contexts, rng)
            other = explanations[(number + shift) % len(features)]
            both = (explanations[number], other)
            own, control = (_scores(one, active, silent, feature) for one in both)
            row = (own[0], control[0], own[1], control[1])
            rows.append(InterpretationRow(feature, both[0].text, *row, len(active)))
            advance(1)
    return rows


class _Half:
    """Every other window of the text, by feature."""

    def __init__(self, observed: Observation, texts: list[str], *, odd: bool) -> None:
        chosen = np.flatnonzero(observed.window % 2 == int(odd))
        self._texts = texts
        self._ids = observed.ids[chosen]
        self._activations = sparse.csc_array(observed.activations[chosen])
        windows = observed.window[chosen]
        # Windows are renumbered from 0, as every other one is missing in a half.
        starts = np.flatnonzero(np.diff(windows, prepend=-1))
        self._bounds = [*starts.tolist(), len(windows)]
        self._window = np.cumsum(np.diff(windows, prepend=windows[:1]) != 0)

    def _column(self, feature: int) -> tuple[Indices, NDArray[np.float32]]:
        span = slice(*self._activations.indptr[feature : feature + 2])
        return self._activations.indices[span].astype(np.int64), self._activations.data[span]

    def windows_of(self, feature: int) -> Indices:
        """Numbers of the windows in which the feature is active."""
        return np.unique(self._window[self._column(feature)[0]])

    def _context(self, window: int, feature: int) -> tuple[list[str], NDArray[np.float32]]:
        start, stop = self._bounds[window], self._bounds[window + 1]
        rows, values = self._column(feature)
        dense = np.zeros(stop - start, dtype=np.float32)
        inside = (rows >= start) & (rows < stop)
        dense[rows[inside] - start] = values[inside]
        return [self._texts[token] for token in self._ids[start:stop]], dense

    def examples(self, feature: int, count: int, categories: Categories) -> Examples:
        rows, values = self._column(feature)
        mass = np.bincount(self._ids[rows], weights=values, minlength=len(self._texts))
        # A dict keeps the order of insertion and takes each window once.
        strongest = dict.fromkeys(self._window[rows[np.argsort(-values, kind="stable")]].tolist())
        examples = [self._context(window, feature) for window in list(strongest)[:count]]
        return Examples(
            feature=feature,
            contexts=tuple(tuple(tokens) for tokens, _ in examples),
            activations=tuple(tuple(map(float, dense)) for _, dense in examples),
            occurrences=np.bincount(self._ids, minlength=len(self._texts)),
            mass=mass.astype(np.float64),
            token_texts=self._texts,
            categories=categories,
        )

    def sample(
        self, feature: int, count: int, rng: np.random.Generator
    ) -> tuple[list[Active], list[list[str]]]:
        """Held-out contexts in which the feature is active, and others."""
        with_it = self.windows_of(feature)
        without = np.setdiff1d(np.arange(len(self._bounds) - 1), with_it)
        active = []
        for window in rng.permutation(with_it)[:count]:
            tokens, dense = self._context(int(window), feature)
            # Within one context, so that only the choice of the token can help.
            on, off = np.flatnonzero(dense), np.flatnonzero(dense == 0)
            # As many others as active ones, so that long windows do not count more.
            active.append((tokens, on, rng.permutation(off)[: len(on)]))
        silent = [self._context(int(w), feature)[0] for w in rng.permutation(without)[:count]]
        return active, silent


def _scores(
    explanation: Explanation, contexts: list[Active], others: list[list[str]], feature: int
) -> tuple[float, float]:
    """Detection and fuzzing."""
    active = [_predicted(explanation, tokens, feature) for tokens, _, _ in contexts]
    silent = [_predicted(explanation, tokens, feature) for tokens in others]
    highest = (np.array([values.max() for values in part]) for part in (active, silent))
    pairs = list(zip(active, contexts, strict=True))
    marked = np.concatenate([values[on] for values, (_, on, _) in pairs])
    other = np.concatenate([values[off] for values, (_, _, off) in pairs])
    return area_under_curve(*highest), area_under_curve(marked, other)


def _predicted(explanation: Explanation, tokens: list[str], feature: int) -> NDArray[np.float64]:
    values = np.asarray(explanation.predict(tokens), dtype=np.float64)
    if values.shape != (len(tokens),) or not np.isfinite(values).all():
        raise InvalidInputError(
            f"an explanation must predict one finite number per token, got {values.shape} for "
            f"{len(tokens)} tokens of feature {feature}"
        )
    return values


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Probability that a positive scores above a negative; ties count half, 0.5 without either."""
    if not len(positive) or not len(negative):
        return 0.5
    # The Mann-Whitney U statistic: ranks of the positives less the smallest sum they can have.
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    least = len(positive) * (len(positive) + 1) / 2
    return float((ranks.sum() - least) / (len(positive) * len(negative)))
