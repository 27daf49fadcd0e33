"""Information that the activity of a feature carries about a label, with a permutation test.

    I = sum over active or not, and labels, of p(a, label) log2 p(a, label) / (p(a) p(label))

The counts of a finite sample overstate it. The labels are therefore permuted, which keeps every
marginal and breaks the dependence; the mean over permutations is subtracted, and a feature is
informative if its information exceeds what the LARGEST of all features reaches in 95% of the
permutations: among a thousand features without information, any is called informative in one run
of twenty (Westfall and Young's max-T, 1993). Cost: one product of ``label x prompt`` by
``prompt x feature`` per permutation.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class LabelInformation(NamedTuple):
    """Per feature, in bits."""

    bits: NDArray[np.float64]
    """Information less its mean over permutations, and at least 0."""
    informative: NDArray[np.bool_]


def label_information(
    active: NDArray[np.bool_], labels: Sequence[Hashable], *, permutations: int, seed: int
) -> LabelInformation:
    """Information of each column of ``active`` (``prompt feature``) about the labels."""
    table, values = _one_hot(labels), active.astype(np.float32)
    bits, rng = _bits(table, values), np.random.default_rng(seed)
    shuffled = (table[:, rng.permutation(table.shape[1])] for _ in range(permutations))
    null = np.stack([_bits(permuted, values) for permuted in shuffled])
    # The largest of all features in each permutation, not each feature's own.
    threshold = float(np.quantile(null.max(1), LEVEL))
    # Rounding must not make a constant feature informative.
    return LabelInformation(np.maximum(bits - null.mean(0), 0.0), bits > threshold + 1e-6)


def entropy_of(labels: Sequence[Hashable]) -> float:
    """Entropy of the labels in bits: no feature can carry more."""
    share = _one_hot(labels).mean(1)
    return float(-(share * np.log2(share)).sum())


def _one_hot(labels: Sequence[Hashable]) -> NDArray[np.float32]:
    """``label prompt``, 1 where a prompt has the label."""
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    table = np.zeros((len(known), len(labels)), dtype=np.float32)
    table[[known[label] for label in labels], np.arange(len(labels))] = 1.0
    return table


def _bits(table: NDArray[np.float32], active: NDArray[np.float32]) -> NDArray[np.float64]:
    prompts = table.shape[1]
    on = (table @ active).astype(np.float64) / prompts
    label = table.mean(1, dtype=np.float64)[:, None]
    share = active.mean(0, dtype=np.float64)[None]
    total = np.zeros(active.shape[1])
    # Active, then not active: the joint counts of the second are those of the label less the first.
    for joint, marginal in ((on, share), (label - on, 1 - share)):
        # 0 log 0 is 0: a ratio of 1 leaves those cells out.
        full = (joint > 0) & (marginal > 0)
        ratio = np.divide(joint, label * marginal, out=np.ones_like(joint), where=full)
        total += (joint * np.log2(np.maximum(ratio, 1e-300))).sum(0)
    return total
