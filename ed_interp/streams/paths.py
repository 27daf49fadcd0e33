"""Three ways to read all shot counts of a batch of prompts, with the same numbers.

- ``packed``: one forward pass over one sequence per prompt, ``[demo_1 ... demo_K | query_0 |
  query_1 | ... ]``, in which query k attends to the first k demonstrations and itself, with the
  position ids it would have directly behind them. In a causal model the state at a position depends
  only on the tokens it attends to, so these are the states of the separate sequences. Needs a model
  that takes masks, and one ``prompt pos pos`` boolean tensor.
- ``prefix``: one key-value cache of the demonstrations, then all queries in one batched call.
- ``separate``: one sequence per shot count, in groups of equal length without padding. Correct on
  every architecture; the others are compared with it.

Lists and windows have no queries: their prefixes are nested, and one plain causal pass reads them
all on any architecture (``nested``). Cost of each: ``tests/benchmarks/bench_packing.py``.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ed_interp.models.runners import Inputs, Runner, TransformersRunner
from ed_interp.models.sites import Site
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
    # The last token of the answer is predicted, never read.
    behind = max(0, len(prompt.answer) - 1)
    branches = (len(prompt.query(count)) + behind for count in shots if prompt.queries)
    return prompt.ends[shots[-1]] + sum(branches)


def pack(prompts: Sequence[ShotTokens], shots: Sequence[int]) -> Packed:
    """Pack prompts, all with queries or all without, for one forward pass at ascending counts."""
    width = max(packed_length(prompt, shots) for prompt in prompts)
    behind = max(max(0, len(prompt.answer) - 1) for prompt in prompts)
    size = (len(prompts), width)
    # Nothing attends to the padding, so its token id can be any.
    ids, position_ids, seen = (torch.zeros(size, dtype=torch.long) for _ in range(3))
    branch = torch.full(size, -1)
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
            reads[row, column] = last = start + len(query) - 1
            answers[row, column, : len(prompt.answer)] = last + torch.arange(len(prompt.answer))
            start = stop
    return Packed(ids, position_ids, branch, seen, reads, answers)


@dataclasses.dataclass(frozen=True)
class BatchReading:
    """States and answers of a batch of prompts at all shot counts."""

    states: Float[Tensor, "prompt shot site d_model"]
    """At the last token of each sequence, float32, on the CPU."""
    logprob: Float[Tensor, "prompt shot"] | None = None
    """Log-probability of the whole answer, in nats."""
    correct: Bool[Tensor, "prompt shot"] | None = None
    """Whether every token of the answer is the most likely one, given those before it."""
    rank: Float[Tensor, "prompt shot"] | None = None
    """Rank of the answer's first token in the vocabulary, from 1; ties count against it."""


Prompts = Sequence[ShotTokens]
Path = Callable[[Runner, Prompts, Sequence[int], Sequence[Site], bool], BatchReading]


def read_packed(
    runner: Runner, prompts: Prompts, shots: Sequence[int], sites: Sequence[Site], answers: bool
) -> BatchReading:
    """Everything in one pass; without queries, no custom mask is needed."""
    packed = pack(prompts, shots)
    score = answers and bool(prompts[0].queries)
    # Any index serves where an answer is shorter (-1): _score leaves those out.
    where = packed.answers.clamp(min=0).flatten(1) if score else None
    inputs = Inputs(packed.ids)
    if packed.branched:
        inputs = Inputs(packed.ids, packed.position_ids, packed.visible())
    reading = runner.run(inputs, sites=sites, reads=packed.reads, logit_reads=where)
    if reading.logits is None:
        return BatchReading(reading.states.cpu())
    by_shot = (len(prompts), len(shots), -1, reading.logits.shape[-1])
    logits = reading.logits.reshape(by_shot)  # prompt shot answer d_vocab
    return BatchReading(reading.states.cpu(), *_score(logits, _targets(prompts, shots)))


