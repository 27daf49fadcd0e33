"""Which tokens an intervention touches: by position, phase, token, window or mask, combined.

Positions count the tokens of a row from 0, padding left out, so they are the same with and without
a key-value cache, however the batch is padded, in whatever pieces the prompt is fed, and in every
beam. The *prompt* of a row is what ``generate`` was given; in a plain forward pass, everything,
unless ``inject(..., prompt_length=)`` says where it ends. Cost: a few comparisons of a
``batch pos`` tensor in each forward pass, shared by all sites.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.streams.injection.calls import View

Chosen = Bool[Tensor, "#batch #pos"]


class Selector:
    """What ``&``, ``|`` and ``~`` make of :class:`Where`; padding is never selected."""

    def __and__(self, other: Selector) -> Selector:
        return _Both(self, other) if isinstance(other, Selector) else NotImplemented

    def __or__(self, other: Selector) -> Selector:
        return _Either(self, other) if isinstance(other, Selector) else NotImplemented

    def __invert__(self) -> Selector:
        return _Not(self)

    @property
    def everything(self) -> bool:
        """Whether it selects every token without looking."""
        return False

    def leaves(self) -> Iterator[Where]:
        """The conditions it is made of."""
        raise NotImplementedError

    def select(self, view: View) -> Chosen:
        """True where a token of this forward pass is selected."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Where(Selector):
    """Tokens that meet every condition given; ``Where()`` is every token.

    ``Where(positions=-1)`` is the last token of the prompt,
    ``Where(phase="generation") & ~Where(tokens=[13])`` every generated token but number 13,
    ``Where(window=(-4, 8))`` the last four tokens of the prompt and the first eight after it.

    Raises:
        InvalidInputError: a condition that cannot be met or understood.
    """

    positions: int | slice | Sequence[int | slice] | Int[Tensor, " n"] | None = None
    """Positions in the row's sequence from 0. A negative one counts from the end of the row's
    prompt (-1 is its last token), also at the ends of slices; a slice without end goes on into
    what is generated. An integer must exist (it is an error if no row gets that far), a slice may
    reach beyond."""
    phase: str | None = None
    """``prompt`` or ``generation``: tokens given, or tokens generated."""
    tokens: int | Sequence[int] | Int[Tensor, " n"] | None = None
    """Token ids: the positions at which one of them is the input."""
    window: tuple[int | None, int | None] | None = None
    """From the first to before the second, counted from the end of the row's prompt: 0 is the
    first generated token, -1 the last of the prompt; None leaves that end open."""
    mask: Bool[Tensor, "batch pos"] | Bool[Tensor, " pos"] | None = None
    """By position (padding not counted), for all rows or one per row; False beyond its width."""

    def __post_init__(self) -> None:
        if self.phase not in (None, "prompt", "generation"):
            raise InvalidInputError(
                f"phase={self.phase!r}: 'prompt' or 'generation' is expected, or None for both"
            )
        self._spans()
        self._integers()
        if self.tokens is not None and not _listed(self.tokens, "tokens"):
            raise InvalidInputError("tokens=[]: give at least one token id, or leave it out")
        if self.window is not None:
            start, stop = self.window
            if start is not None and stop is not None and start >= stop:
                raise InvalidInputError(f"window={self.window}: it ends before it begins")
        if self.mask is not None and not bool(self.mask.any()):
            raise InvalidInputError("the mask selects no position")

    def _entries(self) -> list[int | slice]:
        positions = self.positions
        if positions is None:
            return []
        if isinstance(positions, slice):
            return [positions]
        if isinstance(positions, (int, Tensor)):
            return list(_listed(positions, "positions"))
        entries = list(positions)
        if not entries:
            raise InvalidInputError("positions=[]: give at least one position, or leave it out")
        whole = [entry for entry in entries if not isinstance(entry, slice)]
        return [*_listed(whole, "positions"), *(e for e in entries if isinstance(e, slice))]

    def _integers(self) -> list[int]:
        return [entry for entry in self._entries() if isinstance(entry, int)]

    def _spans(self) -> list[slice]:
        spans = [entry for entry in self._entries() if isinstance(entry, slice)]
        for span in spans:
            if span.step is not None and span.step < 1:
                raise InvalidInputError(f"positions={span}: a step of at least 1 is expected")
            start, stop = span.start, span.stop
            comparable = None not in (start, stop) and (start < 0) == (stop < 0)
            if comparable and start >= stop:
                raise InvalidInputError(f"positions={span}: it ends before it begins")
        return spans

    @property
    def everything(self) -> bool:
        return all(getattr(self, field.name) is None for field in dataclasses.fields(self))

    @property
    def furthest(self) -> int | None:
        """The largest integer position asked for; None if there is none."""
        return max((entry for entry in self._integers() if entry >= 0), default=None)

    def leaves(self) -> Iterator[Where]:
        yield self

    def select(self, view: View) -> Chosen:
        conditions = []
        if self.positions is not None:
            conditions.append(self._at_positions(view))
        if self.phase is not None:
            generated = view.generated()
            conditions.append(generated if self.phase == "generation" else ~generated)
        if self.tokens is not None:
            wanted = torch.as_tensor(_listed(self.tokens, "tokens"), device=view.ids.device)
            conditions.append(torch.isin(view.ids, wanted))
        if self.window is not None:
            start, stop = self.window
            offset = view.positions - view.ends()[:, None]
            inside = torch.ones_like(offset, dtype=torch.bool)
            if start is not None:
                inside = inside & (offset >= start)
            if stop is not None:
                inside = inside & (offset < stop)
            conditions.append(inside)
        if self.mask is not None:
            conditions.append(self._at_mask(view, self.mask))
        chosen = torch.ones_like(view.positions, dtype=torch.bool)
        for condition in conditions:
            chosen = chosen & condition
        return chosen

    def _at_positions(self, view: View) -> Chosen:
        here = view.positions
        chosen = torch.zeros_like(here, dtype=torch.bool)
        for entry in self._integers():
            chosen = chosen | (here == _resolved(entry, view))
        for span in self._spans():
            first = 0 if span.start is None else _resolved(span.start, view, clamp=True)
            inside = here >= first
            if span.stop is not None:
                inside = inside & (here < _resolved(span.stop, view, clamp=True))
            if span.step not in (None, 1):
                inside = inside & ((here - first) % span.step == 0)
            chosen = chosen | inside
        return chosen

    def _at_mask(self, view: View, mask: Tensor) -> Chosen:
        table = view.by_row(mask if mask.ndim == 2 else mask[None], "the mask")
        width = table.shape[1]
        inside = (view.positions >= 0) & (view.positions < width)
        return inside & table.gather(1, view.positions.clamp(0, width - 1))


