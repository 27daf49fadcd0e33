"""Estimates of many populations, in few calls for estimators that gain by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.probes.emergence.estimators.base import Estimator, Terms

Key = TypeVar("Key")

_BYTES = 2**30
"""Padded states in one call."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """One population."""

    states: Float[Tensor, "site row d_model"]
    counts: NDArray[np.int64]
    """``row``: how often each was seen."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Estimates of one population."""

    terms: NDArray[np.float64]
    """``block row``, in bits."""
    flags: tuple[tuple[str, ...], ...]
    """Per block."""

    @classmethod
    def of(cls, terms: Terms) -> Blocks:
        """From terms without batch axes."""
        values = terms.terms.cpu().double().numpy()
        return cls(values, tuple(terms.flags_at(block) for block in range(len(values))))


class Estimates(Generic[Key]):
    """Estimates of populations by key, each made once: all together, or when it is needed."""

    def __init__(self, chain_of: Callable[[Key], Chain], estimator: Estimator, seed: int) -> None:
        self._chain_of, self._estimator, self._seed = chain_of, estimator, seed
        self._known: dict[Key, Blocks] = {}

    def prepare(self, keys: Iterable[Key]) -> None:
        """Estimate these populations together."""
        # For estimators whose critics train together (Estimator.together). Others are called when
        # an estimate is needed, so that the states of one population are in memory at a time.
        chains = {key: self._chain_of(key) for key in keys}
        varied = {key: chain for key, chain in chains.items() if len(chain.counts) > 1}
        # Populations of similar length share a call: less padding.
        left = sorted(varied, key=lambda key: len(varied[key].counts), reverse=True)
        while left:
            # The longest of those that are left sets the size that the others are padded to.
            longest = varied[left[0]].states
            size = max(1, _BYTES // (longest.numel() * longest.element_size()))
            part, left = left[:size], left[size:]
            self._known |= zip(part, self._together([varied[key] for key in part]), strict=True)

    def __getitem__(self, key: Key) -> Blocks:
        if key not in self._known:
            chain = self._chain_of(key)
            if len(chain.counts) == 1:
                # A single possible row carries no information, and an estimator needs two.
                blocks = len(chain.states) - 1
                self._known[key] = Blocks(np.zeros((blocks, 1)), ((),) * blocks)
            else:
                weights = torch.as_tensor(chain.counts)
                terms = self._estimator.chain(chain.states, weights=weights, seed=self._seed)
                self._known[key] = Blocks.of(terms)
        return self._known[key]

    def _together(self, chains: Sequence[Chain]) -> list[Blocks]:
        rows = len(chains[0].counts)
        first = chains[0].states
        # Shorter populations are padded with rows of weight 0, which an estimator leaves out.
        states = first.new_zeros(len(chains), first.shape[0], rows, first.shape[2])
        counts = torch.zeros(len(chains), rows, dtype=torch.int64)
        for index, chain in enumerate(chains):
            states[index, :, : len(chain.counts)] = chain.states
            counts[index, : len(chain.counts)] = torch.as_tensor(chain.counts)
        result = self._estimator.chain(states, weights=counts, seed=self._seed)
        terms = result.terms.cpu().double().numpy()
        blocks = range(terms.shape[1])
        return [
            Blocks(
                terms[index, :, : len(chain.counts)],
                tuple(result.flags_at(index, block) for block in blocks),
            )
            for index, chain in enumerate(chains)
        ]
