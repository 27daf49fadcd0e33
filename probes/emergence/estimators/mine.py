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
``tests/benchmarks/README.md``), and all activations of a full batch in memory. ``progress`` shows
how far it is, ``folder`` makes it resumable, ``steps`` shortens it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.base import (
    DEFAULT_MAX_BYTES,
    SATURATED_SHARE,
    Terms,
    check_chain,
    check_pair,
)
from ed_interp.probes.emergence.estimators.neural.bounds import donsker_varadhan
from ed_interp.probes.emergence.estimators.neural.critics import Concat, Weights, halving
from ed_interp.probes.emergence.estimators.neural.pairs import Pair, grouped, prepare, stack
from ed_interp.probes.emergence.estimators.neural.sampling import SHIFT, permuted
from ed_interp.probes.emergence.estimators.neural.saving import Saved
from ed_interp.probes.emergence.estimators.neural.training import Adam
from ed_interp.progress import Progress, track

WARM_UP, LAST_LR, POWER = 5, 1e-8, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine:
    """The ``mine`` estimator; see the module for what it computes and costs."""

    steps: int = 10_000
    """Full-batch steps."""
    lr: float = 1e-4
    """Highest learning rate of Adam."""
    hidden: Sequence[int] | None = None
    """Hidden widths; ``None``: half of d_x + d_y, a quarter, ... down to 3."""
    folder: str | Path | None = None
    """Keep the state of the training there, and go on from what is there."""
    progress: Progress = None
    """True for a bar on stderr, or a callable ``(done, total, what)``."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInputError(f"steps must be at least 1, found {self.steps}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InvalidInputError(f"lr must be a positive number, found {self.lr}")

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "mine"

    def reporting(self, progress: Progress) -> Mine:
        """The same estimator, telling its progress."""
        return dataclasses.replace(self, progress=progress)

    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``: terms of shape ``1 row``.

        Raises:
            InvalidInputError: NaN or infinite values, bad weights, tables that do not fit.
        """
        check_pair(x, y)
        return self._run([[x, y]], (), weights, seed, max_bytes)

    def chain(
        self,
        states: Float[Tensor, "*batch site row d"],
        *,
        weights: Shaped[Tensor, "*#batch row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between neighbouring sites; all blocks and batch elements train together.

        Args:
            states: representations; batch elements may be different populations, shorter ones
                padded with rows of weight 0.
            weights: frequencies of the rows. Whole numbers are taken as numbers of times seen.
            seed: of initial weights and permutations.
            max_bytes: memory of the members that train together; more of them train in turns.

        Raises:
            InvalidInputError: as :meth:`pair`.
        """
        check_chain(states)
        flat = states.reshape(-1, *states.shape[-3:])
        batch = tuple(states.shape[:-3])
        return self._run([list(one) for one in flat], batch, weights, seed, max_bytes)

    def _run(
        self,
        chains: list[list[Tensor]],
        batch: tuple[int, ...],
        weights: Tensor | None,
        seed: int,
        max_bytes: int,
    ) -> Terms:
        prepared = prepare(chains, batch, weights, lambda rows, _: rows.float())
        shape = (len(chains), prepared.blocks)
        flags = {name: torch.zeros(shape, dtype=torch.bool) for name in _FLAGS}
        for key in prepared.exact:
            flags["discrete"][key] = True
        terms: dict[tuple[int, int], Tensor] = {}
        best_steps = torch.zeros(shape, dtype=torch.int64)
        groups = grouped(prepared.pairs, self._bytes, max_bytes)
        with track(self.progress, "training mine", self.steps * len(groups)) as advance:
            for keys in groups:
                pairs = [prepared.pairs[key] for key in keys]
                settings = {**self._settings(seed), "pairs": len(pairs)}
                found = maximise(
                    pairs, self, seed, Saved(self.folder, stack(pairs), settings), advance
                )
                for index, key in enumerate(keys):
                    own = found.terms[index, : len(pairs[index].weights)]
                    terms[key] = own.double() / math.log(2)
                    flags["training-maximum"][key] = True
                    flags["diverged"][key] = bool(found.diverged[index])
                    cap = math.log(len(pairs[index].weights))
                    flags["at-log-n"][key] = float(found.value[index]) >= SATURATED_SHARE * cap
                    best_steps[key] = found.step[index]
        rows = prepared.rows(terms).reshape(*batch, prepared.blocks, -1)
        return Terms(
            terms=rows.to(chains[0][0].device, torch.float32),
            weights=prepared.weights,
            limit=torch.tensor(prepared.limits, dtype=torch.float64).reshape(batch),
            settings=self._settings(seed) | {"best_step": best_steps.tolist()},
            flags={name: one.reshape(*batch, -1) for name, one in flags.items()},
        )

    def _bytes(self, pair: Pair) -> int:
        """Activations of both passes with their gradients, five copies of the weights."""
        width = pair.x.shape[1] + pair.y.shape[1]
        hidden = halving(width) if self.hidden is None else tuple(self.hidden)
        activations = len(pair.weights) * (width + sum(hidden)) * 4 * 4
        return activations + 20 * width * hidden[0] * 2

    def _settings(self, seed: int) -> dict[str, Any]:
        hidden = None if self.hidden is None else list(self.hidden)
        return {
            "estimator": self.name,
            "steps": self.steps,
            "lr": self.lr,
            "hidden": hidden,
            "seed": seed,
        }


_FLAGS = ("training-maximum", "discrete", "diverged", "at-log-n")


def learning_rate(step: int, *, steps: int, highest: float) -> float:
    """Of step 0, 1, ...: linear warm-up from 0, then polynomial decay.

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
    critic: Concat,
    weights: Weights,
    x: Float[Tensor, "pair row d_x"],
    y: Float[Tensor, "pair row d_y"],
    other: Float[Tensor, "pair row d_y"],
    share: Float[Tensor, "pair row"],
) -> tuple[Float[Tensor, "pair"], Float[Tensor, "pair row"], Float[Tensor, "pair row"]]:
    """The Donsker-Varadhan value in nats, f of the pairs, and f of x with the ``other`` y.

    Args:
        critic: the architecture.
        weights: its weights.
        x: one side.
        y: the other, row by row.
        other: y in another order.
        share: weights of the rows, which sum to 1.
    """
    joint = critic.scores(weights, x, y)
    apart = critic.scores(weights, x, other)
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


def maximise(
    pairs: Sequence[Pair],
    options: Mine,
    seed: int,
    saved: Saved,
    advance: Callable[[int], None],
) -> Maximum:
    """Train the pairs together and keep the maximum of the training value of each."""
    x, y, wide = stack(pairs)
    share = wide.float()
    critic = Concat(options.hidden)
    now = critic.start(x.shape[2], y.shape[2], [0] * len(pairs), seed=seed, neutral=False)
    now = {name: one.to(x.device) for name, one in now.items()}
    adam, number = Adam(now), 0
    nothing = torch.zeros(len(pairs), dtype=torch.float64)
    best = Maximum(nothing - torch.inf, nothing.long(), torch.zeros_like(share), nothing.bool())
    known = saved.get()
    if known is not None:
        number = int(known["number"])
        best = Maximum(*(known[field.name] for field in dataclasses.fields(Maximum)))
        adam.restore({name: known[f"now/{name}"].to(x.device) for name in now}, known)
        best.terms = best.terms.to(x.device)
        advance(number)
    while number < options.steps and not bool(best.diverged.all()):
        index = permuted(wide, seed, SHIFT, number)
        other = y.gather(1, index[..., None].expand(-1, -1, y.shape[2]))
        leaves = {name: one.detach().requires_grad_() for name, one in adam.weights.items()}
        value, joint, apart = paper_value(critic, leaves, x, y, other, share)
        gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
        _keep_maximum(best, value.detach(), joint.detach(), apart.detach(), share, number)
        lr = learning_rate(number, steps=options.steps, highest=options.lr)
        adam.step(dict(zip(leaves, gradients, strict=True)), lr)
        number += 1
        advance(1)
        if saved.due():
            saved.put(_state(number, best, adam))
    advance(options.steps - number)
    saved.put(_state(options.steps, best, adam))
    return best


def _keep_maximum(
    best: Maximum, value: Tensor, joint: Tensor, apart: Tensor, share: Tensor, number: int
) -> None:
    found = value.cpu().double()
    best.diverged |= ~torch.isfinite(found)
    better = ~best.diverged & (found > best.value)
    if not bool(better.any()):
        return
    best.value[better] = found[better]
    best.step[better] = number
    which = better.to(joint.device)
    apart = apart[which]
    logs = (apart + share[which].log()).logsumexp(1, keepdim=True)
    best.terms[which] = joint[which] - logs - (apart - logs).exp() + 1


def _state(number: int, best: Maximum, adam: Adam) -> dict[str, Tensor]:
    found = {field.name: getattr(best, field.name) for field in dataclasses.fields(Maximum)}
    found |= {f"now/{name}": one for name, one in adam.weights.items()}
    return {"number": torch.tensor(number), **found, **adam.state()}
