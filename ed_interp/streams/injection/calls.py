"""What one forward pass says about the position of each token in its row.

A :class:`Call` is read from the arguments of the decoder (ids, masks, position ids, cache), a
:class:`Generation` from those of ``generate``. :class:`View` combines both for one injection:
absolute positions, the ends of prompts, and values per row repeated for beams. Where the position
of a token cannot be known it raises instead of guessing. Cost: a few small integer tensors per
forward pass, made on first use and shared by all sites.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError


@dataclasses.dataclass(eq=False)
class Generation:
    """One running ``generate``: whose prompts, and how long they are."""

    batch: int | None
    """Number of prompts; beams and several samples of a prompt make more rows."""
    width: int | None
    """Tokens of the longest prompt, padding included; None if only the first pass shows it."""
    mask: Tensor | None
    """The mask given with them."""
    lengths: Int[Tensor, " rows"] | None = None
    """Real tokens of each prompt; None before the first forward pass."""

    def learn(self, call: Call) -> None:
        """Set the lengths from the mask of ``generate``, or else from the first forward pass."""
        if self.lengths is not None:
            return
        device = call.device
        if self.mask is not None and self.mask.ndim == 2:
            own = self.mask
            if self.width is not None and own.shape[1] == self.width + call.virtual:
                own = own[:, call.virtual :]  # PEFT has put its virtual tokens in front
            self.lengths = own.to(device).long().sum(1)
            return
        width = call.width - call.virtual if self.width is None else self.width
        seen = call.mask
        if seen is not None:
            prompt = seen[:, call.virtual : call.virtual + width].to(device).long()
            # Fed in pieces, the first mask is shorter than the prompt. Padding is on the left, so
            # everything behind that mask is real.
            self.lengths = prompt.sum(1) + (width - prompt.shape[1])
        elif call.position_ids is not None and call.width == width:
            # Without a mask, padding repeats a position or starts over: the largest one counts.
            self.lengths = call.position_ids.max(1).values + 1
        else:
            self.lengths = torch.full((call.rows,), width, device=device)


@dataclasses.dataclass(eq=False)
class Call:
    """The arguments of one forward pass that determine the positions of its tokens."""

    rows: int
    width: int
    device: torch.device
    ids: Int[Tensor, "rows width"] | None = None
    mask: Shaped[Tensor, "rows total"] | None = None
    """Over cached and new tokens."""
    position_ids: Int[Tensor, "rows width"] | None = None
    past: int = 0
    """Number of cached tokens."""
    virtual: int = 0
    """Tokens that a prompt-learning adapter puts before the sequence; they have no position."""
    arranged: bool = False
    """Whether a custom mask arranges the tokens, as in shot packing."""
    generation: Generation | None = None
    fired: set[tuple[int, str]] = dataclasses.field(default_factory=set)
    """Injection (by id) and name of each site that was passed."""
    views: dict[int, View] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, arguments: dict[str, Any], virtual: int, generation: Generation | None) -> Call:
        """The call from the named arguments of a ``transformers`` decoder."""
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        if ids is None and embeds is None:
            raise InvalidInputError(
                "a forward pass must be given input_ids or inputs_embeds, got neither"
            )
        given: Any = embeds if ids is None else ids
        rows, width = given.shape[:2]
        call = cls(rows, width, given.device, ids, virtual=virtual, generation=generation)
        # Virtual tokens in the cache count as past ones; positions subtract them again.
        call.past = _length_of(arguments.get("past_key_values"))
        mask = arguments.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            if mask.shape[1] < width or (call.past and mask.shape[1] == width):
                raise InvalidInputError(
                    f"attention_mask must cover {call.past} cached and {width} new tokens, got "
                    f"{mask.shape[1]} columns"
                )
            call.mask = mask.to(given.device)
        elif mask is not None:
            call.arranged = True
        # PEFT drops position ids under prompt learning; the mask or the cache gives them then.
        positions = arguments.get("position_ids")
        if isinstance(positions, Tensor) and positions.ndim == 2 and not virtual:
            call.position_ids = positions.to(given.device).expand(rows, width)
        if generation is not None:
            generation.learn(call)
        return call

    @cached_property
    def valid(self) -> Bool[Tensor, "rows width"] | None:
        """False at padding and virtual tokens; None where there is neither."""
        real = None if self.mask is None else self.mask[:, -self.width :] != 0
        if not self.virtual:
            return real
        inside = self.positions >= 0
        return inside if real is None else real & inside

    @cached_property
    def positions(self) -> Int[Tensor, "rows width"]:
        """Position of each token in its row, from 0, padding not counted."""
        if self.position_ids is not None:
            return self.position_ids
        if self.mask is not None:
            # The mask covers cached tokens too; the new ones are its last columns. A token's
            # position is the number of real tokens before it.
            return self.mask.long().cumsum(1)[:, -self.width :] - 1 - self.virtual
        start = self.past - self.virtual
        return torch.arange(start, start + self.width, device=self.device).expand(self.rows, -1)


@dataclasses.dataclass(eq=False)
class View:
    """A forward pass as one injection sees it."""

    call: Call
    prompt_length: Int[Tensor, " batch"] | None
    """Where prompts end, if the user gave it."""
    selections: dict[int, Any] = dataclasses.field(default_factory=dict)
    """Tokens selected by each Where (by id): a boolean tensor, or None for every token."""

    @property
    def positions(self) -> Int[Tensor, "rows width"]:
        """See :attr:`Call.positions`."""
        return self.call.positions

    @property
    def ids(self) -> Int[Tensor, "rows width"]:
        """Token ids; InvalidInputError if the model was given embeddings."""
        if self.call.ids is None:
            raise InvalidInputError(
                "the model must be given token ids for a selection by tokens, got embeddings or "
                "text; select by position"
            )
        return self.call.ids

    @cached_property
    def _known(self) -> Tensor | None:
        """Lengths of the prompts, one per row; None in a plain forward pass without them."""
        if self.prompt_length is not None:
            return self.by_row(self.prompt_length, "prompt_length")
        generation = self.call.generation
        if generation is None or generation.lengths is None:
            return None
        return self.by_row(generation.lengths, "the prompts")

    def ends(self) -> Int[Tensor, " rows"]:
        """Number of tokens in the prompt of each row; InvalidInputError if it is unknown."""
        if self._known is not None:
            return self._known
        if self.call.past > self.call.virtual or self.call.arranged:
            how = "is packed under a custom mask" if self.call.arranged else "continues a cache"
            raise InvalidInputError(
                f"the end of the prompt is unknown, as this forward pass {how}; give "
                "inject(..., prompt_length=), use positions from 0, or path='separate' in capture"
            )
        positions = self.positions
        if self.call.valid is not None:
            positions = positions.masked_fill(~self.call.valid, -1)
        return positions.max(1).values + 1

    def generated(self) -> Bool[Tensor, "rows width"]:
        """True at tokens behind the prompt."""
        age = self.age()
        return torch.zeros_like(self.positions, dtype=torch.bool) if age is None else age > 0

    def age(self) -> Int[Tensor, "rows width"] | None:
        """Number of generated tokens up to each token; None if all belong to the prompt."""
        if self._known is None:
            return None
        return (self.positions - self._known[:, None] + 1).clamp(min=0)

    def by_row(
        self, values: Shaped[Tensor, "batch *rest"], what: str
    ) -> Shaped[Tensor, "rows *rest"]:
        """One entry per row of this pass, from one for all, one per row, or one per prompt.

        Beams and samples of a prompt take the prompt's entry.
        """
        values = values.to(self.call.device)
        given, rows = values.shape[0], self.call.rows
        if given == rows:
            return values
        if given == 1:
            return values.expand(rows, *values.shape[1:])
        generation = self.call.generation
        batch = None if generation is None else generation.batch
        # generate() puts the beams and samples of one prompt into neighbouring rows.
        if generation is not None and rows % given == 0 and given == (batch or given):
            return values.repeat_interleave(rows // given, dim=0)
        raise InvalidInputError(
            f"{what} must have one row per prompt ({batch or rows}), or one for all, got {given}"
        )


def _length_of(cache: Any) -> int:
    """Number of tokens in a ``transformers`` cache, also of the old form."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    try:
        return int(cache[0][0].shape[-2])
    except (TypeError, IndexError, AttributeError) as error:
        raise InvalidInputError(
            f"past_key_values must be a transformers Cache, got a {type(cache).__name__}, whose "
            "length is unknown"
        ) from error
