"""The token level: every token fed alone, and where it stands in the prompts.

``micro_t`` of the definition is the representation of token t fed alone as its own sequence, so it
depends on that token only. Each distinct token is therefore run once, and its frequency at each
slot of the prompts is its weight. Slots name places by structure (third demonstration, second
token), so that they correspond between prompts of different length.

Cost: one pass over single tokens, as many as there are distinct ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.streams.finite import check_finite
from ed_interp.models.sites import Site

Slot = tuple[str, int, int]
POSITIONS = ("zero", "original")
_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class LoneTokens:
    """Distinct lone tokens and which of them each prompt has in each slot."""

    keys: tuple[tuple[int, int], ...]
    """(token id, position it is fed at), distinct."""
    slots: dict[Slot, NDArray[np.int64]]
    """Slot -> index into ``keys`` per prompt, -1 for prompts that lack the slot."""
    by_shots: dict[int, tuple[Slot, ...]]
    """Shot count -> the slots of its sequences."""


def lone_tokens(population: TokenPopulation, *, position: str = "zero") -> LoneTokens:
    """Collect the distinct tokens of a population by slot.

    Args:
        population: Special tokens that come first are not counted.
        position: ``zero``: every lone token is fed at position 0. ``original``: at the position it
            has in its sequence (which matters for learned absolute positions only).

    Raises:
        InvalidInputError: another ``position``.
    """
    if position not in POSITIONS:
        raise InvalidInputError(
            f"position={position!r}: a lone token stands at 'zero' or at its 'original' position"
        )
    index: dict[tuple[int, int], int] = {}
    slots: dict[Slot, NDArray[np.int64]] = {}
    by_shots: dict[int, tuple[Slot, ...]] = {}
    most = population.shots[-1]
    for shots in population.shots:
        seen: dict[Slot, None] = {}
        for row, prompt in enumerate(population.prompts):
            start = len(prompt.prefix)
            for place, (slot, token) in enumerate(prompt.slots(shots)):
                seen[slot] = None
                # Demonstrations are the same at every shot count: fill them in once.
                if slot[0] == "query" or shots == most:
                    key = (token, start + place if position == "original" else 0)
                    table = slots.setdefault(
                        slot, np.full(len(population.prompts), -1, dtype=np.int64)
                    )
                    table[row] = index.setdefault(key, len(index))
        by_shots[shots] = tuple(seen)
    return LoneTokens(tuple(index), slots, by_shots)


def read_lone(
    hooked: HookedModel, lone: LoneTokens, sites: Sequence[Site]
) -> Float[Tensor, "site token d_model"]:
    """States of every lone token at every site, float32, on the CPU.

    Raises:
        InvalidInputError: positions other than 0 on a model that takes none.
        CaptureError: NaN or infinite states.
    """
    positions = torch.tensor([place for _, place in lone.keys])[:, None]
    tokens = torch.tensor([token for token, _ in lone.keys])[:, None]
    moved = bool(positions.any())
    if moved and not hooked.runner.takes_masks:
        raise InvalidInputError(
            f"position='original': {type(hooked.model).__name__} takes no positions of one's own "
            "here; use position='zero'"
        )
    parts = []
    for start in range(0, len(tokens), _BATCH):
        part = slice(start, start + _BATCH)
        inputs = Inputs(tokens[part], position_ids=positions[part] if moved else None)
        reads = torch.zeros_like(tokens[part])
        reading = hooked.runner.run(inputs, sites=sites, reads=reads)
        parts.append(reading.states[:, 0].cpu())
        check_finite(hooked, parts[-1], sites)
    return torch.cat(parts).movedim(1, 0)
