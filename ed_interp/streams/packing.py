"""Shot packing: all shot counts of a prompt in one sequence.

In a causal model the state at a position depends only on the tokens it attends to. So one
sequence ``[demo_1 ... demo_K | query_0 | query_1 | ... ]`` in which query k attends to the first k
demonstrations and itself, with the position ids it would have directly behind them, has the states
of all the separate sequences.

Cost of building: one ``prompt pos pos`` boolean tensor. Cost of running, and of the alternatives:
``tests/benchmarks/bench_packing.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ed_interp.prompts.tokens import ShotTokens


@dataclasses.dataclass(frozen=True)
class Packed:
    """A batch of packed prompts, right-padded to the longest."""

    ids: Int[Tensor, "prompt pos"]
    position_ids: Int[Tensor, "prompt pos"]
    branch: Int[Tensor, "prompt pos"]
    """0 in the trunk, k + 1 in the branch of the k-shot query, -1 in the padding."""
    seen: Int[Tensor, "prompt pos"]
    """How many trunk tokens a position may see."""
    reads: Int[Tensor, "prompt shot"]
    """Index of the last token of each k-shot sequence."""
    answers: Int[Tensor, "prompt shot answer"]
    """Indices of the logits of the answer's tokens, -1 where the answer is shorter."""

    @property
    def branched(self) -> bool:
        """Whether a mask is needed; not without queries, as prefixes are nested."""
        return bool((self.branch > 0).any())

    def visible(self) -> Bool[Tensor, "prompt pos pos"]:
        """Which position (last axis) each position attends to; padding attends to itself."""
        index = torch.arange(self.ids.shape[1])
        earlier = index[None, None, :] <= index[None, :, None]
        # The part of the trunk that belongs to the query's shot count, and the query's own branch.
        in_trunk = self.branch[:, None, :] == 0
        trunk = in_trunk & (index[None, None, :] < self.seen[:, :, None])
        same = (self.branch[:, :, None] == self.branch[:, None, :]) & (self.branch[:, None, :] >= 0)
        # A row of the mask without any True would make the softmax of that row NaN.
        alone = torch.eye(self.ids.shape[1], dtype=torch.bool)[None]
        return ((trunk | same) & earlier) | alone


def packed_length(prompt: ShotTokens, shots: Sequence[int]) -> int:
    """Number of tokens in the packed form of one prompt."""
    trunk = prompt.ends[shots[-1]]
    # The last token of the answer is predicted, never read.
    behind = max(0, len(prompt.answer) - 1)
    return trunk + sum(len(prompt.query(count)) + behind for count in shots if prompt.queries)


def pack(prompts: Sequence[ShotTokens], shots: Sequence[int], *, pad: int = 0) -> Packed:
    """Pack prompts for one forward pass.

    Args:
        prompts: All with queries, or all without.
        shots: Ascending shot counts.
        pad: Token id of the padding, which nothing attends to.
    """
    width = max(packed_length(prompt, shots) for prompt in prompts)
    behind = max(max(0, len(prompt.answer) - 1) for prompt in prompts)
    size = (len(prompts), width)
    ids = torch.full(size, pad)
    position_ids = torch.zeros(size, dtype=torch.long)
    branch = torch.full(size, -1)
    seen = torch.zeros(size, dtype=torch.long)
    reads = torch.zeros(len(prompts), len(shots), dtype=torch.long)
    answers = torch.full((len(prompts), len(shots), behind + 1), -1)
    for row, prompt in enumerate(prompts):
        ends = prompt.ends
        trunk = ends[shots[-1]]
        ids[row, :trunk] = torch.tensor(prompt.trunk[:trunk], dtype=torch.long)
        position_ids[row, :trunk] = torch.arange(trunk)
        branch[row, :trunk] = 0
        seen[row, :trunk] = trunk
        start = trunk
        for column, count in enumerate(shots):
            if not prompt.queries:
                reads[row, column] = ends[count] - 1
                continue
            query = prompt.query(count)
            tokens = query + prompt.answer[:-1]
            stop = start + len(tokens)
            ids[row, start:stop] = torch.tensor(tokens)
            # The positions directly behind the first `count` demonstrations, wherever the branch
            # lies in the sequence.
            position_ids[row, start:stop] = ends[count] + torch.arange(len(tokens))
            branch[row, start:stop] = count + 1
            seen[row, start:stop] = ends[count]
            # The logits at the query's last token predict the answer's first token, and so on.
            last = start + len(query) - 1
            reads[row, column] = last
            answers[row, column, : len(prompt.answer)] = last + torch.arange(len(prompt.answer))
            start = stop
    return Packed(ids, position_ids, branch, seen, reads, answers)
