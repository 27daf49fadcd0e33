"""The decoder direction of a dictionary's feature as a steering direction.

Takes anything with a decoder ``W_dec`` of ``feature x d_model`` (SAELens's models, ours, one's own)
and the site it was trained at. The vector is the decoder's row as it stands, so that coefficient c
adds what the feature at activation c would write; divided by nothing. Cost: none.
"""

from __future__ import annotations

from typing import Any

import torch

from ed_interp.errors import InvalidInputError
from ed_interp.models.load import load
from ed_interp.streams.direction import Direction
from ed_interp.models.sites import Site


def decoder_direction(
    model: Any, dictionary: Any, feature: int, *, site: str | Site | None = None
) -> Direction:
    """What one feature of a dictionary writes to the stream.

    Args:
        model: Anything :func:`ed_interp.load` takes: the model the dictionary was trained on.
        dictionary: Has ``W_dec``, and its site as ``site`` or in a SAELens configuration.
        feature: Index from 0.
        site: Where the dictionary does not say, or to use it elsewhere on purpose.

    Raises:
        InvalidInputError: no decoder, no such feature, no site known, another width, or a decoder
            row that is zero.
        UnknownNameError: no such site.
    """
    hooked = load(model)
    decoder = getattr(dictionary, "W_dec", None)
    if not isinstance(decoder, torch.Tensor) or decoder.ndim != 2:
        raise InvalidInputError(
            f"a {type(dictionary).__name__} without a decoder: an object with W_dec, "
            "feature x d_model, is expected"
        )
    if decoder.shape[1] != hooked.d_model:
        raise InvalidInputError(
            f"W_dec is {tuple(decoder.shape)} and {hooked.name} is {hooked.d_model} wide: "
            "feature x d_model is expected; is it a dictionary of another model?"
        )
    if not 0 <= feature < len(decoder):
        raise InvalidInputError(f"feature {feature}: there are features 0 to {len(decoder) - 1}")
    place = site or _site_of(dictionary)
    if place is None:
        raise InvalidInputError(
            f"this {type(dictionary).__name__} does not say where it was trained; give "
            "site='blocks.2.hook_resid_post' or wherever that was"
        )
    vector = decoder[feature].detach().float().cpu()
    if not bool(vector.any()):
        raise InvalidInputError(f"the decoder row of feature {feature} is zero: a dead feature")
    settings = {"feature": feature, "features": len(decoder)}
    return Direction.of(hooked, {hooked.site(place): vector}, method="decoder", settings=settings)


def _site_of(dictionary: Any) -> str | Site | None:
    """Where a dictionary says it was trained: its own ``site``, or SAELens's configuration."""
    config = getattr(dictionary, "cfg", None)
    metadata = getattr(config, "metadata", None)
    for found in (
        getattr(dictionary, "site", None),
        getattr(metadata, "hook_name", None),
        getattr(config, "hook_name", None),
    ):
        if isinstance(found, (str, Site)):
            return found
    return None
