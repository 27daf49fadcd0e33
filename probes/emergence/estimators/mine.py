r"""``mine``: the estimator of the emergence paper to the letter, to compare with its numbers.

Chen, Yang, Zhu, Wang, "Quantifying Emergence in Large Language Models" (arXiv 2405.12617; ACL
2025), as in their code: an MLP f on x and y side by side (at width 768: 1536-768-384-192-96-48-24-
12-6-3-1, LeakyReLU of slope 0.01, Xavier-normal weights, zero biases) is trained to maximise the
Donsker-Varadhan value

    E[f(x, y)] - ln E[exp f(x, y')],    y' a fresh permutation of y at every step

by Adam at 1e-4 (five steps of warm-up, then polynomial decay of power 3 to 1e-8) for 10,000 steps
on the full batch. The estimate is the MAXIMUM over steps of this TRAINING value, in bits; training
stops at NaN and keeps the maximum.

Known faults, which is why every estimate is flagged ``training-maximum``: nothing is held out, so
the value is that of an over-fitted critic (2.95 nats and rising after 200 steps for a true 2.0 at
64 dimensions and 5,000 rows); the maximum over noisy steps is biased upwards; and no lower bound
from N rows can be trusted beyond ln N (flag ``at-log-n``). ``mine-heldout`` is the same critic
valued on rows that it has not seen.

What differs from the paper's code: all pairs train together (see ``neural``), which changes no
number; widths other than 768 halve in the same way; rows may have weights, and y' is then drawn by
systematic sampling in a random order, which for equal weights is a permutation; rows that are
equal at every site count as one row of their joint weight, and a population of few rows that
repeat is given exactly (flag ``discrete``), which is what the critic approaches from below there.

Cost: one pass of the MLP and its gradient over twice all rows a step, for every pair; the paper's
300,000 rows of width 768 take about 78 hours of one CPU thread a pair (extrapolated, see
``tests/benchmarks/README.md``), and all activations of a full batch in memory. ``reporting``
shows how far it is, ``resuming`` keeps its state in a folder, ``steps`` shortens it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.neural.critics import Concat, Rows, Weights, halving
from ed_interp.probes.emergence.estimators.neural.sampling import SHIFT, permuted
from ed_interp.probes.emergence.estimators.neural.scoring import donsker_varadhan, gathered
from ed_interp.probes.emergence.estimators.neural.trained import (
    Outcome,
    Pair,
    TrainedEstimator,
    stack,
)
from ed_interp.probes.emergence.estimators.neural.training import Adam, Saved
from ed_interp.probes.emergence.estimators.registry import register

WARM_UP, LAST_LR, POWER = 5, 1e-8, 3

Shares = Float[Tensor, "pair row"]


@register("mine")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(TrainedEstimator):
    """The ``mine`` estimator; see the module for what it computes and costs."""

    citation = (
        "H. Chen, X. Yang, J. Zhu, W. Wang: Quantifying Emergence in Large Language Models. "
        "arXiv:2405.12617"
    )
    flags: ClassVar[Mapping[str, str]] = {
        "training-maximum": "the highest training value over all steps, as published: not held "
        "out, and too high wherever the critic can remember the sample",
        **TrainedEstimator.flags,
    }

    steps: int = option(10_000, "Full-batch training steps.", min=1)
    lr: float = option(1e-4, "Highest learning rate of Adam.", above=0)
    hidden: tuple[int, ...] | None = option(
        None,
        "Hidden widths of the critic.",
        shown="half of d_x + d_y, a quarter, ... down to 3",
        min=1,
    )

    def whiten(self, rows: Tensor, share: Tensor, width: int) -> Tensor:
        return rows.float()  # the paper whitens nothing

    def member_bytes(self, pair: Pair) -> int:
        """Activations of both passes with their gradients, five copies of the weights."""
        width = pair.x.shape[1] + pair.y.shape[1]
        hidden = self.hidden or halving(width)
        activations = len(pair.weights) * (width + sum(hidden)) * 4 * 4
        return activations + 20 * width * hidden[0] * 2

    def raised(self, one: Outcome) -> dict[str, bool]:
        return {"training-maximum": True, **super().raised(one)}

    def fit(
        self, pairs: Sequence[Pair], *, seed: int, max_bytes: int, advance: Callable[[int], None]
    ) -> list[Outcome]:
        best = maximise(pairs, self, seed, advance)
        return [
            Outcome(
                terms=best.terms[index, : len(pair.weights)].double(),
                nats=float(best.value[index]),
                cap=math.log(len(pair.weights)),
                diverged=int(best.diverged[index]),
                details={"best_step": int(best.step[index])},
            )
            for index, pair in enumerate(pairs)
        ]


def learning_rate(step: int, *, steps: int, highest: float) -> float:
    """Learning rate at step 0, 1, ...: linear warm-up from 0, then polynomial decay.

    >>> [learning_rate(step, steps=10_000, highest=1e-4) for step in (0, 5, 10_000)]
    [0.0, 0.0001, 1e-08]
    """
    if step < WARM_UP:
        return highest * step / WARM_UP
    if step >= steps:
        return LAST_LR
    left = 1 - (step - WARM_UP) / (steps - WARM_UP)
    return (highest - LAST_LR) * left**POWER + LAST_LR


def paper_value(
    critic: Concat, weights: Weights, x: Rows, y: Rows, other: Rows, share: Shares
) -> tuple[Float[Tensor, "pair"], Shares, Shares]:
    """The Donsker-Varadhan value in nats, f of the pairs, and f of x with the ``other`` y.

    ``other`` is y in another order; ``share`` are weights of the rows, which sum to 1.
    """
    joint = critic.scores(weights, x, y)
    apart = critic.scores(weights, x, other)
    # Equal weights take the paper's own formula, to its last digit.
    if bool((share == share[:, :1]).all()):
        return donsker_varadhan(joint, apart), joint, apart
    value = (share * joint).sum(1) - (apart + share.log()).logsumexp(1)
    return value, joint, apart


@dataclasses.dataclass
class Maximum:
    """The best training value so far of every pair."""

    value: Float[Tensor, "pair"]
    """In nats."""
    step: Tensor
    terms: Float[Tensor, "pair row"]
    """Row terms of that step in nats; their weighted mean is the value."""
    diverged: Tensor

    def keep(self, value: Tensor, joint: Tensor, apart: Tensor, share: Tensor, number: int) -> None:
        """Take over the pairs whose value is finite, now and so far, and higher than ever."""
        value = value.cpu().double()
        self.diverged |= ~torch.isfinite(value)
        better = ~self.diverged & (value > self.value)
        if not bool(better.any()):
            return
        self.value[better] = value[better]
        self.step[better] = number
        which = better.to(joint.device)
        apart = apart[which]
        # The term of a row is its influence on the value: f(x, y), less the log of the mean of
        # exp f, less its own share in that mean beyond the average of 1.
        logs = (apart + share[which].log()).logsumexp(1, keepdim=True)
        self.terms[which] = joint[which] - logs - (apart - logs).exp() + 1


def maximise(
    pairs: Sequence[Pair], options: Mine, seed: int, advance: Callable[[int], None]
) -> Maximum:
    """Train the pairs together and keep the maximum of the training value of each."""
    x, y, wide = data = stack(pairs)
    saved = Saved(options.folder, data, options.recorded(seed=seed, pairs=len(pairs)))
    share = wide.float()
    critic = Concat(options.hidden)
    now = critic.start(x.shape[2], y.shape[2], [0] * len(pairs), seed=seed, neutral=False)
    now = {name: one.to(x.device) for name, one in now.items()}
    adam, number = Adam(now), 0
    none = torch.zeros(len(pairs), dtype=torch.float64)
    best = Maximum(none - torch.inf, none.long(), torch.zeros_like(share), none.bool())
    known = saved.get()
    if known is not None:
        number = int(known["number"])
        best = Maximum(*(known[field.name] for field in dataclasses.fields(Maximum)))
        best.terms = best.terms.to(x.device)
        adam.restore({name: known[f"now/{name}"].to(x.device) for name in now}, known)
        advance(number)

    def save() -> None:
        state = vars(best) | {f"now/{name}": one for name, one in adam.weights.items()}
        saved.put({"number": torch.tensor(number), **state, **adam.state()})

    # A pair that diverged stays in the batch, as it costs the others nothing, but is not read.
    while number < options.steps and not bool(best.diverged.all()):
        index = permuted(wide, seed, SHIFT, number)
        leaves = {name: one.detach().requires_grad_() for name, one in adam.weights.items()}
        value, joint, apart = paper_value(critic, leaves, x, y, gathered(y, index), share)
        gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
        best.keep(value.detach(), joint.detach(), apart.detach(), share, number)
        lr = learning_rate(number, steps=options.steps, highest=options.lr)
        adam.step(dict(zip(leaves, gradients, strict=True)), lr)
        number += 1
        advance(1)
        if saved.due():
            save()
    advance(options.steps - number)
    number = options.steps
    save()
    return best
