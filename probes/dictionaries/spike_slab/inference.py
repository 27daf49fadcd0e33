"""The spike-and-slab dictionary as it is used, and the encoder that training shares with it.

The slab head gives ``mu = softplus(x W_enc + b_enc)`` and ``ln sigma``, the spike head
``gamma = sigmoid(x W_gate + b_gate)``, the probability that the latent is present. Cost of
encoding: two matrix products where other dictionaries have one.

What differs from Tonolini et al. (2019): the decoder is linear; mu is positive, so that a latent
stands for one direction and not for it and its opposite; ``ln sigma`` is a line in the slab's
pre-activation, per latent, rather than a third matrix.
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


class SpikeSlabSAE(SAE[SpikeSlabSAEConfig]):  # type: ignore[misc]
    """A trained spike-and-slab dictionary."""

    b_enc: nn.Parameter
    W_gate: nn.Parameter
    b_gate: nn.Parameter
    r_sigma: nn.Parameter
    b_sigma: nn.Parameter
    presence_rate: Tensor

    def initialize_weights(self) -> None:
        """Zeros for the biases: a trained dictionary's weights are loaded over them."""
        super().initialize_weights()
        initialize_heads(self, prior=0.01)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The expected value ``gamma mu`` where presence exceeds the threshold, else exactly 0."""
        found: Tensor = self.hook_sae_acts_post(expected(self, self.posterior(x)))
        return found

    def decode(self, feature_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """A linear map, as in other dictionaries."""
        return decode(self, feature_acts)

    def posterior(self, x: Float[Tensor, "*batch d_in"]) -> Posterior:
        """The distribution of every latent."""
        return posterior(self, self.process_sae_in(x))[0]

    def presence(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Probability of every latent of being present."""
        return self.posterior(x).gamma

    @torch.no_grad()
    def sample(
        self, x: Float[Tensor, "*batch d_in"], *, samples: int = 1, seed: int = 0
    ) -> Float[Tensor, "sample *batch d_sae"]:
        """Draws from the posterior: 0 where a latent is absent, a Gaussian where it is present.

        Decoded, their spread is what the dictionary does not know about ``x``.
        """
        found = self.posterior(x)
        # Drawn on the CPU, so that a seed means the same on every device.
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, *found.mu.shape)
        device, dtype = found.mu.device, found.mu.dtype
        present = torch.rand(shape, generator=generator).to(device, dtype) < found.gamma
        noise = torch.randn(shape, generator=generator).to(device, dtype)
        return (found.mu + found.log_sigma.exp() * noise) * present

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Take in states that are not scaled; the spike head is a second encoder."""
        super().fold_activation_norm_scaling_factor(scaling_factor)
        fold_scale(self, scaling_factor)

    def fold_W_dec_norm(self) -> None:
        """Refused.

        Raises:
            NotImplementedError: a softplus does not scale.
        """
        refuse_folding()


def initialize_heads(sae: Any, *, prior: float) -> None:
    """The parameters that other dictionaries do not have."""

    def vector(value: float) -> nn.Parameter:
        return nn.Parameter(torch.full((sae.cfg.d_sae,), value, dtype=sae.dtype, device=sae.device))

    sae.b_enc = vector(0.0)
    # The spike is to tell presence from absence: twice as steep as the slab.
    sae.W_gate = nn.Parameter(2 * sae.W_enc.detach().clone())
    sae.b_gate = vector(math.log(prior / (1 - prior)))
    sae.r_sigma = vector(0.0)
    sae.b_sigma = vector(-2.0)
    sae.register_buffer("presence_rate", vector(prior).detach())


def posterior(
    sae: Any, centred: Float[Tensor, "*batch d_in"]
) -> tuple[Posterior, Float[Tensor, "*batch d_sae"]]:
    """The distribution of every latent, and the slab's pre-activation, of processed input."""
    slab = sae.hook_sae_acts_pre(centred @ sae.W_enc + sae.b_enc)
    gamma = torch.sigmoid(centred @ sae.W_gate + sae.b_gate)
    log_sigma = (sae.b_sigma + sae.r_sigma * slab).clamp(*_LOG_SIGMA)
    return Posterior(gamma, nn.functional.softplus(slab), log_sigma), slab


def expected(sae: Any, found: Posterior) -> Float[Tensor, "*batch d_sae"]:
    """``gamma mu`` above the presence threshold, else 0."""
    values: Tensor = found.gamma * found.mu * (found.gamma > sae.cfg.presence_threshold)
    return values


def decode(sae: Any, feature_acts: Tensor) -> Tensor:
    """SAELens's linear decoder with its hooks."""
    out = sae.hook_sae_recons(feature_acts @ sae.W_dec + sae.b_dec)
    restored: Tensor = sae.reshape_fn_out(sae.run_time_activation_norm_fn_out(out), sae.d_head)
    return restored


@torch.no_grad()
def fold_scale(sae: Any, scaling_factor: float) -> None:
    """What SAELens does to ``W_enc``, done to the spike head."""
    sae.W_gate.data *= scaling_factor


def refuse_folding() -> None:
    """Say why decoder norms cannot be folded into the encoder."""
    raise NotImplementedError(
        "decoder norms of a spike-and-slab dictionary cannot be folded into its encoder: its slab "
        "is a softplus, which does not scale; use normalised decoder rows where you need them"
    )
