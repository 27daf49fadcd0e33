"""Macro and micro information of one model over one population, as terms per prompt.

Everything that follows (estimates, intervals, comparisons) is a mean over prompts of what stands
here, so a prompt's contribution to E is known and results of two models on the same prompts are
paired. Cost: one capture (:mod:`ed_interp.streams.capture`) and the estimator's work on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.models.hooked import HookedModel
from ed_interp.probes.emergence.estimators import Estimator, normalise
from ed_interp.probes.emergence.estimators.noise import Normalisation
from ed_interp.probes.emergence.lone import LoneTokens, Slot, lone_tokens, read_lone
from ed_interp.probes.emergence.together import Blocks, Chain, Together, blocks_together
from ed_interp.processes import gather, process
from ed_interp.progress import Progress, track
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.statistics import Interval
from ed_interp.streams.activations import Activations
from ed_interp.streams.capture import capture

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Read:
    """What was read from one model: enough to estimate under any noise, without the model."""

    activations: Activations
    lone: LoneTokens
    lone_states: Float[Tensor, "site token d_model"]
    population: TokenPopulation
    normalisation: Normalisation
    device: torch.device


@dataclasses.dataclass(frozen=True)
class Sequences:
    """The distinct sequences of one shot count."""

    states: Float[Tensor, "site row d_model"]
    counts: NDArray[np.int64]
    """``row``: how many prompts have it."""
    row_of: NDArray[np.int64]
    """``prompt``: its row."""
    first: NDArray[np.int64]
    """``prompt``: the first prompt with an equal sequence."""


@dataclasses.dataclass(frozen=True)
class ShotTerms:
    """Terms of one shot count, in bits."""

    macro: Array
    """``block prompt``: pointwise information at the last token."""
    micro: Array
    """``block prompt``: pointwise information of the lone tokens, summed over the sequence."""
    tokens: Array
    """``prompt``: number of tokens of the sequence, without special tokens."""
    macro_limit: float
    """Entropy of the sequences of the sample."""
    micro_limit: float
    """Mean over the sequence of the entropies of its tokens."""
    sequences: int
    """Number of distinct sequences."""
    constant: tuple[bool, ...]
    """Per block: whether its input is the same for every sequence."""
    flags: tuple[tuple[str, ...], ...] = ()
    """Per block: what the estimator itself says of its macro term."""

    def macro_bits(self) -> Array:
        """``block``: the macro term."""
        return np.asarray(self.macro.mean(1))

    def micro_bits(self) -> Array:
        """``block``: the micro term, a mean over all tokens of all prompts."""
        return np.asarray(self.micro.sum(1) / self.tokens.sum())

    def bits(self) -> Array:
        """``block``: emergence."""
        return self.macro_bits() - self.micro_bits()

    def interval(self, *, level: float, resamples: int, seed: int) -> tuple[Interval, Interval]:
        """Bootstrap over prompts: intervals of E and of the macro term, per block.

        Macro and micro are resampled together, since they are of the same prompts. Resampling the
        terms is right to first order; see :meth:`Terms.intervals`.
        """
        prompts = len(self.tokens)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples).astype(
            float
        )
        macro = counts @ self.macro.T / prompts
        micro = (counts @ self.micro.T) / (counts @ self.tokens)[:, None]
        tails = [50 * (1 - level), 50 * (1 + level)]
        return (
            Interval(*np.percentile(macro - micro, tails, axis=0)),
            Interval(*np.percentile(macro, tails, axis=0)),
        )


def read(
    hooked: HookedModel,
    population: TokenPopulation,
    *,
    position: str,
    normalisation: Normalisation,
    answers: bool,
    path: str,
    batch_size: int | None,
    folder: Path | None,
    progress: Progress,
) -> Read:
    """Run the model: states of the prompts and of the lone tokens at every block boundary."""
    activations = capture(
        hooked,
        population,
        answers=answers,
        path=path,
        batch_size=batch_size,
        folder=folder,
        progress=progress,
    )
    lone = lone_tokens(population, position=position)
    states = read_lone(hooked, lone, activations.sites)
    return Read(activations, lone, states, population, normalisation, hooked.device)


def estimate(
    read: Read, estimator: Estimator, *, seed: int, progress: Progress, what: str = "estimating"
) -> dict[int, ShotTerms]:
    """Terms per shot count; shot counts are shared out over processes."""
    rank, processes = process()
    mine = read.population.shots[rank::processes]
    macro = _MacroTerms(read, estimator, seed)
    slots = _SlotTerms(read, estimator, seed)
    found: dict[int, ShotTerms] = {}
    if isinstance(estimator, Together):
        ours = estimator.reporting(progress if rank == 0 else None)
        macro.prepare(mine, ours)
        slots.prepare([slot for shots in mine for slot in read.lone.by_shots[shots]], ours)
        progress = None  # The training has told it all.
    with track(progress if rank == 0 else None, what, len(mine)) as advance:
        for shots in mine:
            found[shots] = _shot_terms(read, shots, macro, slots)
            advance(1)
    merged: dict[int, ShotTerms] = {}
    for part in gather(found):
        merged |= part
    return {shots: merged[shots] for shots in read.population.shots}


def _shot_terms(read: Read, shots: int, macros: _MacroTerms, slots: _SlotTerms) -> ShotTerms:
    sequences = macros.population(shots)
    prompts, blocks = len(sequences.first), sequences.states.shape[0] - 1
    macro = np.zeros((blocks, prompts))
    flags: tuple[tuple[str, ...], ...] = ((),) * blocks
    if len(sequences.counts) > 1:
        found = macros[shots]
        macro, flags = found.terms[:, sequences.row_of], found.flags
    micro = np.zeros((blocks, prompts))
    tokens = np.zeros(prompts)
    entropy = 0.0
    for slot in read.lone.by_shots[shots]:
        terms, bits = slots[slot]
        there = read.lone.slots[slot] >= 0
        micro += terms
        tokens += there
        entropy += bits * float(there.sum())
    return ShotTerms(
        macro=macro,
        micro=micro,
        tokens=tokens,
        macro_limit=entropy_bits(sequences.first),
        micro_limit=entropy / float(tokens.sum()),
        sequences=len(sequences.counts),
        constant=tuple(bool((site == site[:1]).all()) for site in sequences.states[:-1]),
        flags=flags,
    )


class _MacroTerms:
    """Terms of the sequences per shot count, computed when first asked for, or all at once."""

    def __init__(self, read: Read, estimator: Estimator, seed: int) -> None:
        self._read, self._estimator, self._seed = read, estimator, seed
        self._known: dict[int, Blocks] = {}

    def population(self, shots: int) -> Sequences:
        """The distinct sequences.

        Equal sequences have equal states but for rounding, which differs between batches: they are
        one row of higher weight, with the states of the first of them.
        """
        prompts = self._read.population.prompts
        first = first_rows([prompt.sequence(shots) for prompt in prompts])
        rows, row_of, counts = np.unique(first, return_inverse=True, return_counts=True)
        states = self._read.activations.at(shots)[torch.as_tensor(rows)].movedim(1, 0)
        return Sequences(states, counts, row_of, first)

    def prepare(self, shots: Sequence[int], estimator: Estimator) -> None:
        """Estimate these shot counts together."""
        found = {one: self.population(one) for one in shots}
        chains = {
            one: Chain(self._normal(sequences.states), sequences.counts)
            for one, sequences in found.items()
            if len(sequences.counts) > 1
        }
        self._known |= blocks_together(chains, estimator, seed=self._seed)

    def __getitem__(self, shots: int) -> Blocks:
        if shots not in self._known:
            sequences = self.population(shots)
            found = self._estimator.chain(
                self._normal(sequences.states),
                weights=torch.as_tensor(sequences.counts),
                seed=self._seed,
            )
            return Blocks.of(found)
        return self._known[shots]

    def _normal(self, states: Tensor) -> Tensor:
        return normalise(states.to(self._read.device), self._read.normalisation)


class _SlotTerms:
    """Terms of the lone tokens per slot, computed when first asked for, or all at once."""

    def __init__(self, read: Read, estimator: Estimator, seed: int) -> None:
        self._lone = read.lone
        self._states = normalise(read.lone_states.to(read.device), read.normalisation)
        self._estimator = estimator
        self._seed = seed
        self._known: dict[bytes, Array] = {}

    def __getitem__(self, slot: Slot) -> tuple[Array, float]:
        """(``block prompt`` terms, 0 where a prompt lacks the slot; entropy of the slot, bits)."""
        rows = self._lone.slots[slot]
        there = rows >= 0
        tokens, counts = np.unique(rows[there], return_counts=True)
        key = tokens.tobytes() + counts.tobytes()
        if key not in self._known:
            self._known[key] = self._terms(tokens, counts)
        terms = np.zeros((self._states.shape[0] - 1, len(rows)))
        terms[:, there] = self._known[key][:, np.searchsorted(tokens, rows[there])]
        return terms, entropy_bits(rows[there])

    def prepare(self, slots: Sequence[Slot], estimator: Estimator) -> None:
        """Estimate these slots together."""
        chains: dict[bytes, Chain] = {}
        for slot in slots:
            rows = self._lone.slots[slot]
            tokens, counts = np.unique(rows[rows >= 0], return_counts=True)
            if len(tokens) > 1:
                states = self._states[:, torch.as_tensor(tokens, device=self._states.device)]
                chains[tokens.tobytes() + counts.tobytes()] = Chain(states, counts)
        found = blocks_together(chains, estimator, seed=self._seed)
        self._known |= {key: one.terms for key, one in found.items()}

    def _terms(self, tokens: NDArray[np.int64], counts: NDArray[np.int64]) -> Array:
        if len(tokens) == 1:  # One possible token carries no information.
            return np.zeros((self._states.shape[0] - 1, 1))
        chain = self._states[:, torch.as_tensor(tokens, device=self._states.device)]
        found = self._estimator.chain(chain, weights=torch.as_tensor(counts), seed=self._seed)
        return np.asarray(found.terms.cpu().double().numpy())


def first_rows(sequences: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """For each sequence the index of its first equal."""
    known: dict[tuple[int, ...], int] = {}
    return np.array([known.setdefault(ids, row) for row, ids in enumerate(sequences)])


def entropy_bits(values: NDArray[np.int64]) -> float:
    """Entropy of the empirical distribution of ``values``, in bits."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0
