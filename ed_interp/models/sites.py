"""Sites: places in the residual stream, in TransformerLens's names.

A :class:`Site` is a parsed hook-point name, for instance ``blocks.3.hook_resid_post``. The table
below defines each kind; :mod:`ed_interp.models.families` knows its module. Cost: none.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from ed_interp.errors import UnknownNameError, unknown

KINDS: Final[dict[str, str]] = {
    "resid_pre": "the stream as it enters the block",
    "resid_mid": "the stream between attention and MLP (sequential blocks only)",
    "resid_post": "the stream as it leaves the block",
    "attn_out": "what attention adds to the stream",
    "mlp_out": "what the MLP adds to the stream",
}

_BLOCK = re.compile(rf"blocks\.(\d+)\.hook_({'|'.join(KINDS)})")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Site:
    """A hook point of the residual stream, always before the final norm."""

    name: str
    """TransformerLens's name of the hook point."""
    layer: int
    """Block index from 0; -1 for the embedding."""
    kind: str
    """One of :data:`KINDS`, or ``embed``."""

    @classmethod
    def parse(cls, name: str | Site, *, n_layers: int | None = None) -> Site:
        """The site called ``name``, such as ``blocks.3.hook_resid_post`` or ``hook_embed``.

        UnknownNameError for no such hook point (the nearest are listed), or no such block among
        ``n_layers``, if given.
        """
        if isinstance(name, Site):
            name = name.name
        if name == "hook_embed":
            return cls(name, -1, "embed")
        match = _BLOCK.fullmatch(name)
        if match is None:
            # The names of the block that was meant, so that the nearest one can be suggested.
            layer = re.search(r"\d+", name)
            example = min(int(layer[0]) if layer else 0, (n_layers or 10**6) - 1)
            known = ["hook_embed", *(f"blocks.{example}.hook_{kind}" for kind in KINDS)]
            raise unknown("hook point", name, known)
        index, kind = int(match[1]), match[2]
        if n_layers is not None and index >= n_layers:
            raise UnknownNameError(
                f"unknown hook point {name!r}: the model has {n_layers} blocks; "
                f"the last one is blocks.{n_layers - 1}.hook_{kind}"
            )
        return cls(name, index, kind)


def resid_pre(layer: int) -> Site:
    """The stream as it enters block ``layer``."""
    return Site(f"blocks.{layer}.hook_resid_pre", layer, "resid_pre")


def resid_post(layer: int) -> Site:
    """The stream as it leaves block ``layer``."""
    return Site(f"blocks.{layer}.hook_resid_post", layer, "resid_post")


def stream_sites(n_layers: int) -> list[Site]:
    """The ``n_layers + 1`` sites before, between and after the blocks, in order of depth."""
    return [resid_pre(0), *(resid_post(layer) for layer in range(n_layers))]
