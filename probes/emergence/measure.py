"""Macro and micro information of one model over one population, as terms per prompt.

Estimates, intervals and comparisons are means over prompts of these terms, so a prompt's
contribution to E is known and results of two models on the same prompts are paired. Cost: one
capture (:mod:`ed_interp.streams.capture`), one pass over single tokens, and the estimator's work.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.models.hooked import HookedModel
from ed_interp.probes.emergence.estimators.base import Estimator, Terms
from ed_interp.probes.emergence.estimators.noise import Normalisation, normalise
from ed_interp.probes.emergence.options import SinglePosition
from ed_interp.probes.emergence.single import SingleTokens, read_single_tokens, single_tokens
from ed_interp.processes import gather, process
from ed_interp.progress import Progress, track
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.statistics import Interval
from ed_interp.streams.activations import Activations
from ed_interp.streams.capture import capture

Key = TypeVar("Key")
Array = NDArray[np.float64]
Contents = tuple[bytes, bytes]
"""What a slot holds: its distinct tokens and their counts. Slots of equal contents share terms."""

_BYTES = 2**30
"""Padded states in one call of an estimator."""


@dataclasses.dataclass(frozen=True)
class Read:
    """What was read from one model: enough to estimate under any noise, without the model."""

    activations: Activations
    tokens: SingleTokens
    token_states: Float[Tensor, "site token d_model"]
    population: TokenPopulation
    normalisation: Normalisation
    device: torch.device

    def sequences(self, shots: int) -> Sequences:
        """The distinct sequences of one shot count."""
        # Equal sequences have equal states but for rounding, which differs between batches. As
        # separate rows they would look like two close states that noise fails to separate; so they
        # are one row of higher weight, with the states of the first of them.
        first = first_rows([prompt.sequence(shots) for prompt in self.population.prompts])
        rows, row_of, counts = np.unique(first, return_inverse=True, return_counts=True)
        states = self.activations.at(shots)[torch.as_tensor(rows)].movedim(1, 0)
        return Sequences(states, counts, row_of, first)

    def normal(self, states: Tensor) -> Tensor:
        """States on the model's device, normalised so that noise means the same in every block."""
        return normalise(states.to(self.device), self.normalisation)


@dataclasses.dataclass(frozen=True)
class Chain:
    """One population."""

    states: Float[Tensor, "site row d_model"]
    counts: NDArray[np.int64]
    """``row``: how often each was seen."""


