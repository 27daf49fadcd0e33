"""`inject`: interventions on a model for as long as a context lasts."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.streams.injection.calls import Call, View
from ed_interp.streams.injection.interventions import Intervention
from ed_interp.streams.injection.places import Place, place_of
from ed_interp.streams.injection.registry import Registry
from ed_interp.models.sites import Site


@contextlib.contextmanager
def inject(
    model: Any,
    *interventions: Intervention,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    strict: bool = True,
    all_threads: bool = False,
) -> Iterator[Injection]:
    """Write to the residual stream of ``model`` inside the context.

    Args:
        model: Anything :func:`ed_interp.load` takes. A live model is used as before (``generate``,
            forward, ``capture``); it runs with the interventions until the context ends.
        *interventions: Applied in this order at each site. None at all leaves the model alone.
        prompt_length: Where the prompt ends, for plain forward passes: tokens per row (or one
            number for all), padding not counted. ``generate`` knows by itself.
        strict: Raise on leaving if an intervention touched no token, if an integer position was
            never reached, or if the model was not called at all.
        all_threads: Also act when another thread calls the model (``generate`` in a worker, for a
            streamer). By default other threads' calls are left alone.

    Raises:
        InvalidInputError: an intervention that does not fit (another model's direction, a wrong
            width, NaN, more than the precision holds), positions that do not exist, a selection
            that matched nothing, or a model that ``torch.compile`` wrapped.
        UnknownNameError: no such site; the nearest are listed.
        CaptureError: this architecture has no such place, or the hooks did not fire.
    """
    hooked = load(model)
    injection = Injection(
        hooked,
        tuple(interventions),
        prompt_length=_lengths(prompt_length),
        strict=strict,
        owner=None if all_threads else threading.get_ident(),
    )
    with Registry.of(hooked, injection):
        yield injection
    injection.verify()


@dataclasses.dataclass(eq=False)
class Injection:
    """Interventions on a model, and what became of them; what :func:`inject` gives."""

    hooked: HookedModel
    interventions: tuple[Intervention, ...]
    prompt_length: Int[Tensor, " batch"] | None = None
    strict: bool = True
    owner: int | None = None
    """The thread it acts in; None is every one."""
    calls: int = 0
    """Forward passes so far."""
    elsewhere: int = 0
    """Forward passes of other threads, which were left alone."""

    def __post_init__(self) -> None:
        _refuse_compiled(self.hooked)
        self.plan: dict[Site, list[int]] = {}
        for index, intervention in enumerate(self.interventions):
            if not isinstance(intervention, Intervention):
                raise InvalidInputError(
                    f"inject() takes interventions such as Add(...), found a "
                    f"{type(intervention).__name__}"
                )
            intervention.check(self.hooked)
            for site in intervention.sites(self.hooked):
                self.plan.setdefault(site, []).append(index)
        self.places: list[Place] = [place_of(self.hooked, site) for site in sorted(self.plan)]
        # None until its site was reached: a pass may be cut short before it.
        self._touched: list[bool | Tensor | None] = [None] * len(self.interventions)
        self._furthest: int | Tensor = -1
        asked = [
            leaf.furthest
            for intervention in self.interventions
            for leaf in intervention.where.leaves()
            if leaf.furthest is not None
        ]
        self._asked = max(asked, default=None)

    def begin(self, call: Call) -> bool:
        """A forward pass begins in this thread; whether it concerns this injection."""
        if self.owner is not None and threading.get_ident() != self.owner:
            self.elsewhere += 1
            return False
        self.calls += 1
        call.views[id(self)] = view = View(call, self.prompt_length)
        if self._asked is not None:
            reached = view.positions.max()
            held = torch.as_tensor(self._furthest, device=reached.device)
            self._furthest = torch.maximum(held, reached)
        return True

    def write(self, site: Site, states: Tensor, call: Call | None) -> Tensor:
        """The states of ``site`` with everything that is to be written there.

        Raises:
            CaptureError: a block was called without its model.
        """
        if call is None:
            if self.owner is not None and threading.get_ident() != self.owner:
                return states
            raise CaptureError(
                f"{site.name} was reached without a forward pass of the model, so no position is "
                f"known; call {type(self.hooked.model).__name__} itself inside inject(...)"
            )
        view = call.views.get(id(self))
        if view is None:
            return states
        call.fired.add((id(self), site.name))
        flat = states.ndim == 2  # OPT flattens its stream inside some blocks.
        if flat:
            states = states.view(call.rows, -1, states.shape[-1])
        if states.shape[:2] != (call.rows, call.width):
            raise CaptureError(
                f"{site.name}: states of shape {tuple(states.shape)} in a forward pass of "
                f"{call.rows} rows of {call.width} tokens; this model rearranges its tokens"
            )
        for index in self.plan[site]:
            states = self._one(index, site, states, view)
        return states.flatten(0, 1) if flat else states

    def _one(self, index: int, site: Site, states: Tensor, view: View) -> Tensor:
        intervention = self.interventions[index]
        selected = self._selected(index, view)
        if selected is not None and selected.device != states.device:
            selected = selected.to(states.device)
        # A look at the device would hold up an accelerator; there, nothing is added instead.
        if selected is not None and selected.device.type == "cpu" and not bool(selected.any()):
            return states
        return intervention.apply(states, selected, site, view)

    def _selected(self, index: int, view: View) -> Tensor | None:
        where = self.interventions[index].where
        if id(where) not in view.selections:
            valid = view.call.valid
            chosen = None if where.everything else where.select(view)
            both = valid if chosen is None else chosen if valid is None else chosen & valid
            view.selections[id(where)] = (
                None if both is None else both.expand(view.call.rows, view.call.width)
            )
        selected: Tensor | None = view.selections[id(where)]
        if self._touched[index] is not True:
            found = True if selected is None else selected.any()
            if isinstance(found, Tensor):
                before = self._touched[index]
                if found.device.type == "cpu":
                    found = bool(found)
                elif isinstance(before, Tensor):  # read on leaving: to look now would wait for it
                    found = found | before
            self._touched[index] = found
        return selected

    def finish(self, call: Call) -> None:
        """A forward pass ended well: every site must have fired.

        Raises:
            CaptureError: naming those that did not.
        """
        if id(self) not in call.views:
            return
        missing = [site.name for site in self.plan if (id(self), site.name) not in call.fired]
        if missing:
            raise CaptureError(
                f"hooks did not fire: nothing passed {', '.join(missing)}; the model skipped or "
                "replaced these modules"
            )

    def verify(self) -> None:
        """On leaving, see that it did what was asked.

        Raises:
            InvalidInputError: the model was not called, an intervention touched no token, or a
                position was never reached. Not unless ``strict``.
        """
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
        if self._asked is not None and furthest < self._asked:
            raise InvalidInputError(
                f"position {self._asked} was asked for, but the longest row had {furthest + 1} "
                f"tokens (positions 0 to {furthest})"
            )
        for intervention, touched in zip(self.interventions, self._touched, strict=True):
            if touched is not None and not bool(touched):
                places = ", ".join(site.name for site in intervention.sites(self.hooked))
                raise InvalidInputError(
                    f"{type(intervention).__name__} at {places} touched no token in {self.calls} "
                    "forward passes: its selection matched none (outside generate every token is "
                    "the prompt, unless prompt_length= is given); strict=False allows it"
                )


def _lengths(prompt_length: int | Tensor | None) -> Tensor | None:
    if prompt_length is None:
        return None
    lengths = torch.as_tensor(prompt_length).reshape(-1)
    if lengths.is_floating_point() or bool((lengths < 0).any()):
        raise InvalidInputError(
            f"prompt_length={prompt_length}: numbers of tokens are expected, one or one per row"
        )
    return lengths.long()


def _refuse_compiled(hooked: HookedModel) -> None:
    # A compiled graph is not traced again for hooks that were set later: they would not fire.
    modules: list[nn.Module] = [hooked.model, *hooked.model.modules()]
    for module in modules:
        compiled = getattr(module, "_compiled_call_impl", None) is not None
        if compiled or type(module).__name__ == "OptimizedModule":
            raise InvalidInputError(
                f"{hooked.name} is wrapped by torch.compile, which skips hooks set later; inject "
                "into the model as it was before compiling (for torch.compile(model), that is "
                "model._orig_mod)"
            )
