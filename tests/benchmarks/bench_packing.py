"""Reading all shot counts of a prompt: packed, against everything else one would do.

The library's three paths are called as the library calls them. Two more are written out here, since
nobody should use them: one padded batch of all the separate sequences, and one call per query on a
prefix cache that is cropped back each time. Everybody reads the 13 block boundaries at the last
token only and nobody computes logits, so what is compared is the way of arranging the tokens.
Before anything is timed, all states are compared with those of separate passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from harness import Options, Result, Row, Target, Work, base_row, paired, row_of
from subjects import gpt2, hooked, prompt_of_lengths
from torch import Tensor

from ed_interp.errors import EdInterpError
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.models.sites import Site, stream_sites
from ed_interp.prompts.tokens import ShotTokens
from ed_interp.streams.paths import PATHS, packed_length

PADDED, PREFIX = "one padded batch", "prefix cache, one batched call"
CALLS, SEPARATE = "prefix cache, a call per query", "separate passes"
TARGETS = {PADDED: Target("at least", 8.0), PREFIX: Target("at least", 1.3)}
TOLERANCE = 1e-4
MOST, DEMONSTRATION, QUERY = 16, 10, 8

Reader = Callable[[Sequence[ShotTokens], Sequence[int]], Tensor]


def run(options: Options) -> Iterator[Result]:
    """The comparison, then how it grows with shots and with the length of a demonstration."""
    model = gpt2()
    ways = _ways(hooked(model).runner, stream_sites(model.config.n_layer))
    rounds = options.rounds_or(9, 3)
    few = min(rounds, 1 if options.quick else 3)
    yield _compare(ways, 1, rounds, TARGETS, (PADDED, PREFIX, CALLS, SEPARATE))
    # Calls per query are for one prompt only: prompts of a batch end at different places.
    yield _compare(ways, 4, few, {}, (PREFIX, SEPARATE))
    most = (4, 8, 16) if options.quick else (4, 8, 16, 32)
    lengths = (5, 10, 20)
    by_shots = [
        (f"0 to {count} shots of {DEMONSTRATION} tokens", _prompt(count, DEMONSTRATION), count)
        for count in most
    ]
    yield _growth("shot counts", ways, by_shots, few)
    by_length = [
        (f"0 to {MOST} shots of {length} tokens", _prompt(MOST, length), MOST) for length in lengths
    ]
    yield _growth("length of a demonstration", ways, by_length, few)


def _prompt(most: int, length: int, *, seed: int = 0) -> ShotTokens:
    """Demonstrations of ``length`` - 1, ``length`` and ``length`` + 1 tokens in turn."""
    lengths = [length + (index + seed) % 3 - 1 for index in range(most)]
    return prompt_of_lengths(lengths, QUERY, seed=seed, shots=range(most + 1))


def _compare(
    ways: dict[str, Reader],
    prompts: int,
    rounds: int,
    targets: dict[str, Target],
    others: Sequence[str],
) -> Result:
    shots = range(MOST + 1)
    items = [_prompt(MOST, DEMONSTRATION, seed=seed) for seed in range(prompts)]
    worst = _check(ways, items, shots, others)
    work: dict[str, Work] = {name: _call(ways[name], items, shots) for name in others}
    taken = paired(
        _call(ways["packed"], items, shots),
        work,
        rounds=rounds,
        label=f"packing {prompts} prompt(s)",
        warm=True,
    )
    rows = [base_row("packed: one pass", taken, f"{packed_length(items[0], shots)} tokens")]
    notes = _tokens(items[0], shots)
    rows += [
        row_of(name, taken[name], target=targets.get(name), note=notes[name]) for name in others
    ]
    return Result(
        f"packing: 0 to {MOST} shots, {prompts} prompt(s)",
        "time / packed",
        tuple(rows),
        f"{MOST} demonstrations of 9, 10 and 11 tokens in turn, a query of {QUERY}, {MOST + 1} "
        "shot counts; numbers of tokens are per prompt; GPT-2-small-sized model, random weights, "
        "float32, no logits; states equal "
        f"separate passes (max difference {worst:.1g}); median of paired ratios of CPU time",
    )


def _tokens(prompt: ShotTokens, shots: Sequence[int]) -> dict[str, str]:
    """How many tokens go through the model, padding included."""
    lengths = [len(prompt.sequence(count)) for count in shots]
    packed = packed_length(prompt, shots)
    return {
        PADDED: f"{len(lengths) * max(lengths)} tokens",
        PREFIX: f"{packed} tokens, two calls",
        CALLS: f"{packed} tokens, {len(lengths) + 1} calls",
        SEPARATE: f"{sum(lengths)} tokens, a call per length",
    }


def _growth(
    what: str,
    ways: dict[str, Reader],
    cases: Sequence[tuple[str, ShotTokens, int]],
    rounds: int,
) -> Result:
    """How many times as long the other ways take, case by case."""
    rows: list[Row] = []
    for name, prompt, most in cases:
        shots = range(most + 1)
        others = (PADDED, PREFIX, SEPARATE)
        _check(ways, [prompt], shots, others)
        taken = paired(
            _call(ways["packed"], [prompt], shots),
            {other: _call(ways[other], [prompt], shots) for other in others},
            rounds=rounds,
            label=f"packing {name}",
            warm=True,
        )
        rows.append(base_row(f"{name}: packed", taken, f"{packed_length(prompt, shots)} tokens"))
        notes = _tokens(prompt, shots)
        rows += [row_of(f"  {other}", taken[other], note=notes[other]) for other in others]
    return Result(
        f"packing: growth with the {what}",
        "time / packed",
        tuple(rows),
        f"one prompt, a query of {QUERY} tokens; otherwise as above",
    )


def _check(
    ways: dict[str, Reader],
    prompts: Sequence[ShotTokens],
    shots: Sequence[int],
    others: Sequence[str],
) -> float:
    """Largest difference of any way's states from separate passes."""
    reference = ways[SEPARATE](prompts, shots)
    worst = 0.0
    for name in {"packed", *others}:
        off = float((ways[name](prompts, shots) - reference).abs().max())
        if not off <= TOLERANCE:
            raise EdInterpError(
                f"{name}: states differ from separate passes by {off:.2g}, more than "
                f"{TOLERANCE:g}; its time means nothing"
            )
        worst = max(worst, off)
    return worst


