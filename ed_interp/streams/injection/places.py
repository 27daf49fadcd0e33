"""Where on a model a site is written: which module, and its input or its output."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.families import hook_states
from ed_interp.models.hooked import HookedModel, is_transformer_lens
from ed_interp.models.sites import Site

Write = Callable[[Site, Tensor], Tensor]

# The expected input of each norm, by its id: shared, as several contexts may write one middle.
_EXPECTED = threading.local()
_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.01}


@dataclasses.dataclass(frozen=True)
class Place:
    """A site that can be written."""

    site: Site
    install: Callable[[Write], list[RemovableHandle]]
    """Sets the hooks that pass the states through ``write``."""
    last: bool = False
    """Whether they must stay behind all other hooks on their modules."""


def stay_last(handles: list[RemovableHandle]) -> None:
    """Move hooks behind those set since."""
    # In place, not removed and set again: a pass running in another thread must not miss one.
    for handle in handles:
        hooks = handle.hooks_dict_ref()
        if hooks is not None and handle.id in hooks:
            hooks.move_to_end(handle.id)


def place_of(hooked: HookedModel, site: Site) -> Place:
    """The place at which ``site`` is written, or CaptureError if the architecture has none."""
    virtual = getattr(hooked.runner, "virtual_tokens", 0)
    if site.kind == "embed" and virtual:
        raise InvalidInputError(
            "the site must not be hook_embed under prompt tuning, which embeds the tokens before "
            "it calls the model; use blocks.0.hook_resid_pre"
        )
    # A HookedTransformer has a hook point in the stream itself; a bridge, the next norm's input.
    own = is_transformer_lens(hooked.model) and not hasattr(hooked.model, "original_model")
    if site.kind == "resid_mid" and not own:
        return Place(site, _middle(hooked, site), last=True)
    point = hooked.runner.place(site)
    return Place(site, lambda write: [hook_states(point, functools.partial(write, site))])


def _middle(hooked: HookedModel, site: Site) -> Callable[[Write], list[RemovableHandle]]:
    """``resid_mid``, the stream between attention and MLP, written through attention's output."""
    # It is read at the input of the second norm, but the residual path around the MLP does not pass
    # through that norm: a change made there would be lost from the stream. So it is made in the
    # output of attention, which is added to the stream just before, and the first time the norm's
    # input is compared with the expected sum.
    block = f"blocks.{site.layer}.hook_"
    start, end, norm = map(
        hooked.runner.place, (Site.parse(block + "resid_pre"), Site.parse(block + "attn_out"), site)
    )
    key = str(id(norm[0]))

    def install(write: Write) -> list[RemovableHandle]:
        held = threading.local()

        def keep(states: Tensor) -> Tensor:
            held.start = states
            return states

        def middle(attention: Tensor) -> Tensor:
            before: Tensor = held.__dict__.pop("start").view_as(attention) + attention
            after = write(site, before)
            if after is before:
                return attention
            # The hook of an inner context runs after this one, sees our change and overwrites this.
            _EXPECTED.__dict__[key] = after
            return attention + (after - before)

        def compare(states: Tensor) -> Tensor:
            expected = _EXPECTED.__dict__.pop(key, None)
            if expected is not None and not getattr(held, "compared", False):
                held.compared = True
                check(states.detach().view_as(expected), expected.detach())
            return states

        return [hook_states(start, keep), hook_states(end, middle), hook_states(norm, compare)]

    def check(states: Tensor, expected: Tensor) -> None:
        scale = expected.float().pow(2).mean().sqrt().clamp(min=1e-12)
        off = float((states - expected).abs().max().float() / scale)
        if off > _TOLERANCE.get(expected.dtype, 1e-3):
            raise CaptureError(
                f"{site.name} cannot be written on {hooked.family}, whose middle is not the sum "
                "of the block's input and attn_out; use hook_resid_pre or hook_resid_post"
            )

    return install
