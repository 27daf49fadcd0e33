"""What one forward pass was given, as far as it says which token of which row stands where.

A :class:`Call` is taken from the arguments of the decoder (ids, masks, position ids, cache), a
:class:`Generation` from those of ``generate``. :class:`View` puts both together for one injection:
absolute positions, the ends of prompts, and values per row spread over beams. Where the position
of a token cannot be known it raises instead of guessing. Cost: a few small integer tensors per
forward pass, made when first asked for and shared by all sites.
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
    """Prompts; beams and several samples of a prompt are more rows."""
    width: int | None
    """Of the prompts in the batch, padding included; None if only the first pass will tell."""
    mask: Tensor | None
    """The mask given with them."""
    lengths: Int[Tensor, " rows"] | None = None
    """Real tokens of each prompt: known with the first forward pass."""

    def learn(self, call: Call) -> None:
        """Take the lengths of the prompts from the arguments or from the first forward pass."""
        if self.lengths is not None:
            return
        device = call.device
        if self.mask is not None and self.mask.ndim == 2:
            own = self.mask
            if self.width is not None and own.shape[1] == self.width + call.virtual:
                own = own[:, call.virtual :]  # PEFT has put its virtual tokens in front.
            self.lengths = own.to(device).long().sum(1)
            return
        width = call.width - call.virtual if self.width is None else self.width
        seen = call.mask
        if seen is not None:
            prompt = seen[:, call.virtual : call.virtual + width].to(device).long()
            # Fed in pieces, the first mask is shorter than the prompt; padding stands on the left.
            self.lengths = prompt.sum(1) + (width - prompt.shape[1])
        elif call.position_ids is not None and call.width == width:
            self.lengths = call.position_ids.max(1).values + 1
        else:
            self.lengths = torch.full((call.rows,), width, device=device)


@dataclasses.dataclass(eq=False)
class Call:
    """The arguments of one forward pass that tell where its tokens stand."""

    rows: int
    width: int
    device: torch.device
    ids: Int[Tensor, "rows width"] | None = None
    mask: Shaped[Tensor, "rows total"] | None = None
    """Two-dimensional, over cached and present tokens."""
    position_ids: Int[Tensor, "rows width"] | None = None
    past: int = 0
    virtual: int = 0
    """Tokens that a prompt-learning adapter puts before the sequence; they have no position."""
    arranged: bool = False
    """Whether a mask of somebody's own arranges the tokens, as in shot packing."""
    generation: Generation | None = None
    fired: set[tuple[int, str]] = dataclasses.field(default_factory=set)
    """Injection (by id) and name of each site that was passed."""
    views: dict[int, View] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, arguments: dict[str, Any], virtual: int, generation: Generation | None) -> Call:
        """From the named arguments of a ``transformers`` decoder.

        Raises:
            InvalidInputError: a mask that cannot belong to these tokens and this cache.
        """
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        if ids is None and embeds is None:
            raise InvalidInputError("a forward pass without input_ids and inputs_embeds")
        given: Any = embeds if ids is None else ids
        rows, width = given.shape[:2]
        call = cls(rows, width, given.device, ids, virtual=virtual, generation=generation)
        call.past = _length_of(arguments.get("past_key_values"))
        mask = arguments.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            if mask.shape[1] < width or (call.past and mask.shape[1] == width):
                raise InvalidInputError(
                    f"an attention mask over {mask.shape[1]} tokens for {width} tokens behind "
                    f"{call.past} cached ones; it must cover both"
                )
            call.mask = mask.to(given.device)
        elif mask is not None:
            call.arranged = True
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
        if self.virtual:
            inside = self.positions >= 0
            return inside if real is None else real & inside
        return real

    @cached_property
    def positions(self) -> Int[Tensor, "rows width"]:
        """Of each token in its row, padding not counted."""
        if self.position_ids is not None:
            return self.position_ids
        if self.mask is not None:
            counted = self.mask.long().cumsum(1)[:, -self.width :] - 1
            return counted - self.virtual
        start = self.past - self.virtual
        return torch.arange(start, start + self.width, device=self.device).expand(self.rows, -1)


@dataclasses.dataclass(eq=False)
class View:
    """A forward pass as one injection sees it."""

    call: Call
    prompt_length: Int[Tensor, " batch"] | None
    """Where prompts end, if the user said so."""
    selections: dict[int, Any] = dataclasses.field(default_factory=dict)

    @property
    def positions(self) -> Int[Tensor, "rows width"]:
        """See :attr:`Call.positions`."""
        return self.call.positions

    @property
    def ids(self) -> Int[Tensor, "rows width"]:
        """Token ids.

        Raises:
            InvalidInputError: the model was given embeddings.
        """
        if self.call.ids is None:
            raise InvalidInputError(
                "tokens cannot be selected by id: the model was given embeddings (or text), not "
                "token ids; select them by position"
            )
        return self.call.ids

    @cached_property
    def _said(self) -> Tensor | None:
        """Lengths of prompts where they were given, one per row."""
        if self.prompt_length is not None:
            return self.by_row(self.prompt_length, "prompt_length")
        generation = self.call.generation
        if generation is None or generation.lengths is None:
            return None
        return self.by_row(generation.lengths, "the prompts")

    def ends(self) -> Int[Tensor, " rows"]:
        """How many tokens the prompt of each row has.

        Raises:
            InvalidInputError: it cannot be known: a prompt fed in pieces, or packed.
        """
        if self._said is not None:
            return self._said
        if self.call.past > self.call.virtual or self.call.arranged:
            how = "packed under a mask of its own" if self.call.arranged else "continues a cache"
            raise InvalidInputError(
                f"where the prompt ends is not known: this forward pass {how}; give "
                "inject(..., prompt_length=), use positions from 0, or path='separate' in capture"
            )
        positions = self.positions
        if self.call.valid is not None:
            positions = positions.masked_fill(~self.call.valid, -1)
        ends: Tensor = positions.max(1).values + 1
        return ends

    def generated(self) -> Bool[Tensor, "rows width"]:
        """True at tokens behind the prompt."""
        if self._said is None:
            return torch.zeros_like(self.positions, dtype=torch.bool)
        return self.positions >= self._said[:, None]

    def age(self) -> Int[Tensor, "rows width"] | None:
        """How many generated tokens there are up to each token; None if all are the prompt."""
        if self._said is None:
            return None
        return (self.positions - self._said[:, None] + 1).clamp(min=0)

    def by_row(
        self, values: Shaped[Tensor, "batch *rest"], what: str
    ) -> Shaped[Tensor, "rows *rest"]:
        """One entry per row of this pass: those of a prompt's beams and samples are the prompt's.

        Raises:
            InvalidInputError: neither one entry, nor one per prompt or row.
        """
        values = values.to(self.call.device)
        given, rows = values.shape[0], self.call.rows
        if given == rows:
            return values
        if given == 1:
            return values.expand(rows, *values.shape[1:])
        generation = self.call.generation
        if generation is not None and rows % given == 0 and given == (generation.batch or given):
            return values.repeat_interleave(rows // given, dim=0)
        batch = rows if generation is None or generation.batch is None else generation.batch
        raise InvalidInputError(f"{what} has {given} rows, but the batch has {batch}")


def _length_of(cache: Any) -> int:
    """Tokens in a ``transformers`` cache, also of the old form."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    try:
        return int(cache[0][0].shape[-2])
    except (TypeError, IndexError, AttributeError) as error:
        raise InvalidInputError(
            f"a cache of type {type(cache).__name__} does not tell how long it is; use a "
            "transformers Cache"
        ) from error
