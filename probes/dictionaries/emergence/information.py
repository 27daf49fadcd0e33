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

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False)
class LabelInformation:
    """Per feature, in bits."""

    bits: NDArray[np.float64]
    """Information less its mean over permutations, and at least 0."""
    informative: NDArray[np.bool_]
    threshold: float
    """Uncorrected information above which a feature is informative."""
    entropy: float
    """Entropy of the labels: no feature can carry more."""


def label_information(
    active: NDArray[np.bool_], labels: Sequence[Hashable], *, permutations: int, seed: int
) -> LabelInformation:
    """Information of each column of ``active`` (``prompt feature``) about the labels."""
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([known[label] for label in labels])
    prompts = len(codes)
    table = np.zeros((len(known), prompts), dtype=np.float32)
    table[codes, np.arange(prompts)] = 1.0
    values = active.astype(np.float32)
    bits = _bits(table, values)
    rng = np.random.default_rng(seed)
    null = np.stack(
        [_bits(table[:, rng.permutation(prompts)], values) for _ in range(permutations)]
    )
    threshold = float(np.quantile(null.max(1), LEVEL))
    share = table.mean(1)
    return LabelInformation(
        np.maximum(bits - null.mean(0), 0.0),
        # Rounding must not make a constant feature informative.
        bits > threshold + 1e-6,
        threshold,
        float(-(share * np.log2(share)).sum()),
    )


def _bits(table: NDArray[np.float32], active: NDArray[np.float32]) -> NDArray[np.float64]:
    prompts = table.shape[1]
    on = (table @ active).astype(np.float64) / prompts
    label = table.mean(1, dtype=np.float64)[:, None]
    share = active.mean(0, dtype=np.float64)[None]
    total = np.zeros(active.shape[1])
    # Active, then not active: the joint counts of the second are those of the label less the first.
    for joint, marginal in ((on, share), (label - on, 1 - share)):
        ratio = np.divide(
            joint, label * marginal, out=np.ones_like(joint), where=(joint > 0) & (marginal > 0)
        )
        total += (joint * np.log2(np.maximum(ratio, 1e-300))).sum(0)
    return total
