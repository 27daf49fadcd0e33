"""The algebra of the spike-and-slab posterior (Tonolini, Jensen and Murray-Smith 2019).

Recognition model ``q(z|x) = gamma N(mu, sigma^2) + (1 - gamma) delta_0`` per latent, prior
``alpha N(0, 1) + (1 - alpha) delta_0``. Pure functions of tensors; no SAELens.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1."""


def kl_divergence(
    gamma: Float[Tensor, "*batch latent"],
    mu: Float[Tensor, "*batch latent"],
    log_sigma: Float[Tensor, "*batch latent"],
    alpha: Float[Tensor, "*#latent"],
) -> Float[Tensor, "*batch latent"]:
    """KL of posterior from prior per latent, in nats.

    ``gamma [(mu^2 + sigma^2 - 1)/2 - ln sigma] + (1-gamma) ln((1-gamma)/(1-alpha))
    + gamma ln(gamma/alpha)``: 0 where posterior and prior agree, else positive.
    """
    slab = 0.5 * (mu.square() + torch.exp(2 * log_sigma) - 1) - log_sigma
    return gamma * slab + bernoulli_kl(gamma, alpha)


def bernoulli_kl(
    gamma: Float[Tensor, "*batch latent"], alpha: Float[Tensor, "*#latent"]
) -> Float[Tensor, "*batch latent"]:
    """KL of Bernoulli(gamma) from Bernoulli(alpha), in nats."""
    # A latent that is certainly present or absent still needs a finite loss and a gradient.
    gamma = gamma.clamp(EPSILON, 1 - EPSILON)
    alpha = alpha.clamp(EPSILON, 1 - EPSILON)
    # log1p keeps the digits of the small probabilities that sparse latents have.
    absent = torch.log1p(-gamma) - torch.log1p(-alpha)
    return (1 - gamma) * absent + gamma * (gamma.log() - alpha.log())


def relaxed_spike(
    gamma: Float[Tensor, "*batch latent"], eta: Float[Tensor, "*batch latent"], sharpness: float
) -> Float[Tensor, "*batch latent"]:
    """``sigmoid(c (eta + gamma - 1))`` for eta uniform in [0, 1].

    As c grows this becomes 1 with probability gamma and 0 otherwise.
    """
    return torch.sigmoid(sharpness * (eta + gamma - 1))


def annealed(step: int, steps: int, *, start: float, end: float) -> float:
    """Sharpness c at a step: linear from ``start`` to ``end`` over ``steps``, then ``end``."""
    share = 1.0 if steps <= 0 else min(1.0, step / steps)
    return start + (end - start) * share
