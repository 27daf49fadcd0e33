"""What the masks and position ids of a forward pass mean for a recurrence along the sequence.

A token counts when it is not padding; padding, wherever it is, leaves the node states as they are.
A sequence begins anew where the position ids say 0 again (packed sequences) or where a
four-dimensional mask lets a token see nothing before itself.

``plan`` turns that into groups of equal rows for the scan: the tokens that count are moved
together, scanned without any mask, and moved back. COST: once per forward pass, O(tokens).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from ed_interp.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Group:
    """Sequences of similar length that are scanned together."""

    source: Int[Tensor, "row time"]
    """Index of each token in the flattened batch; the number of tokens where a row has ended."""
    starts: Int[Tensor, " row"]
    """Row whose starting states it takes; the number of rows for zero states."""
    ends: Int[Tensor, " row"]
    """Row whose final states it provides; the number of rows if another sequence does."""
    lengths: Int[Tensor, " row"]
    """Tokens of each sequence."""


Plan = tuple[Group, ...]
"""How the tokens that count are laid out for the scan."""
Reading = tuple[Tensor | None, Tensor | None]
"""Of a mask, each ``row time``: the tokens that count (None if all do), and those before which the
states are zero again (None if there are none)."""


def read_mask(mask: Any, *, rows: int, time: int, past: int) -> Reading:
    """Read an attention mask of two or four dimensions, or a dictionary of such by layer kind.

    Args:
        mask: As given to a ``transformers`` model; 1 or True is a visible token, and a float mask
            of four dimensions is added to the scores.
        rows: Sequences in the batch.
        time: Tokens of each in this pass.
        past: Tokens already in the cache.

    Raises:
        InvalidInputError: tokens that see some of what precedes them but not the token just before:
            a tree of sequences has no order along which states could be carried.
    """
    if isinstance(mask, dict):
        # A sliding window hides tokens that were read; a mask of full attention hides none.
        candidates = [mask.get("full_attention"), *mask.values()]
        mask = next((one for one in candidates if one is not None), None)
    if not isinstance(mask, Tensor):
        return None, None
    if mask.ndim == 2:
        if mask.shape[1] < time:
            raise InvalidInputError(
                f"the attention mask covers {mask.shape[1]} tokens, fewer than the {time} given; "
                "pass one column per token, cached ones included"
            )
        # Cached tokens come first, so the last columns are those of this pass.
        real = mask[:, -time:].bool() if mask.shape[1] > time else mask.bool()
        return real.expand(rows, time), None
    if mask.ndim != 4:
        return None, None
    # What is added to the scores of hidden tokens is anything from -10000 to minus infinity.
    visible = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] > -5000
    visible = visible.expand(rows, -1, -1)
    # Keys are laid out as past + time (a static cache adds empty places behind), unless a window
    # has dropped the oldest: then the present tokens are the last ones.
    first = past if visible.shape[2] >= past + time else visible.shape[2] - time
    return _read_square(visible[:, :, first : first + time])


def _read_square(visible: Bool[Tensor, "row time key"]) -> Reading:
    time = visible.shape[1]
    # Every real token sees itself, padding does not.
    real = visible.diagonal(dim1=1, dim2=2)
    if time == 1 or torch.compiler.is_compiling():
        return real, None
    index = torch.arange(time, device=visible.device)
    # Index of the last real token before each one: the running maximum of real indices, shifted
    # by one so that a token does not find itself; -1 where it is the first.
    before = F.pad(torch.where(real, index, -1).cummax(1).values[:, :-1], (1, 0), value=-1)
    # Whether each sees that token; the first of a row and padding have nothing to follow.
    follows = visible.gather(2, before.clamp(min=0)[..., None])[..., 0] | (before < 0) | ~real
    if follows.all():
        return real, None
    # What follows nothing must see nothing earlier; otherwise sequences branch.
    earlier = (visible & (index[None, :, None] > index)).any(2)
    if (~follows & earlier).any():
        raise InvalidInputError(
            "feedback nodes carry states from each token to the next, but the attention mask makes "
            "a tree (tokens that see earlier ones, not the one just before); run the branches as "
            "separate sequences with a two-dimensional mask"
        )
    return real, ~follows


def restarts_of(
    position_ids: Any, real: Tensor | None, seen: Tensor | None
) -> Bool[Tensor, "row time"] | None:
    """Tokens with position 0 that are not the first token of their row.

    Args:
        position_ids: As given to the model, ``row time`` or None.
        real: Tokens that count.
        seen: Rows with tokens in the cache already; None if there are none.
    """
    if not isinstance(position_ids, Tensor) or position_ids.ndim != 2:
        return None
    zero = position_ids == 0
    if real is not None:
        zero = zero & real
        # A token counted before this one: the running count, shifted by one.
        behind = F.pad(real.cumsum(1)[:, :-1], (1, 0)) > 0
    else:
        behind = (torch.arange(zero.shape[1], device=zero.device) > 0).expand(zero.shape)
    if seen is not None:
        behind = behind | seen[:, None].to(zero.device)
    return zero & behind


def plan(real: Tensor | None, restarts: Tensor | None, *, final: bool) -> Plan | None:
    """The layout for the scan, or None if the tokens can be scanned as they are.

    Args:
        real: Tokens that count, ``row time``; None if all do.
        restarts: Tokens before which states are zero again; None if there is none.
        final: Whether the states after the last token are needed. Padding behind the last
            token then matters, otherwise it does not.
    """
    # Looking at values (any, all) would break the graph; a compiled pass takes the mask as it is.
    compiling = torch.compiler.is_compiling()
    if not compiling:
        if restarts is not None and not restarts.any():
            restarts = None
        if real is not None and restarts is None:
            # Padding on the right only: no token counts after one that does not.
            contiguous = real[:, 1:] <= real[:, :-1] if not final else real
            if contiguous.all() and (final or bool(real[:, 0].all())):
                real = None
    if restarts is not None and not compiling:
        return _by_sequence(real, restarts)
    return None if real is None else _by_row(real)


def _by_row(real: Tensor) -> Plan:
    """One sequence per row; its tokens that count first, in order."""
    rows, time = real.shape
    row = torch.arange(rows, device=real.device)
    lengths = real.sum(1)
    # A stable sort by "does not count" moves the tokens that do to the front, in their order.
    order = torch.argsort((~real).to(torch.uint8), dim=1, stable=True)
    within = torch.arange(time, device=real.device) < lengths[:, None]
    # rows * time is one past the last token: the row of zeros that `arranged` appends.
    source = torch.where(within, row[:, None] * time + order, rows * time)
    return (Group(source, row, row, lengths),)


def _by_sequence(real: Tensor | None, restarts: Tensor) -> Plan:
    """Rows cut where sequences begin, grouped by length so that little is padded."""
    rows, time = restarts.shape
    device = restarts.device
    real = torch.ones_like(restarts) if real is None else real
    # Sequences are numbered through the batch: row r has count[r] of them, from offset[r] on.
    count = restarts.sum(1) + 1
    offset = count.cumsum(0) - count
    # For each token that counts, row after row: the number of its sequence, and its flat index.
    sequence = (restarts.cumsum(1) + offset[:, None])[real]
    token = torch.arange(rows * time, device=device).view(rows, time)[real]
    total = int(count.sum())
    lengths = torch.bincount(sequence, minlength=total)
    # Sequence q is token[begin[q] : begin[q] + lengths[q]].
    begin = lengths.cumsum(0) - lengths
    row = torch.repeat_interleave(torch.arange(rows, device=device), count)
    index = torch.arange(total, device=device)
    is_first, is_last = index == offset[row], index == (offset + count - 1)[row]
    # Only the first of a row goes on from its starting states, only the last one leaves its own;
    # for the others the index is one past the last row, where `arranged` keeps a row of zeros.
    starts = torch.where(is_first, row, rows)
    ends = torch.where(is_last, row, rows)
    groups = []
    # Lengths within a factor of two share a group, so at most half of it is padding.
    sizes = [length.bit_length() for length in lengths.tolist()]
    for size in sorted(set(sizes)):
        chosen = torch.tensor([i for i, s in enumerate(sizes) if s == size], device=device)
        step = torch.arange(int(lengths[chosen].max()), device=device)
        within = step < lengths[chosen, None]
        # Past the end of a sequence the place may lie beyond all tokens; `within` discards it.
        place = (begin[chosen, None] + step).clamp(max=max(0, token.numel() - 1))
        tokens = token[place] if token.numel() else place
        source = torch.where(within, tokens, rows * time)
        groups.append(Group(source, starts[chosen], ends[chosen], lengths[chosen]))
    return tuple(groups)
