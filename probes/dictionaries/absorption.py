"""Splitting and absorption: whether one feature stands for a concept wherever it occurs.

A concept is a category of tokens (:mod:`~ed_interp.probes.dictionaries.categories`). A logistic
probe on the raw states says where the concept occurs and in which direction. *Splitting*: the
number of features that the concept is spread over, counting those that raise the F1 of a k-sparse
probe by more than 0.03 each. *Absorption*: the share of tokens at which the probe recognises the
concept but none of its features is active, while another feature carries it: one whose decoder row
points along the probe and makes up most of the reconstruction's component along it. After Chanin
et al. 2024 (arXiv 2409.14507); that component replaces their ablation, so that no model is run
again, and the thresholds below are ours.

Cost: a regression per concept and number of features, on at most 4,000 tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ed_interp.probes.dictionaries.categories import Categories
from ed_interp.probes.dictionaries.probing import f_ratio, logistic, predict
from ed_interp.probes.dictionaries.rows import ConceptRow

GAIN = 0.03
"""Gain in F1 from which on another feature counts as part of the concept."""
MOST_FEATURES = 5
ALONG = 0.1
"""Smallest cosine of a decoder row with the probe at which a feature can carry the concept."""
SHARE = 0.4
"""Smallest share of the reconstruction's component along the probe, likewise."""
LEAST_TOKENS = 40
_AT_MOST = 2000

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def concepts(
    states: Floats,
    activations: Floats,
    ids: NDArray[np.int64],
    decoder: Floats,
    categories: Categories,
    *,
    seed: int = 0,
) -> tuple[ConceptRow, ...]:
    """Splitting and absorption of every category that is frequent enough.

    States are ``token d_model``, activations ``token latent``, the decoder is ``latent d_model``.
    """
    rng = np.random.default_rng(seed)
    rows: list[ConceptRow] = []
    for name, members in categories.items():
        inside = np.isin(ids, members)
        parts = np.flatnonzero(inside), np.flatnonzero(~inside)
        size = min(*map(len, parts), _AT_MOST)
        if size < LEAST_TOKENS:
            continue
        # As many with as without, so that the probes' threshold of one half fits.
        chosen = np.concatenate([rng.choice(part, size, replace=False) for part in parts])
        rng.shuffle(chosen)
        rows.append(_concept(name, states[chosen], activations[chosen], inside[chosen], decoder))
    return tuple(rows)


def _concept(
    name: str, states: Floats, activations: Floats, labels: Mask, decoder: Floats
) -> ConceptRow:
    half = len(labels) // 2
    train, test = slice(None, half), slice(half, None)
    probe = logistic(states[train], labels[train])
    predicted = predict(probe, states[test])
    order = np.argsort(-f_ratio(activations[train], labels[train]), kind="stable")
    # F is as large for a feature that is silent at the concept. Only one that is more active at it
    # can stand for it.
    inside = activations[train][labels[train]].mean(0)
    outside = activations[train][~labels[train]].mean(0)
    order = order[(inside > outside)[order]][:MOST_FEATURES]
    scores = []
    for count in range(1, len(order) + 1):
        few = activations[:, order[:count]]
        sparse = predict(logistic(few[train], labels[train]), few[test])
        scores.append(_f1(sparse, labels[test]))
    size = 1
    while size < len(scores) and scores[size] - scores[size - 1] > GAIN:
        size += 1
    own = order[:size]
    recognised = predicted & labels[test]
    missed = recognised & ~(activations[test][:, own] > 0).any(1)
    absorbed = missed & _carried(activations[test], decoder, _direction(probe))
    total = max(1, int(recognised.sum()))
    return ConceptRow(
        concept=name,
        features=tuple(own.tolist()),
        f1_one=scores[0] if scores else 0.0,
        f1=scores[size - 1] if scores else 0.0,
        f1_dense=_f1(predicted, labels[test]),
        missed=float(missed.sum() / total),
        absorbed=float(absorbed.sum() / total),
        n=int(labels.sum()),
    )


def _direction(probe: Any) -> NDArray[np.float64]:
    """The probe's direction in the stream, of length 1."""
    scale, regression = (step for _, step in probe.steps)
    # The weights are those of scaled columns: undo it, and leave columns that are 0 everywhere.
    weight = regression.coef_[0].astype(np.float64) / np.where(scale.scale_ > 0, scale.scale_, 1.0)
    return np.asarray(weight / max(float(np.linalg.norm(weight)), 1e-12))


def _carried(activations: Floats, decoder: Floats, direction: NDArray[np.float64]) -> Mask:
    """Tokens at which one feature along the probe makes up most of the component along it."""
    component = decoder.astype(np.float64) @ direction
    cosine = component / np.maximum(np.linalg.norm(decoder, axis=1), 1e-12)
    parts = activations * component
    strongest = parts.argmax(1)
    value = parts[np.arange(len(parts)), strongest]
    # Features that point against the probe do not carry the concept, they take from it.
    total = np.maximum(parts, 0).sum(1)
    return np.asarray((cosine[strongest] >= ALONG) & (value > 0) & (value >= SHARE * total))


def _f1(predicted: Mask, labels: Mask) -> float:
    right = int((predicted & labels).sum())
    return 2 * right / max(1, int(predicted.sum()) + int(labels.sum()))