@dataclasses.dataclass(frozen=True)
class Sequences(Chain):
    """The distinct sequences of one shot count."""

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
    """``block prompt``: pointwise information of the single tokens, summed over the sequence."""
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
    """Per block: the estimator's own flags of its macro term."""

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
        """Bootstrap over prompts: intervals of E and of the macro term, per block."""
        # Macro and micro are resampled together, since they are of the same prompts. Resampling
        # the terms, and not the states, is right to first order: see Terms.intervals.
        prompts = len(self.tokens)
        rng = np.random.default_rng(seed)
        # How often each prompt is drawn says all of a resample: one matrix product serves all.
        even = np.full(prompts, 1 / prompts)
        counts = rng.multinomial(prompts, even, size=resamples).astype(float)
        macro = counts @ self.macro.T / prompts
        # A ratio: prompts differ in length, so the number of tokens varies with the resample.
        micro = (counts @ self.micro.T) / (counts @ self.tokens)[:, None]
        tails = [50 * (1 - level), 50 * (1 + level)]
        return (
            Interval(*np.percentile(macro - micro, tails, axis=0)),
            Interval(*np.percentile(macro, tails, axis=0)),
        )


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Estimates of one population."""

    terms: NDArray[np.float64]
    """``block row``, in bits."""
    flags: tuple[tuple[str, ...], ...]
    """Per block."""


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
            # A single possible row carries no information, and an estimator needs two.
            blocks = len(chain.states) - 1
            self._known[key] = Blocks(np.zeros((blocks, 1)), ((),) * blocks)
            if len(chain.counts) > 1:
                weights = torch.as_tensor(chain.counts)
                terms = self._estimator.chain(chain.states, weights=weights, seed=self._seed)
                self._known[key] = _blocks_of(terms, len(weights))
        return self._known[key]

    def _together(self, chains: Sequence[Chain]) -> list[Blocks]:
        # Shorter populations are padded with rows of weight 0, which an estimator leaves out.
        padded = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        states = padded([one.states.movedim(1, 0) for one in chains]).movedim(1, 2).contiguous()
        counts = padded([torch.as_tensor(one.counts) for one in chains])
        result = self._estimator.chain(states, weights=counts, seed=self._seed)
        return [_blocks_of(result, len(one.counts), i) for i, one in enumerate(chains)]


def _blocks_of(terms: Terms, rows: int, *element: int) -> Blocks:
    """The first ``rows`` of one element of the batch."""
    values = terms.terms[element][:, :rows].cpu().double().numpy()
    flags = tuple(terms.flags_at(*element, block) for block in range(len(values)))
    return Blocks(values, flags)


def read(
    hooked: HookedModel,
    population: TokenPopulation,
    *,
    normalisation: Normalisation,
    position: SinglePosition = "zero",
    answers: bool = False,
    path: str = "auto",
    batch_size: int | None = None,
    folder: Path | None = None,
    progress: Progress = None,
) -> Read:
    """Run the model: states of the prompts and of the single tokens at every block boundary."""
    activations = capture(
        hooked,
        population,
        answers=answers,
        path=path,
        batch_size=batch_size,
        folder=folder,
        progress=progress,
    )
    tokens = single_tokens(population, position=position)
    states = read_single_tokens(hooked, tokens, activations.sites)
    return Read(activations, tokens, states, population, normalisation, hooked.device)


def estimate(
    read: Read, estimator: Estimator, *, seed: int, progress: Progress, what: str = "estimating"
) -> dict[int, ShotTerms]:
    """Terms per shot count; shot counts are shared out over processes."""
    rank, processes = process()
    # Every second (third, ...) shot count: neighbours cost about the same, so the shares are even.
    mine = read.population.shots[rank::processes]
    shown = progress if rank == 0 else None
    # Single tokens are few: normalised once, while sequences are so shot count by shot count.
    token_states = read.normal(read.token_states)

    def sequences(shots: int) -> Chain:
        distinct = read.sequences(shots)
        return dataclasses.replace(distinct, states=read.normal(distinct.states))

    def tokens_of(contents: Contents) -> Chain:
        # Copies, as arrays over bytes are read-only, which torch warns of.
        tokens, counts = (np.frombuffer(part, dtype=np.int64).copy() for part in contents)
        rows = torch.as_tensor(tokens, device=token_states.device)
        return Chain(token_states[:, rows], counts)

    reporting = estimator.reporting(shown)
    macro = Estimates(sequences, reporting, seed)
    micro = Estimates(tokens_of, reporting, seed)
    if estimator.together:
        macro.prepare(mine)
        slots = dict.fromkeys(slot for shots in mine for slot in read.tokens.by_shots[shots])
        micro.prepare(contents_of(read.tokens.slots[slot]) for slot in slots)
        shown = None  # The training has shown its own progress.
    terms: dict[int, ShotTerms] = {}
    with track(shown, what, len(mine)) as advance:
        for shots in mine:
            terms[shots] = _shot_terms(read, shots, macro, micro)
            advance(1)
    # Each process has its own shot counts; afterwards all have all of them, in order.
    merged = {shots: term for part in gather(terms) for shots, term in part.items()}
    return {shots: merged[shots] for shots in read.population.shots}


def _shot_terms(
    read: Read, shots: int, macros: Estimates[int], micros: Estimates[Contents]
) -> ShotTerms:
    sequences, blocks = read.sequences(shots), macros[shots]
    micro = np.zeros((len(sequences.states) - 1, len(sequences.first)))
    tokens = np.zeros(len(sequences.first))
    entropy = 0.0
    for slot in read.tokens.by_shots[shots]:
        mask = read.tokens.slots[slot] >= 0  # prompts that have the slot
        ids = read.tokens.slots[slot][mask]
        # A chain holds the distinct tokens in ascending order, so a token's row is its rank.
        row_of = np.unique(ids, return_inverse=True)[1]
        micro[:, mask] += micros[contents_of(ids)].terms[:, row_of]
        tokens += mask
        entropy += entropy_bits(ids) * float(mask.sum())
    return ShotTerms(
        macro=blocks.terms[:, sequences.row_of],
        micro=micro,
        tokens=tokens,
        macro_limit=entropy_bits(sequences.first),
        micro_limit=entropy / float(tokens.sum()),
        sequences=len(sequences.counts),
        # Bitwise, since a constant input is an embedding, which is looked up and not computed.
        constant=tuple(bool((site == site[:1]).all()) for site in sequences.states[:-1]),
        flags=blocks.flags,
    )


def contents_of(tokens: NDArray[np.int64]) -> Contents:
    """Distinct tokens of a slot and their counts; -1 (prompts that lack the slot) is left out."""
    distinct, counts = np.unique(tokens[tokens >= 0], return_counts=True)
    return distinct.tobytes(), counts.tobytes()


def first_rows(sequences: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """For each sequence the index of its first equal."""
    known: dict[tuple[int, ...], int] = {}
    return np.array([known.setdefault(ids, row) for row, ids in enumerate(sequences)])


def entropy_bits(values: NDArray[np.int64]) -> float:
    """Entropy of the empirical distribution of ``values``, in bits."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0 turns -0.0 into 0.0
