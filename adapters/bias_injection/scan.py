"""The recurrence of the feedback nodes, in chunks instead of token by token.

``states(u, decay, start)`` are the values the nodes show at every position and after the last one::

    s[0] = start,    s[t + 1] = decay * s[t] + u[t]

Inside a chunk of 64 positions this is one product with a triangular matrix of powers of the decay;
the ends of the chunks obey the same recurrence with decay to the 64th, which is solved by the same
function, and so on: no loop over time, and no division by a vanishing power as in the trick of
cumulative sums (which overflows after a few hundred positions).

Nodes that read their own layer's output have a full matrix in place of the decays, and the work per
position grows with the square of the nodes. The gradient is the same scan run backwards, written
out, so that only the states are kept.

COST: O(rows * time * nodes * 64) multiplications, memory of a few times the states. Always float32,
whatever autocast says.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CHUNK = 64
"""Positions per chunk of the diagonal recurrence."""
DENSE_CHUNK = 16
"""Positions per chunk of the dense one, whose matrices grow with the nodes squared."""


def states(
    u: Float[Tensor, "row time node"],
    transition: Float[Tensor, " node"] | Float[Tensor, "node node"],
    start: Float[Tensor, "row node"],
) -> Float[Tensor, "row time_and_one node"]:
    """Node values at each position and, last, after the final one.

    Args:
        u: What each position adds, float32.
        transition: Factor per position, between 0 and 1, one for each node; or a matrix, for
            ``s[t + 1] = transition @ s[t] + u[t]``. Nothing keeps the eigenvalues of a matrix
            below one: where training pushes them above, states grow without bound.
        start: Values before the first position.
    """
    function: Any = _Scan
    values: Tensor = function.apply(u, transition, start)
    return values


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, transition: Tensor, start: Tensor) -> Tensor:
        values = _scan(u, transition, start)
        ctx.save_for_backward(values, transition)
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        values, transition = ctx.saved_tensors
        grad: Tensor = grad_outputs[0].float()
        # What reaches each state, its own gradient and that of all later ones, is
        # total[t] = grad[t] + transition.T @ total[t + 1]: the same recurrence in reversed time,
        # of which the value after position k is the total k from the end.
        back = transition.T if transition.ndim == 2 else transition
        total = _scan(grad.flip(1), back, torch.zeros_like(grad[:, 0]))[:, 1:].flip(1)
        # s[t + 1] depends on the transition through s[t]: gradient at t + 1 times value at t.
        formula = "rtm,rtn->mn" if transition.ndim == 2 else "rtn,rtn->n"
        with _float32(grad):
            for_transition = torch.einsum(formula, total[:, 1:], values[:, :-1])
        return total[:, 1:], for_transition, total[:, 0]


def _scan(u: Tensor, transition: Tensor, start: Tensor) -> Tensor:
    time = u.shape[1]
    if time == 0:
        return start[:, None]
    length = min(CHUNK if transition.ndim == 1 else DENSE_CHUNK, time)
    chunks = -(-time // length)
    u = F.pad(u, (0, 0, 0, chunks * length - time))
    # What is read at position p shows at position s > p after s - 1 - p transitions: gap[p, s].
    step = torch.arange(length + 1, device=u.device)
    gap = step - 1 - step[:-1, None]
    local = (_diagonal if transition.ndim == 1 else _dense)(u, transition, start, gap)
    # Chunks of `length + 1` states: the last of each is left out, since it is the next one's first.
    inside = local[:, :, :-1].reshape(u.shape[0], -1, u.shape[2])
    return torch.cat([inside, local[:, -1:, -1]], dim=1)[:, : time + 1]


def _diagonal(u: Tensor, decay: Tensor, start: Tensor, gap: Tensor) -> Tensor:
    """States of every chunk, ``row chunk step node``."""
    rows, _, nodes = u.shape
    length = gap.shape[0]
    chunks = u.shape[1] // length
    powers = decay[:, None] ** torch.arange(length + 1, device=u.device)
    # Negative gaps are the future: zero, and clamped only because they serve as an index.
    matrix = torch.where(gap >= 0, powers[:, gap.clamp(min=0)], powers.new_zeros(()))
    # One product per node: (node, row and chunk, position) times (node, position, position).
    by_node = u.reshape(rows * chunks, length, nodes).permute(2, 0, 1)
    with _float32(u):
        local = torch.bmm(by_node, matrix).view(nodes, rows, chunks, length + 1)
    # The state at a chunk's end is its own sum plus decay ** length times the state at its start:
    # the same recurrence over chunks.
    sums = local[..., -1].permute(1, 2, 0)
    carried = start[:, None] if chunks == 1 else _scan(sums, powers[:, -1], start)[:, :-1]
    local = torch.addcmul(local, carried.permute(2, 0, 1)[..., None], powers[:, None, None])
    return local.permute(1, 2, 3, 0)


def _dense(u: Tensor, transition: Tensor, start: Tensor, gap: Tensor) -> Tensor:
    """The same with a matrix."""
    rows, _, nodes = u.shape
    length = gap.shape[0]
    chunks = u.shape[1] // length
    with _float32(u):
        power = [torch.eye(nodes, dtype=u.dtype, device=u.device)]
        for _ in range(length):
            power.append(transition @ power[-1])
        powers = torch.stack(power)
        # From powers[gap] as (source, target, target node, source node) to one matrix of
        # source position and node by target position and node.
        blocks = powers[gap.clamp(min=0)] * (gap >= 0)[..., None, None]
        matrix = blocks.permute(0, 3, 1, 2).reshape(length * nodes, (length + 1) * nodes)
        local = u.reshape(rows, chunks, length * nodes) @ matrix
        local = local.view(rows, chunks, length + 1, nodes)
        sums = local[:, :, -1]
        carried = start[:, None] if chunks == 1 else _scan(sums, powers[-1], start)[:, :-1]
        return local + torch.einsum("rcn,kmn->rckm", carried, powers)


def _float32(like: Tensor) -> Any:
    """Autocast off: a recurrence in half precision forgets after a few hundred positions."""
    if torch.is_autocast_enabled(like.device.type):
        return torch.autocast(like.device.type, enabled=False)
    return contextlib.nullcontext()
