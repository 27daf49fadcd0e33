"""The emergence paper's estimator as a training, to be timed: steps only, no result.

Chen, Yang, Zhu, Wang (arXiv 2405.12617), as in their code: the Donsker-Varadhan bound

    I(x; y) >= E[f(x, y)] - log E[exp f(x, y')],   y' a fresh permutation of y at every step

with the critic f an MLP on the concatenation of x and y (1536-768-384-192-96-48-24-12-6-3-1 at
width 768), LeakyReLU(0.01), Adam, 10,000 full-batch steps on 300,000 samples; one training for
every (layer, token). Written here from that description, for its cost.

A full batch of 300,000 x 1,536 float32 is 1.8 GB before any activation, so steps are measured at
fewer samples and the time is taken to be linear in them (the fit is printed). That flatters the
critic, whose full batch leaves every cache.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import torch
from harness import exponent, say, timed
from torch import nn

SAMPLES, STEPS = 300_000, 10_000
HIDDEN = (768, 384, 192, 96, 48, 24, 12, 6, 3)


class Training:
    """One training; every call of :meth:`step` is one full-batch step."""

    def __init__(self, samples: int, width: int = 768) -> None:
        torch.manual_seed(0)
        sizes = [2 * width, *HIDDEN, 1]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            linear = nn.Linear(before, after)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.LeakyReLU(0.01)]
        self.critic = nn.Sequential(*layers[:-1])
        self.optimiser = torch.optim.Adam(self.critic.parameters(), lr=1e-4)
        self.x = torch.randn(samples, width)
        self.y = self.x + torch.randn(samples, width)

    def step(self) -> float:
        """One step; gives the bound in nats."""
        shuffled = self.y[torch.randperm(len(self.y))]
        joint = self.critic(torch.cat([self.x, self.y], dim=1)).mean()
        apart = self.critic(torch.cat([self.x, shuffled], dim=1))
        bound = joint - (apart.logsumexp(0).squeeze() - math.log(len(self.y)))
        self.optimiser.zero_grad(set_to_none=True)
        (-bound).backward()
        self.optimiser.step()
        return float(bound.detach())


@dataclasses.dataclass(frozen=True)
class Cost:
    """CPU time of full-batch steps by number of samples."""

    samples: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Of the time in the samples; 1 is linear."""
        return exponent(self.samples, self.seconds)

    @property
    def per_sample(self) -> float:
        """Seconds per sample and step, by the cheapest of the sizes measured."""
        pairs = zip(self.samples, self.seconds, strict=True)
        return min(seconds / samples for samples, seconds in pairs)

    def training(self, samples: int = SAMPLES, steps: int = STEPS) -> float:
        """Seconds of one training, extrapolated."""
        return self.per_sample * samples * steps


def measure(sizes: Sequence[int], *, steps: int) -> Cost:
    """Median CPU seconds of a step at several numbers of samples, after one that is not counted."""
    seconds = []
    for size in sizes:
        training = Training(size)
        training.step()
        taken = []
        for number in range(steps):
            say(f"critic: {size} samples, step {number + 1}/{steps}")
            taken.append(timed(training.step)[0].cpu)
        seconds.append(statistics.median(taken))
    return Cost(tuple(sizes), tuple(seconds))