def read_separate(
    runner: Runner, prompts: Prompts, shots: Sequence[int], sites: Sequence[Site], answers: bool
) -> BatchReading:
    """One sequence per prompt and shot count, grouped by length, never padded."""
    score = answers and bool(prompts[0].queries)
    # (prompt, shot) indices by the lengths of sequence and answer: a group is one rectangle.
    groups: dict[tuple[int, int], list[tuple[int, int]]] = collections.defaultdict(list)
    for row, prompt in enumerate(prompts):
        for column, count in enumerate(shots):
            groups[len(prompt.sequence(count)), len(prompt.answer)].append((row, column))
    states = torch.empty(len(prompts), len(shots), len(sites), runner.d_model)
    scores = [torch.zeros(len(prompts), len(shots)) for _ in range(3)]
    for (length, answer), members in groups.items():
        behind = max(0, answer - 1) if score else 0
        ids = [prompts[row].sequence(shots[k]) + prompts[row].answer[:behind] for row, k in members]
        last = torch.full((len(members), 1), length - 1)
        where = last + torch.arange(behind + 1) if score else None
        reading = runner.run(Inputs(torch.tensor(ids)), sites=sites, reads=last, logit_reads=where)
        rows, columns = torch.tensor(members).T
        states[rows, columns] = reading.states[:, 0].cpu()
        if reading.logits is not None:
            targets = torch.tensor([prompts[row].answer for row, _ in members])[:, None]
            for table, new in zip(scores, _score(reading.logits[:, None], targets), strict=True):
                table[rows, columns] = new[:, 0].float()
    if not score:
        return BatchReading(states)
    return BatchReading(states, scores[0], scores[1].bool(), scores[2])


def read_prefix(
    runner: Runner, prompts: Prompts, shots: Sequence[int], sites: Sequence[Site], answers: bool
) -> BatchReading:
    """The demonstrations once into a cache, then every query at once behind its part of it."""
    assert isinstance(runner, TransformersRunner)
    trunks = [prompt.trunk[: prompt.ends[shots[-1]]] for prompt in prompts]
    if not prompts[0].queries or not min(len(trunk) for trunk in trunks):
        return read_separate(runner, prompts, shots, sites, answers)
    width = max(len(trunk) for trunk in trunks)
    trunk_ids = torch.tensor([[*trunk, *[0] * (width - len(trunk))] for trunk in trunks])
    real = torch.arange(width) < torch.tensor([len(trunk) for trunk in trunks])[:, None]
    cache = runner.prefix_cache(trunk_ids, real)
    cache.batch_repeat_interleave(len(shots))

    # One row per prompt and shot count, in that order, as the repeated cache has them.
    tails = [
        prompt.query(count) + (prompt.answer[:-1] if answers else ())
        for prompt in prompts
        for count in shots
    ]
    starts = torch.tensor([prompt.ends[count] for prompt in prompts for count in shots])
    lasts = torch.tensor([len(prompt.query(count)) - 1 for prompt in prompts for count in shots])
    longest = max(len(tail) for tail in tails)
    ids = torch.tensor([[*tail, *[0] * (longest - len(tail))] for tail in tails])
    lengths = torch.tensor([len(tail) for tail in tails])
    # Each row sees of the cache only the demonstrations of its own shot count.
    seen = torch.arange(width) < starts[:, None]
    valid = torch.cat([seen, torch.arange(longest) < lengths[:, None]], dim=1)
    # Padding behind a short query repeats its last position, which is valid; nothing reads it.
    positions = starts[:, None] + torch.minimum(torch.arange(longest), lengths[:, None] - 1)
    targets = _targets(prompts, shots)
    where = torch.minimum(lasts[:, None] + torch.arange(targets.shape[2]), lengths[:, None] - 1)
    inputs = Inputs(ids, position_ids=positions, valid=valid, cache=cache)
    reads = where if answers else None
    reading = runner.run(inputs, sites=sites, reads=lasts[:, None], logit_reads=reads)
    by_prompt = (len(prompts), len(shots))
    states = reading.states[:, 0].reshape(*by_prompt, *reading.states.shape[2:]).cpu()
    if reading.logits is None:
        return BatchReading(states)
    logits = reading.logits.reshape(*by_prompt, *reading.logits.shape[1:])
    return BatchReading(states, *_score(logits, targets))


PATHS: dict[str, Path] = {"packed": read_packed, "prefix": read_prefix, "separate": read_separate}


def _targets(prompts: Prompts, shots: Sequence[int]) -> Tensor:
    """Answer tokens, ``prompt shot answer``, -1 where the answer is shorter than the longest."""
    longest = max(len(prompt.answer) for prompt in prompts)
    padded = [[*prompt.answer, *[-1] * (longest - len(prompt.answer))] for prompt in prompts]
    return torch.tensor(padded, dtype=torch.long)[:, None].expand(-1, len(shots), -1)


def _score(
    logits: Float[Tensor, "prompt shot answer d_vocab"], targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of the answer, whether it is the greedy one, and its first token's rank."""
    targets = targets.to(logits.device)
    real = targets >= 0
    token = targets.clamp(min=0)[..., None]
    log_probabilities = logits.float().log_softmax(-1)
    chosen = log_probabilities.gather(-1, token)
    # The token itself is among them, so the rank of the best one is 1.
    better = (log_probabilities >= chosen).sum(-1)
    logprob = (chosen[..., 0] * real).sum(-1)
    correct = ((better == 1) | ~real).all(-1)
    return logprob.cpu(), correct.cpu(), better[..., 0].float().cpu()