def _resolved(entry: int, view: View, *, clamp: bool = False) -> int | Tensor:
    """An absolute position: the same for all rows, or (counted from the end) one for each."""
    if entry >= 0:
        return entry
    ends = view.ends()
    place = ends + entry
    if clamp:
        place = place.clamp(min=0)
    elif bool((place < 0).any()):
        row = int((place < 0).nonzero()[0])
        raise InvalidInputError(
            f"position {entry} of row {row}: its prompt has only {int(ends[row])} tokens"
        )
    return place[:, None]


def _listed(values: int | Sequence[int | slice] | Tensor, what: str) -> list[int]:
    if isinstance(values, Tensor):
        return [int(value) for value in values.reshape(-1).tolist()]
    listed = [values] if isinstance(values, int) else list(values)
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(f"{what}: integers are expected, found {value!r}")
    return [int(value) for value in listed if not isinstance(value, slice)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Both(Selector):
    one: Selector
    other: Selector

    def leaves(self) -> Iterator[Where]:
        yield from self.one.leaves()
        yield from self.other.leaves()

    def select(self, view: View) -> Chosen:
        return self.one.select(view) & self.other.select(view)


@dataclasses.dataclass(frozen=True, eq=False)
class _Either(_Both):
    def select(self, view: View) -> Chosen:
        return self.one.select(view) | self.other.select(view)


@dataclasses.dataclass(frozen=True, eq=False)
class _Not(Selector):
    one: Selector

    def leaves(self) -> Iterator[Where]:
        yield from self.one.leaves()

    def select(self, view: View) -> Chosen:
        return ~self.one.select(view)
