"""The values of one layer's feedback nodes over a forward pass.

Puts together the layout of the tokens (:mod:`.masks`), the recurrence (:mod:`.scan`) and the states
that came before (:mod:`.state`). COST: that of the scan; one multiplication and addition per node
for a single token without gradients.
"""

from __future__ import annotations

import math
import re

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.adapters.bias_injection.masks import Plan
from ed_interp.adapters.bias_injection.scan import states
from ed_interp.adapters.bias_injection.state import FRAME, Frame
from ed_interp.errors import InvalidInputError

_CROSS = re.compile(
    r"(^|\.)(EncDecAttention|encoder_attn|crossattention|cross_attn|cross_attention)\."
    r"(.*\.)?(k|v|kv|key|value|k_proj|v_proj|kv_proj|c_attn)$"
)
# A head may be given the last tokens only (logits_to_keep), too few for feedback to follow.
_HEADS = re.compile(r"(^|\.)(lm_head|embed_out|output_projection)$")


def reads_encoder(key: str) -> bool:
    """Whether the layer of this name is a key or value projection of cross-attention."""
    return _CROSS.search(key) is not None


def shape_of(size: torch.Size, key: str) -> tuple[int, int, Frame | None]:
    """Rows and time of an input of this size to the layer called ``key``, and the pass it is in.

    The pass, whose masks and states apply, is None if the input is not a sequence of it. Inputs
    without a time axis are sequences of one token, which feedback does not change. A flat list of
    tokens that cannot be put back into sequences is refused.
    """
    frame = FRAME.get()
    # -1 outside a backward pass. Checkpointing that we could not wrap runs layers again there,
    # and without masks the gradients would be wrong.
    if frame is None and torch._C._current_graph_task_id() != -1:
        raise InvalidInputError(
            f"{key!r} runs again during the backward pass without the masks of its forward pass; "
            "turn checkpointing on by the model's own method (activation_checkpointing_enable), "
            "which carries them along"
        )
    if len(size) >= 3:
        # Heads or experts between row and time are rows of their own.
        rows, time = math.prod(size[:-2]), size[-2]
        fits = frame is not None and frame.fits(rows, time)
        if frame is not None and not fits and rows == frame.rows and _HEADS.search(key):
            raise InvalidInputError(
                f"{key!r} is given {time} of {frame.time} tokens, but its feedback nodes read all "
                "of them; leave it out with exclude_modules, or pass feedback='none'"
            )
        return rows, time, frame if fits else None
    rows = size[0] if len(size) == 2 else 1
    # Two dimensions: some models flatten the batch before their feed-forward layers.
    if frame is not None and frame.rows is not None and frame.time is not None:
        if rows == frame.rows * frame.time:
            return frame.rows, frame.time, frame
        if frame.time > 1 and rows != frame.rows:
            raise InvalidInputError(
                f"{key!r} is given {rows} tokens in no order ({frame.rows} sequences of "
                f"{frame.time} entered the model), so feedback has nothing to follow; leave it "
                "out with exclude_modules, or pass feedback='none'"
            )
    return rows, 1, None


def run(
    u: Float[Tensor, "row time node"],
    decay: Float[Tensor, "..."],
    frame: Frame | None,
    key: str,
    *,
    cross: bool,
) -> Float[Tensor, "row time node"]:
    """Values of the nodes at each token, before it is read.

    Args:
        u: What each token adds, float32.
        decay: Factor per token for each node, or the full transition matrix.
        frame: The pass of the input, which provides and keeps the states.
        key: Name of the layer and adapter.
        cross: Whether the tokens are those of the encoder.
    """
    rows, time, nodes = u.shape
    frame = None if cross else frame
    start = None if frame is None else frame.start(key, rows, nodes, u.device)
    first = u.new_zeros(rows, nodes) if start is None else start.to(u.dtype)
    layout = None if frame is None else frame.plan(rows, time)
    if cross:
        outer = FRAME.get()
        layout = None if outer is None else outer.encoder_plan(rows, time)
    # Decoding, one token at a time: the value is the state, and one step follows.
    if time == 1 and layout is None and not torch.is_grad_enabled():
        values = first[:, None]
        added, dense = u[:, 0], decay.ndim == 2
        final = first @ decay.T + added if dense else torch.addcmul(added, first, decay)
    else:
        values, final = arranged(u, decay, first, layout)
    if frame is not None and frame.keeps:
        frame.keep(key, final, values)
    return values


def arranged(
    u: Float[Tensor, "row time node"],
    decay: Float[Tensor, "..."],
    start: Float[Tensor, "row node"],
    layout: Plan | None,
) -> tuple[Float[Tensor, "row time node"], Float[Tensor, "row node"]]:
    """Values at each token and after the last, over tokens laid out by a plan.

    Tokens that do not count get zero: nothing that counts reads their values.
    """
    if layout is None:
        all_values = states(u, decay, start)
        return all_values[:, :-1], all_values[:, -1]
    rows, time, nodes = u.shape
    # A last row of zeros in each: indices one past the end read nothing from it, and what they
    # write to it is cut off below.
    nothing = u.new_zeros(1, nodes)
    flat = torch.cat([u.reshape(rows * time, nodes), nothing])
    starts = torch.cat([start, nothing])
    values, finals = torch.zeros_like(flat), starts
    for group in layout:
        source = group.source.to(u.device)
        scanned = states(flat[source], decay, starts[group.starts.to(u.device)])
        values = values.index_copy(0, source.flatten(), scanned[:, :-1].reshape(-1, nodes))
        # scanned[r, t] is the state before token t, so the final one is at the row's length.
        row = torch.arange(scanned.shape[0], device=u.device)
        last = scanned[row, group.lengths.to(u.device)]
        finals = finals.index_copy(0, group.ends.to(u.device), last)
    return values[:-1].view(rows, time, nodes), finals[:-1]
