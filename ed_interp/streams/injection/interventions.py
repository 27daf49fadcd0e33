"""What is written to the stream: add, ablate, clamp, replace, or a custom function.

All but :class:`Transform` share one formula. Each proposes a change to a state ``h``
(``u`` is the vector at unit length)::

    Add      change = v                              Ablate   change = -(h . u) u
    Replace  change = v - h                          Clamp    change = (value - h . u) u

    h <- h + coefficient[row] * gate[row] * exp(-t / decay) * change       at selected tokens

where ``t`` counts the generated tokens (0 in the prompt, 1 at the first one). So a coefficient or
gate of 0 leaves the row as it is, and 1 makes the full change. Projections are computed in float32
at least, whatever the model's precision; unselected states stay bit for bit the same.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.sites import Site
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection.calls import View
from ed_interp.streams.injection.where import Selector, Where

PerRow: TypeAlias = float | int | Tensor
"""One number, or a tensor of one per row of the batch: of the prompts, if beams make more rows."""

Strength: TypeAlias = float | Tensor
Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(states ``batch pos d_model``, selected ``batch pos``) -> new states of the same shape."""


class Intervention(abc.ABC):
    """A change written at one or more sites; see the module's docstring."""

    where: Selector

    @abc.abstractmethod
    def sites(self, hooked: HookedModel) -> list[Site]:
        """The sites it writes at, checked against the model."""

    def check(self, hooked: HookedModel) -> None:
        """Refuse a model it does not fit, before any hook is set."""
        self.sites(hooked)

    @abc.abstractmethod
    def apply(
        self,
        states: Float[Tensor, "batch pos d_model"],
        selected: Bool[Tensor, "batch pos"] | None,
        site: Site,
        view: View,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The states after the intervention; ``selected`` None is every token."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Along(Intervention):
    """An intervention with a vector and a strength."""

    direction: Direction | Tensor
    """A :class:`Direction`, or a vector ``d_model``, one per row ``batch d_model``, or one per
    position too, ``batch pos d_model`` (``batch`` may be 1; positions beyond are not touched)."""
    site: str | Site | None = None
    """Required for a plain vector; a Direction is applied at all of its sites, or at this one."""
    _: dataclasses.KW_ONLY
    coefficient: PerRow = 1.0
    """Strength; see the module's docstring."""
    where: Selector = dataclasses.field(default_factory=Where)
    """Selected tokens."""
    gate: PerRow | None = None
    """Per row, multiplies the coefficient: 0 or False leaves that row alone."""
    decay: float | int | None = None
    """Number of generated tokens over which the strength falls by a factor of e."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.direction, Tensor):
            if self.site is None:
                raise InvalidInputError(
                    f"{name} of a plain vector must be given a site, got none; for instance "
                    f"{name}(vector, 'blocks.3.hook_resid_post')"
                )
            if self.direction.ndim not in (1, 2, 3):
                raise InvalidInputError(
                    f"the vector of {name} must have the shape d_model, (batch, d_model) or "
                    f"(batch, pos, d_model), got {tuple(self.direction.shape)}"
                )
            finite(self.direction, f"the vector of {name}")
        for what, value in (("coefficient", self.coefficient), ("gate", self.gate)):
            per_row(value, f"{what} of {name}")
        if self.decay is not None and not (math.isfinite(self.decay) and self.decay > 0):
            raise InvalidInputError(
                f"decay must be a number of tokens above 0, or None, got {self.decay}"
            )

    def sites(self, hooked: HookedModel) -> list[Site]:
        if self.site is not None:
            return [hooked.site(self.site)]
        assert isinstance(self.direction, Direction)
        return [hooked.site(site) for site in self.direction.sites]

    def vector(self, site: Site) -> Tensor:
        """The vector for ``site``, as it was given."""
        return self.direction[site] if isinstance(self.direction, Direction) else self.direction

    def check(self, hooked: HookedModel) -> None:
        name = type(self).__name__
        if isinstance(self.direction, Direction):
            self.direction.check(hooked)
        for site in self.sites(hooked):
            vector = self.vector(site)
            if vector.shape[-1] != hooked.d_model:
                raise InvalidInputError(
                    f"the vector of {name} at {site.name} must have {hooked.d_model} numbers, the "
                    f"width of {hooked.name}, got {vector.shape[-1]}"
                )
            written, dtype = self.largest(vector), hooked.dtype
            limit = torch.finfo(dtype).max if dtype.is_floating_point else math.inf
            if written > limit:
                raise InvalidInputError(
                    f"{name} at {site.name} must write at most {limit:.3g} in "
                    f"{str(dtype).removeprefix('torch.')}, got {written:.3g}; use a smaller "
                    "coefficient or dtype='float32'"
                )

    def largest(self, vector: Tensor) -> float:
        """The largest number it would write to a stream of zeros."""
        return largest(vector) * largest(self.coefficient) * largest(self.gate)

    def strength(self, view: View, like: Tensor) -> Strength:
        """Coefficient, gate and decay together: a number, or ``batch pos 1`` (axes may be 1)."""
        total: Strength = 1.0
        for what, value in (("coefficient", self.coefficient), ("gate", self.gate)):
            if value is not None:
                total = total * spread(value, f"{what} of {type(self).__name__}", view, like)
        if self.decay is not None and (age := view.age()) is not None:
            total = total * torch.exp(-age / self.decay).to(like)[..., None]
        return total

    def vector_for(
        self, states: Tensor, selected: Tensor | None, site: Site, view: View
    ) -> tuple[Tensor, Tensor | None]:
        """The vector per row and position (axes may be 1), and the selection it leaves."""
        # In float32 at least; float64 for a model in float64.
        dtype = torch.promote_types(states.dtype, torch.float32)
        vector = self.vector(site).to(states.device, dtype)
        if vector.ndim == 1:
            return vector, selected
        table = view.by_row(vector, f"the vector of {type(self).__name__}").to(states.device)
        if vector.ndim == 2:
            return table[:, None], selected
        # Each token takes the entry of its own position in its row: under a cache or padding that
        # is not its column in this pass. Out-of-range positions read any entry and are deselected.
        places = view.positions.to(states.device)
        inside = (places >= 0) & (places < table.shape[1])
        rows = torch.arange(table.shape[0], device=states.device)[:, None]
        vector = table[rows, places.clamp(0, table.shape[1] - 1)]
        return vector, inside if selected is None else inside & selected


@dataclasses.dataclass(frozen=True, eq=False)
class Add(_Along):
    """Add ``coefficient`` times the vector."""

    def apply(self, states: Tensor, selected: Tensor | None, site: Site, view: View) -> Tensor:
        vector, selected = self.vector_for(states, selected, site, view)
        # Rounded once, to the model's precision, then added there: as a bias would be. One
        # product and one sum of the whole stream, where `written` would take a cast and a where.
        change = (vector * self.strength(view, vector)).to(states.dtype)
        if selected is not None:
            change = change * selected[..., None]
        return states + change


@dataclasses.dataclass(frozen=True, eq=False)
class _Writing(_Along):
    """An intervention whose new states depend on the old ones, or replace them."""

    def apply(self, states: Tensor, selected: Tensor | None, site: Site, view: View) -> Tensor:
        vector, selected = self.vector_for(states, selected, site, view)
        strength = self.strength(view, vector)
        new = self.written(states.to(vector.dtype), vector, strength, view).to(states.dtype)
        return new if selected is None else torch.where(selected[..., None], new, states)

    @abc.abstractmethod
    def written(self, states: Tensor, vector: Tensor, strength: Strength, view: View) -> Tensor:
        """The new states of all tokens, in float32 at least."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Projecting(_Writing):
    """An intervention on the component along the direction; its length has no effect."""

    def check(self, hooked: HookedModel) -> None:
        super().check(hooked)
        for site in self.sites(hooked):
            if not bool(self.vector(site).any(-1).all()):
                raise InvalidInputError(
                    f"the vector of {type(self).__name__} at {site.name} must have a direction, "
                    "got zeros"
                )

    def largest(self, vector: Tensor) -> float:
        return largest(self.coefficient) * largest(self.gate)

    def target(self, component: Tensor, view: View) -> Strength:
        """The value that the component along the direction is set to."""
        return 0.0

    def written(self, states: Tensor, vector: Tensor, strength: Strength, view: View) -> Tensor:
        # Divided by its largest entry first, so that squares neither overflow nor vanish.
        vector = vector / vector.abs().amax(-1, keepdim=True)
        unit = vector / vector.norm(dim=-1, keepdim=True)
        component = (states * unit).sum(-1, keepdim=True)
        change: Tensor = strength * (self.target(component, view) - component) * unit
        return states + change


@dataclasses.dataclass(frozen=True, eq=False)
class Ablate(_Projecting):
    """Project the direction out: afterwards the component along it is 0.

    Several are applied one after the other; unless their directions are orthogonal, a later one
    restores some of an earlier one's component. Orthogonalise first (``Direction.away_from``).
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Clamp(_Projecting):
    """Set the component along the direction (of unit length) to ``value``."""

    _: dataclasses.KW_ONLY
    value: PerRow
    """In units of the stream."""

    def __post_init__(self) -> None:
        super().__post_init__()
        per_row(self.value, "value of Clamp")

    def largest(self, vector: Tensor) -> float:
        return largest(self.value) * super().largest(vector)

    def target(self, component: Tensor, view: View) -> Strength:
        return spread(self.value, "value of Clamp", view, component)


@dataclasses.dataclass(frozen=True, eq=False)
class Replace(_Writing):
    """Put the vector in place of the state (a coefficient between 0 and 1 mixes them)."""

    def written(self, states: Tensor, vector: Tensor, strength: Strength, view: View) -> Tensor:
        # lerp gives exactly the vector at strength 1, which h + (v - h) does not.
        weight = torch.as_tensor(strength, dtype=states.dtype, device=states.device)
        return torch.lerp(states, vector.expand_as(states), weight.expand_as(states))


@dataclasses.dataclass(frozen=True, eq=False)
class Transform(Intervention):
    """A custom function at a site, for instance one that splices in an SAE's reconstruction.

    ``function(states, selected)`` gets the states of this forward pass ``batch pos d_model`` (under
    a cache only the new tokens), in the model's precision and on its device, and the selection
    ``batch pos``; it returns new states of the same shape. What it returns at tokens that are not
    selected (padding among them) is ignored. Gradients flow through it.
    """

    site: str | Site
    function: Function
    _: dataclasses.KW_ONLY
    where: Selector = dataclasses.field(default_factory=Where)

    def sites(self, hooked: HookedModel) -> list[Site]:
        return [hooked.site(self.site)]

    def apply(self, states: Tensor, selected: Tensor | None, site: Site, view: View) -> Tensor:
        if selected is None:
            selected = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        new: Any = self.function(states, selected)
        if not isinstance(new, Tensor) or new.shape != states.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise InvalidInputError(
                f"the function of Transform at {site.name} must return states of shape "
                f"{tuple(states.shape)}, got {got}"
            )
        return torch.where(selected[..., None], new.to(states.dtype), states)


def finite(values: Tensor, what: str) -> None:
    """Raise InvalidInputError unless all numbers are finite."""
    if not bool(torch.isfinite(values).all()):
        raise InvalidInputError(f"{what} must be finite, got NaN or infinity")


def per_row(value: PerRow | None, what: str) -> None:
    """Raise InvalidInputError unless it is a finite number, or a tensor of one per row."""
    if value is None:
        return
    if isinstance(value, Tensor):
        if value.ndim > 1:
            raise InvalidInputError(
                f"{what} must be one number per row of the batch, got shape {tuple(value.shape)}"
            )
        finite(value, what)
    elif not math.isfinite(value):
        raise InvalidInputError(f"{what} must be finite, got {value}")


def largest(value: PerRow | None) -> float:
    """The largest absolute number; 1 for None."""
    if value is None:
        return 1.0
    return float(value.detach().float().abs().max()) if isinstance(value, Tensor) else abs(value)


def spread(value: PerRow, what: str, view: View, like: Tensor) -> Strength:
    """A number unchanged; a tensor of one per row as ``batch 1 1``."""
    if not isinstance(value, Tensor):
        return value
    return view.by_row(value.reshape(-1), what)[:, None, None].to(like)
