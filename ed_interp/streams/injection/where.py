"""Which tokens an intervention touches: by position, phase, token, window or mask, combined.

Positions count the tokens of a row from 0 without padding, so they do not depend on a key-value
cache, on how the batch is padded, on the pieces in which the prompt is fed, or on beams. The
*prompt* of a row is the input of ``generate``; in a plain forward pass it is the whole row, unless
``inject(..., prompt_length=)`` gives its end. Cost: a few comparisons of a ``batch pos`` tensor in
each forward pass, shared by all sites.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.streams.injection.calls import View

Chosen = Bool[Tensor, "#batch #pos"]


class Selector(abc.ABC):
    """A :class:`Where`, or several under ``&``, ``|`` and ``~``; padding is never selected."""

    def __and__(self, other: Selector) -> Selector:
        if not isinstance(other, Selector):
            return NotImplemented
        return _Combined(torch.logical_and, (self, other))

    def __or__(self, other: Selector) -> Selector:
        if not isinstance(other, Selector):
            return NotImplemented
        return _Combined(torch.logical_or, (self, other))

    def __invert__(self) -> Selector:
        return _Combined(torch.logical_not, (self,))

    @property
    def everything(self) -> bool:
        """Whether it selects every token, whatever the pass."""
        return False

    @abc.abstractmethod
    def leaves(self) -> Iterator[Where]:
        """The conditions it is made of."""

    @abc.abstractmethod
    def select(self, view: View) -> Chosen:
        """True where a token of this forward pass is selected."""


@dataclasses.dataclass(frozen=True, eq=False)
class Where(Selector):
    """Tokens that meet all conditions; ``Where()`` is every token.

    ``Where(positions=-1)`` is the last token of the prompt,
    ``Where(phase="generation") & ~Where(tokens=[13])`` every generated token except id 13,
    ``Where(window=(-4, 8))`` the last four tokens of the prompt and the first eight after it.

    Raises:
        InvalidInputError: a condition that is invalid or can never be met.
    """

    positions: int | slice | Sequence[int | slice] | Int[Tensor, " n"] | None = None
    """Positions in the row's sequence from 0. A negative one counts from the end of the row's
    prompt (-1 is its last token), also in slices; a slice without an end continues into the
    generated tokens. It is an error if no row reaches an integer position; a slice may go beyond
    the last token."""
    phase: str | None = None
    """``prompt`` (tokens given) or ``generation`` (tokens generated)."""
    tokens: int | Sequence[int] | Int[Tensor, " n"] | None = None
    """Token ids: the positions whose input is one of them."""
    window: tuple[int | None, int | None] | None = None
    """From the first to before the second, counted from the end of the row's prompt: 0 is the
    first generated token, -1 the last of the prompt; None leaves that end open."""
    mask: Bool[Tensor, "batch pos"] | Bool[Tensor, " pos"] | None = None
    """By position (padding not counted), for all rows or one per row; False beyond its width."""

    def __post_init__(self) -> None:
        if self.phase not in (None, "prompt", "generation"):
            raise InvalidInputError(
                f"phase must be 'prompt', 'generation' or None (both), got {self.phase!r}"
            )
        self._parts  # noqa: B018  checks the positions
        if self.tokens is not None and not _listed(self.tokens, "tokens"):
            raise InvalidInputError("tokens must hold at least one token id, got none")
        if self.window is not None:
            start, stop = self.window
            if start is not None and stop is not None and start >= stop:
                raise InvalidInputError(f"window must end after it begins, got {self.window}")
        if self.mask is not None and not bool(self.mask.any()):
            raise InvalidInputError("mask must select at least one position, got none")

    @cached_property
    def _parts(self) -> tuple[list[int], list[slice]]:
        """The positions, integers and slices apart."""
        given: Any = self.positions
        if isinstance(given, Tensor):
            given = given.reshape(-1).tolist()
        entries = [given] if given is None or isinstance(given, (int, slice)) else list(given)
        if not entries:
            raise InvalidInputError("positions must hold at least one position, got none")
        spans = [entry for entry in entries if isinstance(entry, slice)]
        for span in spans:
            if span.step is not None and span.step < 1:
                raise InvalidInputError(f"the step of positions must be 1 or greater, got {span}")
            start, stop = span.start, span.stop
            # One from the start and one from the end compare only once the prompt is known.
            if None not in (start, stop) and (start < 0) == (stop < 0) and start >= stop:
                raise InvalidInputError(f"positions must end after they begin, got {span}")
        whole = [entry for entry in entries if entry is not None and not isinstance(entry, slice)]
        return _listed(whole, "positions"), spans

    @property
    def everything(self) -> bool:
        return all(getattr(self, field.name) is None for field in dataclasses.fields(self))

    @property
    def furthest(self) -> int:
        """The largest integer position counted from the start; -1 if there is none."""
        return max((entry for entry in self._parts[0] if entry >= 0), default=-1)

    def leaves(self) -> Iterator[Where]:
        yield self

    def select(self, view: View) -> Chosen:
        here = view.positions
        chosen = torch.ones_like(here, dtype=torch.bool)
        if self.positions is not None:
            chosen = chosen & self._at_positions(view)
        if self.phase is not None:
            chosen = chosen & (view.generated() == (self.phase == "generation"))
        if self.tokens is not None:
            wanted = torch.as_tensor(_listed(self.tokens, "tokens"), device=view.ids.device)
            chosen = chosen & torch.isin(view.ids, wanted)
        if self.window is not None:
            start, stop = self.window
            offset = here - view.ends()[:, None]
            chosen = chosen if start is None else chosen & (offset >= start)
            chosen = chosen if stop is None else chosen & (offset < stop)
        if self.mask is not None:
            table = view.by_row(self.mask if self.mask.ndim == 2 else self.mask[None], "the mask")
            width = table.shape[1]
            # Looked up by position, not by column: under a cache a pass has the last columns only.
            held = table.gather(1, here.clamp(0, width - 1))
            chosen = chosen & held & (here >= 0) & (here < width)
        return chosen

    def _at_positions(self, view: View) -> Chosen:
        here = view.positions
        chosen = torch.zeros_like(here, dtype=torch.bool)
        integers, spans = self._parts
        for entry in integers:
            chosen = chosen | (here == _resolved(entry, view))
        for span in spans:
            first = 0 if span.start is None else _resolved(span.start, view, clamp=True)
            inside = here >= first
            if span.stop is not None:
                inside = inside & (here < _resolved(span.stop, view, clamp=True))
            if span.step not in (None, 1):
                inside = inside & ((here - first) % span.step == 0)
            chosen = chosen | inside
        return chosen


def _resolved(entry: int, view: View, *, clamp: bool = False) -> int | Tensor:
    """The absolute position: one for all rows, or, counted from the end, one per row."""
    if entry >= 0:
        return entry
    ends = view.ends()
    place = ends + entry
    if clamp:
        place = place.clamp(min=0)
    elif bool((place < 0).any()):
        row = int((place < 0).nonzero()[0])
        raise InvalidInputError(
            f"positions must be at least {-int(ends[row])} in row {row}, whose prompt has "
            f"{int(ends[row])} tokens, got {entry}"
        )
    return place[:, None]


def _listed(values: int | Sequence[int] | Tensor, what: str) -> list[int]:
    if isinstance(values, Tensor):
        values = values.reshape(-1).tolist()
    listed = [values] if isinstance(values, int) else list(values)
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(f"{what} must be integers, got {value!r}")
    return listed


@dataclasses.dataclass(frozen=True, eq=False)
class _Combined(Selector):
    """Selectors under a logical operation."""

    operation: Callable[..., Chosen]
    parts: tuple[Selector, ...]

    def leaves(self) -> Iterator[Where]:
        for part in self.parts:
            yield from part.leaves()

    def select(self, view: View) -> Chosen:
        return self.operation(*(part.select(view) for part in self.parts))
