"""Many populations in one call, for estimators that gain by it.

An estimator that trains says so by having ``reporting``: it then gets all shot counts, and all
places of lone tokens, in one call of ``chain``, as batch elements that are padded with rows of
weight 0, and shows its own progress. Others are called once per population.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.probes.emergence.estimators import Estimator, Terms
from ed_interp.progress import Progress

Key = TypeVar("Key")

_BYTES = 2**30
"""Of padded states in one call."""


@runtime_checkable
class Together(Estimator, Protocol):
    """An estimator that gains by getting populations together."""

    def reporting(self, progress: Progress) -> Estimator:
        """The same estimator, telling its progress."""
        ...


@dataclasses.dataclass(frozen=True)
class Chain:
    """One population."""

    states: Float[Tensor, "site row d_model"]
    counts: NDArray[np.int64]
    """``row``: how often each was seen."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What was estimated of one population."""

    terms: NDArray[np.float64]
    """``block row``, in bits."""
    flags: tuple[tuple[str, ...], ...]
    """Per block."""

    @classmethod
    def of(cls, found: Terms) -> Blocks:
        """Of terms without batch axes."""
        terms = found.terms.cpu().double().numpy()
        return cls(terms, tuple(found.flags_at(block) for block in range(len(terms))))


def blocks_together(
    chains: Mapping[Key, Chain], estimator: Estimator, *, seed: int
) -> dict[Key, Blocks]:
    """Estimate all populations in as few calls as memory allows."""
    # Those of like length beside each other: less padding.
    keys = sorted(chains, key=lambda key: len(chains[key].counts), reverse=True)
    found: dict[Key, Blocks] = {}
    while keys:
        longest = chains[keys[0]].states
        size = longest.numel() * longest.element_size()
        part, keys = keys[: max(1, _BYTES // size)], keys[max(1, _BYTES // size) :]
        for key, one in zip(
            part, _call([chains[key] for key in part], estimator, seed), strict=True
        ):
            found[key] = one
    return found


def _call(chains: Sequence[Chain], estimator: Estimator, seed: int) -> list[Blocks]:
    rows = len(chains[0].counts)
    first = chains[0].states
    states = first.new_zeros(len(chains), first.shape[0], rows, first.shape[2])
    counts = torch.zeros(len(chains), rows, dtype=torch.int64)
    for index, chain in enumerate(chains):
        states[index, :, : len(chain.counts)] = chain.states
        counts[index, : len(chain.counts)] = torch.as_tensor(chain.counts)
    found = estimator.chain(states, weights=counts, seed=seed)
    terms = found.terms.cpu().double().numpy()
    blocks = range(terms.shape[1])
    return [
        Blocks(
            terms[index, :, : len(chain.counts)],
            tuple(found.flags_at(index, block) for block in blocks),
        )
        for index, chain in enumerate(chains)
    ]
