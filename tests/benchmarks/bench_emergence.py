"""The smoothed estimator against the forward passes it reads, and against the paper's estimator.

What is timed as "the estimate" is all that turns states into a curve: ``measure.estimate`` (macro
chain of every shot count, and the micro terms of the single tokens) and the bootstrap intervals of
every shot count. What is timed as "the forward passes" is ``measure.read``: packed prompts and
single tokens, without scoring answers (which would make the passes dearer and the ratio smaller).
The untrained twin doubles both and is left out.

Prompts are those of ``subjects.relation`` (a relation between words, 200 pairs) and, as the worst
case for the micro term, ``subjects.scattered``, where every token of every prompt is its own.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence

import critic
import torch
from harness import Options, Result, Row, Taken, Target, exponent, number, row_of, say, timed
from subjects import gpt2, hooked, relation, scattered

from ed_interp.models.hooked import HookedModel
from ed_interp.probes.emergence.estimators import Estimator, get_estimator, noise_scale, normalise
from ed_interp.probes.emergence.estimators.smoothed import default_samples
from ed_interp.probes.emergence.measure import Read, ShotTerms, estimate, read
from ed_interp.prompts.tokens import TokenPopulation

SHOTS = range(9)
READING, TRAINING = Target("at most", 0.2), Target("at least", 1000)


def run(options: Options) -> Iterator[Result]:
    """Against reading, against one training, and the growth of both."""
    prompts = 200 if options.quick else 1000
    first, whole, macro = _against_reading(hooked(gpt2()), prompts, options)
    yield first
    yield _against_training(whole, macro, prompts, options)
    yield _growth_of_estimate(options)
    yield _growth_of_reading(options)


def _against_reading(
    model: HookedModel, prompts: int, options: Options
) -> tuple[Result, float, float]:
    """The table; CPU seconds of the whole estimate, and of the macro term of one shot count."""
    rounds = options.rounds_or(3, 1)
    estimator = _estimator(model.d_model, prompts)
    cases = {
        "relation, 200 pairs": relation(prompts, shots=SHOTS),
        "scattered tokens (worst case)": scattered(prompts, shots=SHOTS),
    }
    rows: list[Row] = []
    whole = macro = 0.0
    for name, population in cases.items():
        done: list[_Round] = []
        for turn in range(rounds):
            say(f"emergence: {name}, round {turn + 1}/{rounds}")
            done.append(_Round.run(model, population, estimator))
        base = [one.passes for one in done]
        rows.append(
            Row(
                f"{name}: forward passes",
                (),
                statistics.median(one.cpu for one in base),
                statistics.median(one.wall for one in base),
                note=f"the base; {done[0].places}",
            )
        )
        totals = [one.total for one in done]
        parts = {
            "  of it macro terms": [one.macro for one in done],
            "  of it micro terms": [one.terms - one.macro for one in done],
            "  of it intervals": [one.intervals for one in done],
        }
        rows.append(
            row_of("  whole estimate", list(zip(totals, base, strict=True)), target=READING)
        )
        rows += [row_of(part, list(zip(times, base, strict=True))) for part, times in parts.items()]
        if not whole:
            whole = statistics.median(one.cpu for one in totals)
            macro = statistics.median(one.macro.cpu for one in done) / len(SHOTS)
    setting = (
        f"{prompts} prompts, 12 blocks, width 768, shots 0 to 8; demonstrations of 4 to 6 token "
        "ids, queries of 2 or 3 (generated); GPT-2-small-sized model, random weights; median of "
        "paired ratios of CPU time"
    )
    title = "emergence: the smoothed estimate against the forward passes it reads"
    return Result(title, "time / passes", tuple(rows), setting), whole, macro


@dataclasses.dataclass(frozen=True)
class _Round:
    """Forward passes and the estimate right after them."""

    passes: Taken
    macro: Taken
    """The macro chains of all shot counts, run once more by themselves."""
    terms: Taken
    """Macro and micro terms."""
    intervals: Taken
    places: str
    """How many slots have single tokens, and how many different ones."""

    @property
    def total(self) -> Taken:
        """Everything between the states and the curve."""
        return self.terms + self.intervals

    @classmethod
    def run(cls, model: HookedModel, population: TokenPopulation, estimator: Estimator) -> _Round:
        passes, kept = timed(lambda: _read(model, population))
        terms, shots = timed(lambda: estimate(kept, estimator, seed=0, progress=None))
        intervals, _ = timed(lambda: _intervals(shots))
        macro, _ = timed(lambda: _macro(kept, estimator))
        places = f"{len(kept.tokens.slots)} slots, {len(kept.tokens.keys):,} distinct tokens"
        return cls(passes, macro, terms, intervals, places)


def _against_training(whole: float, macro: float, prompts: int, options: Options) -> Result:
    sizes = (1000, 2000) if options.quick else (1000, 2000, 4000, 8000)
    cost = critic.measure(sizes, steps=3 if options.quick else 5)
    one, small = cost.training(), cost.training(prompts)
    blocks, shots = 12, len(SHOTS)
    pair = macro / blocks
    curve = blocks * (shots + 8 * 5 + 2)
    measured = ", ".join(
        f"{size:,}: {number(seconds)} s"
        for size, seconds in zip(cost.samples, cost.seconds, strict=True)
    )

    def row(name: str, ours: float, theirs: float, note: str, target: Target | None) -> Row:
        return Row(name, (theirs / ours,), ours, None, target, note)

    rows = (
        row(
            "whole estimate against ONE training",
            whole,
            one,
            f"the training: {number(one / 3600)} h",
            TRAINING,
        ),
        row(
            "one (layer, shot) pair against one training",
            pair,
            one,
            f"one pair each; {prompts:,} prompts here, 300,000 samples there",
            TRAINING,
        ),
        row(
            "whole estimate against the whole curve",
            whole,
            one * curve,
            f"{curve} trainings: {blocks} blocks x ({shots} shot counts + 42 tokens)",
            TRAINING,
        ),
        row(
            "pair, both at our number of prompts",
            pair,
            small,
            f"10,000 steps on {prompts} samples: {number(small)} s; no target",
            None,
        ),
    )
    return Result(
        "emergence: the smoothed estimate against training the paper's critic",
        "training / ours",
        rows,
        f"CPU s: ours. Training EXTRAPOLATED to {critic.STEPS:,} full-batch steps on "
        f"{critic.SAMPLES:,} samples from steps measured at ({measured}; exponent "
        f"{cost.exponent:.2f}, taken as 1 with the cheapest sample)",
    )


def _growth_of_estimate(options: Options) -> Result:
    """Macro chain of one shot count on random walks of normalised random states."""
    prompts = (250, 500) if options.quick else (250, 500, 1000, 2000)
    series: list[tuple[str, str, Sequence[int], Callable[[int], torch.Tensor]]] = [
        ("prompts", "12 blocks, width 768", prompts, lambda n: _states(n, 13, 768)),
        ("blocks", "500 prompts, width 768", (3, 6, 12, 24), lambda n: _states(500, n + 1, 768)),
        ("width", "500 prompts, 12 blocks", (192, 384, 768, 1536), lambda n: _states(500, 13, n)),
    ]
    rows: list[Row] = []
    for what, fixed, sizes, make in series:

        def case(size: int, make: Callable[[int], torch.Tensor] = make) -> Callable[[], object]:
            states = make(size)
            estimator = _estimator(states.shape[-1], states.shape[-2])
            return lambda: estimator.chain(states, seed=0)

        rows += _series(what, fixed, sizes, case, options)
    return Result(
        "emergence: growth of the estimate (macro term of one shot count)",
        "exponent",
        tuple(rows),
        "least squares of log time over log size; noise samples fall with the number of prompts: "
        + ", ".join(f"{default_samples(size)} at {size:,}" for size in prompts),
    )


def _growth_of_reading(options: Options) -> Result:
    """Packed forward passes over prompts of the relation, without the head."""
    prompts = (16, 32) if options.quick else (16, 32, 64, 128)
    blocks = (3, 6, 12) if options.quick else (3, 6, 12, 24)
    series: list[tuple[str, str, Sequence[int], Callable[[int], tuple[HookedModel, int]]]] = [
        ("prompts", "12 blocks, width 768", prompts, lambda n: (_small(12, 768), n)),
        ("blocks", "32 prompts, width 768", blocks, lambda n: (_small(n, 768), 32)),
        ("width", "32 prompts, 12 blocks", (192, 384, 768), lambda n: (_small(12, n), 32)),
    ]
    rows: list[Row] = []
    for what, fixed, sizes, make in series:

        def case(
            size: int, make: Callable[[int], tuple[HookedModel, int]] = make
        ) -> Callable[[], object]:
            model, count = make(size)
            population = relation(count, shots=SHOTS)
            return lambda: _read(model, population)

        rows += _series(what, fixed, sizes, case, options)
    return Result(
        "emergence: growth of the forward passes",
        "exponent",
        tuple(rows),
        "shots 0 to 8 packed and single tokens; least squares of log time over log size",
    )


def _series(
    what: str,
    fixed: str,
    sizes: Sequence[int],
    make: Callable[[int], Callable[[], object]],
    options: Options,
) -> Iterator[Row]:
    """A line for every size, then the exponent; sizes are run in turns, round after round."""
    work = {size: make(size) for size in sizes}
    for run in work.values():
        run()
    rounds = min(3, options.rounds_or(3, 1))
    taken: dict[int, list[Taken]] = {size: [] for size in sizes}
    for turn in range(rounds):
        for size, run in work.items():
            say(f"emergence: growth with {what}, round {turn + 1}/{rounds}, {size}")
            taken[size].append(timed(run)[0])
    for size, times in taken.items():
        yield Row(
            f"  {size} {what}",
            (),
            statistics.median(one.cpu for one in times),
            statistics.median(one.wall for one in times),
            note=fixed,
        )
    slopes = [exponent(sizes, [taken[size][turn].cpu for size in sizes]) for turn in range(rounds)]
    yield Row(f"time grows with {what} to the power", tuple(slopes))


def _read(model: HookedModel, population: TokenPopulation) -> Read:
    return read(model, population, normalisation="layernorm")


def _intervals(terms: dict[int, ShotTerms]) -> None:
    for term in terms.values():
        term.interval(level=0.95, resamples=1000, seed=0)


def _macro(kept: Read, estimator: Estimator) -> None:
    for shots in kept.population.shots:
        states = normalise(kept.activations.at(shots).movedim(1, 0), kept.normalisation)
        estimator.chain(states, seed=0)


def _estimator(width: int, prompts: int) -> Estimator:
    return get_estimator("smoothed", noise=noise_scale(width, prompts))


def _states(prompts: int, sites: int, width: int) -> torch.Tensor:
    torch.manual_seed(0)
    steps = 0.3 * torch.randn(sites, prompts, width)
    return normalise(torch.randn(prompts, width) + steps.cumsum(0))


def _small(blocks: int, width: int) -> HookedModel:
    return hooked(gpt2(blocks=blocks, width=width))
