"""Activation addition: the difference of two single prompts, position by position.

Turner et al. (2023, arXiv 2308.10248): run both prompts, take the difference of the stream at one
site at every position, and add it at the same positions, from the front, of any other prompt. The
shorter prompt is padded on the right (with spaces, as there) to as many tokens as the longer one.
One pair, so nothing averages out: expect noise, and look at more than one pair before believing.
Cost: one forward pass of two rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.runners import Inputs
from ed_interp.prompts.tokens import Ids
from ed_interp.streams.direction import Direction
from ed_interp.streams.finite import check_finite
from ed_interp.streams.injection import Add, Where
from ed_interp.models.sites import Site


@dataclasses.dataclass(frozen=True)
class ActivationAddition:
    """A direction per position, from the front of the prompt."""

    directions: tuple[tuple[int, Direction], ...]
    """(position, direction); positions at which the prompts do not differ are left out."""
    tokens: int
    """Tokens of the longer prompt, special ones included."""

    def interventions(self, coefficient: float = 1.0) -> tuple[Add, ...]:
        """What to hand to ``inject``; prompts shorter than ``tokens`` get what fits."""
        return tuple(
            Add(direction, coefficient=coefficient, where=Where(positions=slice(place, place + 1)))
            for place, direction in self.directions
        )

    @property
    def vectors(self) -> Float[Tensor, "pos d_model"]:
        """All of them as a table, zero where the prompts do not differ."""
        site = self.directions[0][1].sites[0]
        table = torch.zeros(self.tokens, self.directions[0][1].d_model)
        for place, direction in self.directions:
            table[place] = direction[site]
        return table


def activation_addition(
    model: Any, positive: str, negative: str, *, site: str | Site, pad: str = " "
) -> ActivationAddition:
    """The difference of two prompts at ``site``, position by position.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        positive: What to steer towards.
        negative: What to steer away from, often of the same length; may be a space.
        site: Where to read and, later, to write: usually ``blocks.N.hook_resid_pre``.
        pad: Text of one token that the shorter prompt is lengthened by.

    Raises:
        InvalidInputError: equal prompts, padding that is not one token, or prompts that do not
            differ in the stream.
        UnknownNameError: no such site.
    """
    hooked = load(model)
    place = hooked.site(site)
    if positive == negative:
        raise InvalidInputError(f"both prompts are {positive!r:.60}: their difference is zero")
    rows = [_ids(hooked, text) for text in (positive, negative)]
    width = max(map(len, rows))
    filler = _ids(hooked, pad)[-1:] if len({len(row) for row in rows}) > 1 else ()
    if filler and len(_ids(hooked, pad)) != len(_ids(hooked, "")) + 1:
        raise InvalidInputError(f"pad={pad!r} is not one token; give text that is")
    ids = torch.tensor([row + filler * (width - len(row)) for row in rows])
    reads = torch.arange(width).expand(2, width)
    states = hooked.runner.run(Inputs(ids), sites=[place], reads=reads).states.cpu()
    check_finite(hooked, states, [place])
    found = states[0, :, 0] - states[1, :, 0]
    kept = [position for position in range(width) if bool(found[position].any())]
    if not kept:
        raise InvalidInputError(f"{positive!r:.40} and {negative!r:.40} are equal at {place.name}")
    settings = {"positive": positive, "negative": negative}
    directions = tuple(
        (
            position,
            Direction.of(
                hooked,
                {place: found[position]},
                method="activation_addition",
                settings={**settings, "position": position},
            ),
        )
        for position in kept
    )
    return ActivationAddition(directions, width)


def _ids(hooked: HookedModel, text: str) -> Ids:
    if hooked.tokenizer is None:
        raise InvalidInputError("prompts are text, and this model has no tokenizer")
    return tuple(hooked.tokenizer(text)["input_ids"])
