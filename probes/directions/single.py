"""Directions that are read off one thing: a pair of prompts, or a feature of a dictionary.

:func:`activation_addition` (Turner et al. 2023, arXiv 2308.10248) is the difference of two single
prompts in the stream, position by position; added at the same positions, from the front, of any
other prompt. With one pair nothing averages out: expect noise, and look at more than one pair
before believing. Cost: one forward pass of two rows.

:func:`decoder_direction` is the decoder's row of a feature as it is, so that coefficient c adds
what the feature at activation c would write. Cost: none.
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
from ed_interp.models.sites import Site
from ed_interp.prompts.tokens import Ids
from ed_interp.streams.capture import check_finite
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Where


@dataclasses.dataclass(frozen=True)
class ActivationAddition:
    """A direction per position, from the front of the prompt."""

    directions: tuple[tuple[int, Direction], ...]
    """(position, direction); positions at which the prompts do not differ are left out."""
    tokens: int
    """Tokens of the longer prompt, special ones included."""

    def interventions(self, coefficient: float = 1.0) -> tuple[Add, ...]:
        """Arguments for ``inject``; prompts shorter than ``tokens`` get what fits."""
        # Slices rather than integers: a position beyond the end of a prompt is not an error.
        return tuple(
            Add(direction, coefficient=coefficient, where=Where(positions=slice(place, place + 1)))
            for place, direction in self.directions
        )

    @property
    def vectors(self) -> Float[Tensor, "pos d_model"]:
        """All of them as a table; rows where the prompts do not differ are zero."""
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
        pad: Text of one token that fills up the shorter prompt, on the right as in the paper.

    Raises:
        InvalidInputError: padding that is not one token, or prompts that do not differ there.
    """
    hooked = load(model)
    place = hooked.site(site)
    if positive == negative:
        raise InvalidInputError(f"both prompts are {positive!r:.60}: their difference is zero")
    rows = [_ids(hooked, text) for text in (positive, negative)]
    width, padding = max(map(len, rows)), _ids(hooked, pad)
    filler = padding[-1:] if len({len(row) for row in rows}) > 1 else ()
    # Compared with the empty text, as the tokenizer may put special tokens around both.
    if filler and len(padding) != len(_ids(hooked, "")) + 1:
        raise InvalidInputError(f"pad={pad!r} is not one token; give text that is")
    ids = torch.tensor([row + filler * (width - len(row)) for row in rows])
    reads = torch.arange(width).expand(2, width)
    states = hooked.runner.run(Inputs(ids), sites=[place], reads=reads).states.cpu()
    check_finite(hooked, states, [place])
    difference = states[0, :, 0] - states[1, :, 0]
    directions = []
    for position, vector in enumerate(difference):
        if bool(vector.any()):
            settings = {"positive": positive, "negative": negative, "position": position}
            about: dict[str, Any] = {"method": "activation_addition", "settings": settings}
            directions.append((position, Direction.of(hooked, {place: vector}, **about)))
    if not directions:
        raise InvalidInputError(f"{positive!r:.40} and {negative!r:.40} are equal at {place.name}")
    return ActivationAddition(tuple(directions), width)


def decoder_direction(
    model: Any, dictionary: Any, feature: int, *, site: str | Site | None = None
) -> Direction:
    """What one feature of a dictionary writes to the stream.

    Args:
        model: Anything :func:`ed_interp.load` takes: the model the dictionary was trained on.
        dictionary: Anything with ``W_dec``, ``feature x d_model`` (SAELens's models, ours), and its
            site as ``site`` or in a SAELens configuration.
        feature: Index from 0.
        site: Needed if the dictionary does not say, or to use it elsewhere on purpose.

    Raises:
        InvalidInputError: no decoder, no such feature, no site known, another width, or zeros.
    """
    hooked = load(model)
    decoder = getattr(dictionary, "W_dec", None)
    if not isinstance(decoder, Tensor) or decoder.ndim != 2:
        kind = f"{type(dictionary).__name__} without a decoder"
        raise InvalidInputError(f"dictionary must have W_dec, feature x d_model, got a {kind}")
    if decoder.shape[1] != hooked.d_model:
        raise InvalidInputError(
            f"W_dec must be feature x {hooked.d_model}, the width of {hooked.name}, got "
            f"{tuple(decoder.shape)}; is it a dictionary of another model?"
        )
    if not 0 <= feature < len(decoder):
        last = len(decoder) - 1
        raise InvalidInputError(f"feature must be one of features 0 to {last}, got {feature}")
    place = site or _site_of(dictionary)
    if place is None:
        kind = f"this {type(dictionary).__name__} does not say where it was trained"
        raise InvalidInputError(f"{kind}; give site='blocks.2.hook_resid_post' or where it was")
    # The decoder may be a parameter, on a GPU, and in half precision.
    vector = decoder[feature].detach().float().cpu()
    if not bool(vector.any()):
        raise InvalidInputError(f"the decoder row of feature {feature} is zero: a dead feature")
    settings = {"feature": feature, "features": len(decoder)}
    return Direction.of(hooked, {hooked.site(place): vector}, method="decoder", settings=settings)


def _ids(hooked: HookedModel, text: str) -> Ids:
    if hooked.tokenizer is None:
        raise InvalidInputError("prompts are text, and this model has no tokenizer")
    return tuple(hooked.tokenizer(text)["input_ids"])


def _site_of(dictionary: Any) -> str | Site | None:
    """Where a dictionary says it was trained: its own ``site``, or SAELens's configuration."""
    config = getattr(dictionary, "cfg", None)
    metadata = getattr(config, "metadata", None)
    # SAELens 6 keeps the name in the metadata, older versions in the configuration itself.
    for holder, name in ((dictionary, "site"), (metadata, "hook_name"), (config, "hook_name")):
        site = getattr(holder, name, None)
        if isinstance(site, (str, Site)):
            return site
    return None
