"""The token level: every distinct token fed alone, and the prompts in which it occurs.

A slot names a place by structure (third demonstration, second token), so that slots correspond
between prompts of different length.

Cost: one forward pass over single tokens, as many as there are distinct ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import InvalidInputError, OptionError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import Site
from ed_interp.probes.emergence.options import SinglePosition
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.streams.capture import check_finite

Slot = tuple[str, int, int]
# Sequences of one token: a pass over this many costs as much as a few dozen prompts.
_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class SingleTokens:
    """Distinct single tokens, and which of them each prompt has in each slot."""

    keys: tuple[tuple[int, int], ...]
    """(token id, position it is fed at), distinct."""
    slots: dict[Slot, NDArray[np.int64]]
    """Slot -> index into ``keys`` per prompt, -1 for prompts that lack the slot."""
    by_shots: dict[int, tuple[Slot, ...]]
    """Shot count -> the slots of its sequences."""


def single_tokens(
    population: TokenPopulation, *, position: SinglePosition = "zero"
) -> SingleTokens:
    """Collect the distinct tokens of a population by slot, without special tokens at the start.

    ``position`` ``zero`` feeds every token at position 0; ``original`` at the position it has in
    its sequence (which matters for learned absolute positions only).
    """
    if position not in get_args(SinglePosition):
        raise InvalidInputError(f"position must be zero or original, got {position!r}")
    # The state of a token fed alone depends on that token only. Each distinct one is therefore run
    # once, whatever number of prompts and slots has it; its frequency in a slot is its weight.
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
                # Demonstrations are the same at every shot count, so the longest prompts fill
                # their slots once. The query moves with the shot count and is filled in each time;
                # its slots are named after the shot count.
                if slot[0] == "query" or shots == most:
                    key = (token, start + place if position == "original" else 0)
                    if slot not in slots:
                        slots[slot] = np.full(len(population.prompts), -1, dtype=np.int64)
                    slots[slot][row] = index.setdefault(key, len(index))
        by_shots[shots] = tuple(seen)
    return SingleTokens(tuple(index), slots, by_shots)


def read_single_tokens(
    hooked: HookedModel, tokens: SingleTokens, sites: Sequence[Site]
) -> Float[Tensor, "site token d_model"]:
    """States of every single token at every site, float32, on the CPU."""
    ids, positions = (part[:, None] for part in torch.tensor(tokens.keys).T.contiguous())
    moved = bool(positions.any())
    if moved and not hooked.runner.takes_masks:
        problem = f"must be zero for {type(hooked.model).__name__}, which takes no position ids"
        raise OptionError("single_position", f"{problem} here, got 'original'")
    parts = []
    for start in range(0, len(ids), _BATCH):
        part = slice(start, start + _BATCH)
        # Position ids only where they are needed: position 0 is what every model uses anyway, and
        # some architectures take no position ids at all.
        inputs = Inputs(ids[part], position_ids=positions[part] if moved else None)
        reading = hooked.runner.run(inputs, sites=sites, reads=torch.zeros_like(ids[part]))
        parts.append(reading.states[:, 0].cpu())
        check_finite(hooked, parts[-1], sites)
    return torch.cat(parts).movedim(1, 0)
