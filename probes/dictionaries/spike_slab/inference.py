"""The spike-and-slab dictionary in use, and the two heads that training shares with it.

The slab head computes ``mu = softplus(x W_enc + b_enc)`` and ``ln sigma``, the spike head
``gamma = sigmoid(x W_gate + b_gate)``, the probability that the latent is present. Cost of
encoding: two matrix products where other dictionaries need one.

What differs from Tonolini et al. (2019): the decoder is linear; mu is positive, so that a latent
means one direction and not also its opposite; ``ln sigma`` is a linear function of the
slab's pre-activation, per latent, instead of a third matrix.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAE
from torch import Tensor, nn

from ed_interp.probes.dictionaries.spike_slab.config import SpikeSlabSAEConfig

_LOG_SIGMA = (-6.0, 2.0)


class Posterior(NamedTuple):
    """The recognition model's distribution of every latent."""

    gamma: Float[Tensor, "*batch latent"]
    """Probability of being present."""
    mu: Float[Tensor, "*batch latent"]
    """Mean, if present."""
    log_sigma: Float[Tensor, "*batch latent"]
    """Logarithm of the standard deviation, if present."""


class SpikeSlabHeads(SAE[Any]):  # type: ignore[misc]
    """What training and use have in common: two encoder heads and a linear decoder."""

    b_enc: nn.Parameter
    W_gate: nn.Parameter
    b_gate: nn.Parameter
    r_sigma: nn.Parameter
    b_sigma: nn.Parameter
    presence_rate: Tensor

    def initialize_heads(self, *, prior: float) -> None:
        """Create the parameters that other dictionaries do not have."""

        def vector(value: float) -> nn.Parameter:
            size = (self.cfg.d_sae,)
            return nn.Parameter(torch.full(size, value, dtype=self.dtype, device=self.device))

        self.b_enc = vector(0.0)
        # The spike must separate presence from absence: start twice as steep as the slab.
        self.W_gate = nn.Parameter(2 * self.W_enc.detach().clone())
        self.b_gate = vector(math.log(prior / (1 - prior)))
        self.r_sigma = vector(0.0)
        self.b_sigma = vector(-2.0)
        self.register_buffer("presence_rate", vector(prior).detach())

    def posterior_and_slab(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Posterior, Float[Tensor, "*batch d_sae"]]:
        """The distribution of every latent, and the slab's pre-activation."""
        centred = self.process_sae_in(x)
        slab = self.hook_sae_acts_pre(centred @ self.W_enc + self.b_enc)
        gamma = torch.sigmoid(centred @ self.W_gate + self.b_gate)
        # Unbounded, exp(2 log_sigma) in the KL overflows in the first steps of training.
        log_sigma = (self.b_sigma + self.r_sigma * slab).clamp(*_LOG_SIGMA)
        return Posterior(gamma, nn.functional.softplus(slab), log_sigma), slab

    def expected(self, latents: Posterior) -> Float[Tensor, "*batch d_sae"]:
        """``gamma mu`` above the presence threshold, else exactly 0."""
        present = latents.gamma > self.cfg.presence_threshold
        values: Tensor = latents.gamma * latents.mu * present
        return values

    def decode(self, feature_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """A linear map with SAELens's hooks, as in other dictionaries."""
        out = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        restored: Tensor = self.reshape_fn_out(
            self.run_time_activation_norm_fn_out(out), self.d_head
        )
        return restored

    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Fold the scale of the states into the weights; the spike head is a second encoder."""
        super().fold_activation_norm_scaling_factor(scaling_factor)
        self.W_gate.data *= scaling_factor

    def fold_W_dec_norm(self) -> None:
        """Refused.

        Raises:
            NotImplementedError: always, as a softplus is not homogeneous.
        """
        raise NotImplementedError(
            "decoder norms of a spike-and-slab dictionary cannot be folded into its encoder: its "
            "slab is a softplus, which does not scale; normalise decoder rows where you need them"
        )


class SpikeSlabSAE(SpikeSlabHeads):
    """A trained spike-and-slab dictionary."""

    cfg: SpikeSlabSAEConfig

    def initialize_weights(self) -> None:
        """Placeholders: the weights of a trained dictionary are loaded over them."""
        super().initialize_weights()
        self.initialize_heads(prior=0.01)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The expected value ``gamma mu`` where presence exceeds the threshold, else exactly 0."""
        activations: Tensor = self.hook_sae_acts_post(self.expected(self.posterior(x)))
        return activations

    def posterior(self, x: Float[Tensor, "*batch d_in"]) -> Posterior:
        """The distribution of every latent."""
        return self.posterior_and_slab(x)[0]

    def presence(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Probability of every latent of being present."""
        return self.posterior(x).gamma

    @torch.no_grad()
    def sample(
        self, x: Float[Tensor, "*batch d_in"], *, samples: int = 1, seed: int = 0
    ) -> Float[Tensor, "sample *batch d_sae"]:
        """Draws from the posterior: 0 where a latent is absent, a Gaussian where it is present.

        Decode them: their spread is the dictionary's uncertainty about ``x``.
        """
        latents = self.posterior(x)
        # On the CPU, so that a seed means the same on every device.
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, *latents.mu.shape)
        device, dtype = latents.mu.device, latents.mu.dtype
        present = torch.rand(shape, generator=generator).to(device, dtype) < latents.gamma
        noise = torch.randn(shape, generator=generator).to(device, dtype)
        return (latents.mu + latents.log_sigma.exp() * noise) * present
