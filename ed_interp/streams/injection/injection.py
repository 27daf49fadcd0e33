"""`Injection`: interventions on a model, where they are written, and whether they acted."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.families import hook_states
from ed_interp.models.hooked import HookedModel, is_transformer_lens
from ed_interp.models.sites import Site
from ed_interp.streams.injection.calls import Call, View
from ed_interp.streams.injection.interventions import Intervention

Install = Callable[[Callable[[Site, Tensor], Tensor]], list[RemovableHandle]]
"""Sets the hooks that pass the states of a site through a function."""

# The expected input of each norm, by its id: shared, as several contexts may write one middle.
_EXPECTED = threading.local()
_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.01}


@dataclasses.dataclass(eq=False)
class Injection:
    """Interventions on a model, and whether they acted; what :func:`inject` yields."""

    hooked: HookedModel
    interventions: tuple[Intervention, ...]
    prompt_length: Int[Tensor, " batch"] | None = None
    strict: bool = True
    owner: int | None = None
    """The thread it acts in; None is every one."""
    calls: int = 0
    """Forward passes so far."""
    elsewhere: int = 0
    """Forward passes of other threads, left alone."""

    def __post_init__(self) -> None:
        # A compiled graph is not traced again for hooks set later, so they would not fire.
        for module in (self.hooked.model, *self.hooked.model.modules()):
            compiled = getattr(module, "_compiled_call_impl", None) is not None
            if compiled or type(module).__name__ == "OptimizedModule":
                raise InvalidInputError(
                    f"{self.hooked.name} is wrapped by torch.compile, which skips hooks set later; "
                    "inject into the model as it was before compiling (for torch.compile(model), "
                    "that is model._orig_mod)"
                )
        self.plan: dict[Site, list[int]] = {}
        for index, intervention in enumerate(self.interventions):
            if not isinstance(intervention, Intervention):
                wanted = "inject() must be given interventions such as Add(...)"
                raise InvalidInputError(f"{wanted}, got a {type(intervention).__name__}")
            intervention.check(self.hooked)
            for site in intervention.sites(self.hooked):
                self.plan.setdefault(site, []).append(index)
        self.places = [place_of(self.hooked, site) for site in sorted(self.plan)]
        # Per intervention: None until its site is reached, as a pass may be cut short before it.
        self._touched: list[bool | Tensor | None] = [None] * len(self.interventions)
        # The largest position that any pass reached, and the largest integer one selected.
        self._furthest: int | Tensor = -1
        leaves = [leaf for one in self.interventions for leaf in one.where.leaves()]
        self._required = max((leaf.furthest for leaf in leaves), default=-1)

    def begin(self, call: Call) -> bool:
        """A forward pass begins in this thread; True if this injection takes part in it."""
        if self.owner is not None and threading.get_ident() != self.owner:
            self.elsewhere += 1
            return False
        self.calls += 1
        call.views[id(self)] = view = View(call, self.prompt_length)
        if self._required >= 0:
            # Kept as a tensor: int() would synchronise the GPU in every forward pass.
            reached = view.positions.max()
            held = torch.as_tensor(self._furthest, device=reached.device)
            self._furthest = torch.maximum(held, reached)
        return True

    def write(self, site: Site, states: Tensor, call: Call | None) -> Tensor:
        """The states after the interventions at ``site``; ``call`` is None outside of a pass."""
        if call is None:
            if self.owner is not None and threading.get_ident() != self.owner:
                return states
            raise CaptureError(
                f"{site.name} was reached without a forward pass of the model, so the positions "
                f"are unknown; call {type(self.hooked.model).__name__} itself inside inject(...)"
            )
        view = call.views.get(id(self))
        if view is None:  # a pass of another thread, see begin()
            return states
        call.fired.add((id(self), site.name))
        flat = states.ndim == 2  # OPT flattens its stream inside some blocks
        if flat:
            states = states.view(call.rows, -1, states.shape[-1])
        if states.shape[:2] != (call.rows, call.width):
            raise CaptureError(
                f"{site.name} must have states of {call.rows} rows of {call.width} tokens, got "
                f"shape {tuple(states.shape)}; this model rearranges its tokens and cannot be "
                "written to"
            )
        for index in self.plan[site]:
            selected = self._selected(index, view)
            if selected is not None and selected.device != states.device:
                selected = selected.to(states.device)
            # `any()` would synchronise a GPU, so there we add zeros instead of skipping.
            if selected is None or selected.device.type != "cpu" or bool(selected.any()):
                states = self.interventions[index].apply(states, selected, site, view)
        return states.flatten(0, 1) if flat else states

    def _selected(self, index: int, view: View) -> Tensor | None:
        """The tokens that an intervention touches in this pass; None is every one."""
        where = self.interventions[index].where
        # By identity: interventions at many sites, or several with one Where, select once a pass.
        if id(where) not in view.selections:
            valid = view.call.valid
            chosen = None if where.everything else where.select(view)
            both = valid if chosen is None else chosen if valid is None else chosen & valid
            shape = (view.call.rows, view.call.width)
            view.selections[id(where)] = None if both is None else both.expand(shape)
        selected: Tensor | None = view.selections[id(where)]
        before = self._touched[index]
        if before is not True:
            touched: bool | Tensor = True if selected is None else selected.any()
            if isinstance(touched, Tensor):
                if touched.device.type == "cpu":
                    touched = bool(touched)
                elif isinstance(before, Tensor):
                    # Read on leaving only, so that the GPU is not synchronised here.
                    touched = touched | before
            self._touched[index] = touched
        return selected

    def finish(self, call: Call) -> None:
        """Raise CaptureError unless every site fired in a pass that ended without an exception."""
        if id(self) not in call.views:
            return
        missing = [site.name for site in self.plan if (id(self), site.name) not in call.fired]
        if missing:
            raise CaptureError(
                f"hooks did not fire: nothing passed {', '.join(missing)}; the model skipped or "
                "replaced these modules"
            )

    def verify(self) -> None:
        """On leaving the context, raise InvalidInputError unless every intervention acted."""
        if not self.strict or not self.interventions:
            return
        if not self.calls:
            hint = "call it inside the context"
            if self.elsewhere:
                hint = "another thread called it: pass all_threads=True if that is meant"
            raise InvalidInputError(
                f"{self.hooked.name} was not called inside inject(...), so nothing was written; "
                f"{hint} (or pass strict=False)"
            )
        furthest = int(self._furthest)
        if furthest < self._required:
            raise InvalidInputError(
                f"positions must be at most {furthest}, the last of the longest row, got "
                f"{self._required}; give longer prompts or a smaller position"
            )
        for intervention, touched in zip(self.interventions, self._touched, strict=True):
            if touched is not None and not bool(touched):
                places = ", ".join(site.name for site in intervention.sites(self.hooked))
                raise InvalidInputError(
                    f"{type(intervention).__name__} at {places} touched no token in {self.calls} "
                    "forward passes; change its selection (outside generate every token is the "
                    "prompt, unless prompt_length= is given), or pass strict=False"
                )


def place_of(hooked: HookedModel, site: Site) -> tuple[Install, bool]:
    """How ``site`` is written, and whether its hooks must stay behind all others on their modules.

    CaptureError if the architecture has no such place.
    """
    virtual = getattr(hooked.runner, "virtual_tokens", 0)
    if site.kind == "embed" and virtual:
        raise InvalidInputError(
            "the site must not be hook_embed under prompt tuning, which embeds the tokens before "
            "it calls the model; use blocks.0.hook_resid_pre"
        )
    # A HookedTransformer has a hook point in the stream itself; a bridge, the next norm's input.
    own = is_transformer_lens(hooked.model) and not hasattr(hooked.model, "original_model")
    if site.kind == "resid_mid" and not own:
        return _middle(hooked, site), True
    point = hooked.runner.place(site)
    return lambda write: [hook_states(point, functools.partial(write, site))], False


def _middle(hooked: HookedModel, site: Site) -> Install:
    """``resid_mid``, the stream between attention and MLP, written through attention's output."""
    # It is read at the input of the second norm, but the residual path around the MLP does not pass
    # through that norm: a change made there would be lost from the stream. So it is made in the
    # output of attention, which is added to the stream just before, and the first time the norm's
    # input is compared with the expected sum.
    block = f"blocks.{site.layer}.hook_"
    names = ("resid_pre", "attn_out", "resid_mid")
    start, end, norm = (hooked.runner.place(Site.parse(block + name)) for name in names)
    key = str(id(norm[0]))

    def install(write: Callable[[Site, Tensor], Tensor]) -> list[RemovableHandle]:
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
            if expected is None or getattr(held, "compared", False):
                return states
            held.compared, expected = True, expected.detach()
            scale = expected.float().pow(2).mean().sqrt().clamp(min=1e-12)
            off = float((states.detach().view_as(expected) - expected).abs().max().float() / scale)
            if off > _TOLERANCE.get(expected.dtype, 1e-3):
                raise CaptureError(
                    f"{site.name} cannot be written on {hooked.family}, whose middle is not the "
                    "sum of the block's input and attn_out; use hook_resid_pre or hook_resid_post"
                )
            return states

        return [hook_states(start, keep), hook_states(end, middle), hook_states(norm, compare)]

    return install