def _call(way: Reader, prompts: Sequence[ShotTokens], shots: Sequence[int]) -> Work:
    return lambda: way(prompts, shots)


def _ways(runner: Any, sites: Sequence[Site]) -> dict[str, Reader]:
    def library(path: str) -> Reader:
        return lambda prompts, shots: PATHS[path](runner, prompts, shots, sites, False).states

    return {
        "packed": library("packed"),
        PREFIX: library("prefix"),
        SEPARATE: library("separate"),
        PADDED: lambda prompts, shots: _padded(runner, prompts, shots, sites),
        CALLS: lambda prompts, shots: _calls(runner, prompts, shots, sites),
    }


def _padded(
    runner: TransformersRunner,
    prompts: Sequence[ShotTokens],
    shots: Sequence[int],
    sites: Sequence[Site],
) -> Tensor:
    """Every sequence a row of one batch, padded on the right to the longest."""
    sequences = [prompt.sequence(count) for prompt in prompts for count in shots]
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences])
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    inputs = Inputs(ids, valid=torch.arange(width) < lengths[:, None])
    states = runner.run(inputs, sites=sites, reads=lengths[:, None] - 1).states
    return states[:, 0].view(len(prompts), len(shots), len(sites), -1)


def _calls(
    runner: TransformersRunner,
    prompts: Sequence[ShotTokens],
    shots: Sequence[int],
    sites: Sequence[Site],
) -> Tensor:
    """The demonstrations into a cache, then query after query, from the most shots down."""
    prompts_read = []
    for prompt in prompts:
        trunk = torch.tensor([prompt.trunk[: prompt.ends[shots[-1]]]])
        cache = runner.prefix_cache(trunk, torch.ones_like(trunk, dtype=torch.bool))
        states: list[Tensor] = []
        for count in reversed(shots):
            surplus = cache.get_seq_length() - prompt.ends[count]
            cache.crop(-surplus)
            ids = torch.tensor([prompt.query(count)])
            places = prompt.ends[count] + torch.arange(ids.shape[1])[None]
            last = torch.tensor([[ids.shape[1] - 1]])
            # An emptied cache is none.
            inputs = Inputs(ids, places, cache=cache if prompt.ends[count] else None)
            states.append(runner.run(inputs, sites=sites, reads=last).states[0, 0])
        prompts_read.append(torch.stack(states[::-1]))
    return torch.stack(prompts_read)
