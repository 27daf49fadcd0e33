"""Steering vectors of the library ``steering-vectors``, as live objects.

Its files are written by ``torch.save``, which is a pickle, and are refused: load them there (if you
trust them) and hand over the object. Cost: none.
"""

from __future__ import annotations

import os
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.models.families import module_of
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner
from ed_interp.streams.direction import Direction
from ed_interp.models.sites import Site

_KINDS = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}


def from_steering_vectors(vector: Any, model: Any, *, site: str) -> Direction:
    """A ``SteeringVector`` as a direction.

    Args:
        vector: The live object. Its layers are read and written at the output of whole modules,
            before the final norm.
        model: Anything :func:`ed_interp.load` takes: the model that it was made for (the object
            does not say).
        site: Where layer k's vector goes, with ``{layer}`` for k. It must be the site that the
            object's ``layer_type`` is: ``resid_post`` for ``decoder_block``, ``attn_out`` for
            ``self_attn``, ``mlp_out`` for ``mlp``.

    Raises:
        InvalidInputError: a file, another object, a site that is not the one it was made at, or
            another width.
        UnknownNameError: the model has no such site.
    """
    if isinstance(vector, (str, os.PathLike)):
        raise InvalidInputError(
            f"{os.fspath(vector)}: steering-vectors saves pickles, which can run code and are not "
            "read; load it there and pass the SteeringVector object"
        )
    layers, kind = getattr(vector, "layer_activations", None), getattr(vector, "layer_type", None)
    if not isinstance(layers, dict) or not layers:
        raise InvalidInputError(
            f"a SteeringVector with at least one layer is expected, found {type(vector).__name__}"
        )
    hooked = load(model)
    wanted = _KINDS.get(str(kind))
    if wanted is None or site != f"blocks.{{layer}}.hook_{wanted}":
        expected = f"'blocks.{{layer}}.hook_{wanted}'" if wanted else "no site at all"
        raise InvalidInputError(
            f"site={site!r}, but a SteeringVector of layer_type {kind!r} is read and written at "
            f"{expected}"
        )
    sites = {int(layer): hooked.site(site.replace("{layer}", str(layer))) for layer in layers}
    for place in sites.values():
        _same_place(hooked, place)
    vectors = {sites[int(layer)].name: layers[layer].reshape(-1) for layer in layers}
    settings = {"layer_type": kind, "site": site}
    return Direction.of(hooked, vectors, method="steering-vectors", settings=settings)


def _same_place(hooked: HookedModel, site: Site) -> None:
    """Gemma normalises what attention and MLP give before it is added: not the module's output."""
    if site.kind == "resid_post" or not isinstance(hooked.runner, TransformersRunner):
        return
    module, _ = module_of(hooked.runner.base, hooked.runner.blocks, site)
    if "norm" in type(module).__name__.lower():
        raise InvalidInputError(
            f"{site.name} of {hooked.family} is behind a norm, and steering-vectors writes before "
            "it; find the direction again at the site"
        )
