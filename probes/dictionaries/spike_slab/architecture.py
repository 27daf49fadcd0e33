"""The spike-and-slab dictionary: its posterior, configurations, use and training.

Recognition model ``q(z|x) = gamma N(mu, sigma^2) + (1 - gamma) delta_0`` per latent, prior
``alpha N(0, 1) + (1 - alpha) delta_0`` (Tonolini, Jensen and Murray-Smith 2019). The slab head
computes ``mu = softplus(x W_enc + b_enc)`` and ``ln sigma``, the spike head
``gamma = sigmoid(x W_gate + b_gate)``, the probability that the latent is present. What differs
from the paper: the decoder is linear; mu is positive, so that a latent means one direction and not
also its opposite; ``ln sigma`` is a linear function of the slab's pre-activation, per latent,
instead of a third matrix.

Loss per token: squared error of the decoded sample, plus the weighted KL of posterior from prior
(:func:`kl_divergence`). The sample is ``(mu + sigma eps) sigmoid(c (eta + gamma - 1))`` with c
annealed up and the weight warmed up. With ``target_l0`` the weight is steered so that so many
latents are present per token, as in constrained variational inference (Rezende and Viola 2018,
"Taming VAEs"): while more are present than the target, the weight grows. A learned alpha alone
would not make latents sparse, since the KL is least where alpha is the latent's own rate.

Cost of encoding: two matrix products where other dictionaries need one. Of training: about twice
that of a top-k dictionary (a second encoder and two random numbers per latent).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ed_interp.probes.dictionaries import backend

EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1."""
ARCHITECTURE = "spike_slab"

_LOG_SIGMA = (-6.0, 2.0)
_STEERING = 0.05
"""Relative change of the KL's weight per step when L0 is twice its target."""
_WEIGHT = (1e-4, 1e4)
_TRAINING_ONLY = ("kl_weight", "alpha_logit")


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


@dataclass
class SpikeSlabSAEConfig(backend.SAEConfig):  # type: ignore[misc]
    """Configuration of a trained dictionary."""

    # SAELens constructs a configuration with plain data here and replaces it by the object after.
    metadata: Any = field(default_factory=backend.SAEMetadata)
    presence_threshold: float = 0.5
    """Encoding for use is gamma * mu where gamma is above this, and exactly 0 elsewhere."""

    @classmethod
    def architecture(cls) -> str:
        """The name under which SAELens knows it."""
        return ARCHITECTURE


@dataclass
class SpikeSlabTrainingSAEConfig(backend.TrainingSAEConfig):  # type: ignore[misc]
    """Configuration of a dictionary in training."""

    presence_threshold: float = 0.5
    alpha: float | None = None
    """Prior probability of presence; None is ``target_l0 / d_sae``, or 0.01 without a target."""
    learn_alpha: bool = False
    """Learn one alpha per latent, beginning at ``alpha``."""
    target_l0: float | None = None
    """Number of latents present per token, reached by changing the KL's weight; None fixes it."""
    kl_coefficient: float = 1.0
    """Weight of the KL against the squared error: twice the variance of the observation noise."""
    kl_warm_up_steps: int = 0
    """Steps over which that weight grows from 0."""
    sharpness_start: float = 50.0
    sharpness_end: float = 200.0
    """Sharpness c of the relaxed spike at the beginning and at the end of annealing."""
    anneal_steps: int = 0
    """Steps over which c grows; with 0 it is at its end from the start."""
    living_decay: float = 0.999
    """Decay per step of the running mean of every latent's presence."""
    aux_loss_coefficient: float = 1.0
    """Weight of the loss by which dead latents reconstruct the remaining error."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        super().__post_init__()
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")
        if not 0 <= self.presence_threshold < 1:
            raise ValueError(f"presence_threshold must be in [0, 1), got {self.presence_threshold}")
        if self.target_l0 is not None and not 0 < self.target_l0 < self.d_sae:
            raise ValueError(f"target_l0 must be in (0, {self.d_sae}), got {self.target_l0}")
        if not (math.isfinite(self.sharpness_end) and self.sharpness_start > 0):
            raise ValueError("the sharpness of the spike must be positive and finite")

    @property
    def prior(self) -> float:
        """Prior probability of presence at the beginning of training."""
        if self.alpha is not None:
            return self.alpha
        return 0.01 if self.target_l0 is None else self.target_l0 / self.d_sae

    @classmethod
    def architecture(cls) -> str:
        """The name under which SAELens knows it."""
        return ARCHITECTURE


class Posterior(NamedTuple):
    """The recognition model's distribution of every latent."""

    gamma: Float[Tensor, "*batch latent"]
    """Probability of being present."""
    mu: Float[Tensor, "*batch latent"]
    """Mean, if present."""
    log_sigma: Float[Tensor, "*batch latent"]
    """Logarithm of the standard deviation, if present."""


class SpikeSlabHeads(backend.SAE[Any]):  # type: ignore[misc]
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
        """Refused by NotImplementedError, as a softplus is not homogeneous."""
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


class SpikeSlabTrainingSAE(SpikeSlabHeads, backend.TrainingSAE[SpikeSlabTrainingSAEConfig]):  # type: ignore[misc]
    """A spike-and-slab dictionary in training."""

    kl_weight: Tensor
    alpha_logit: Tensor

    def initialize_weights(self) -> None:
        """SAELens's own weights, then the heads; alpha is a parameter or a constant."""
        super().initialize_weights()
        self.initialize_heads(prior=self.cfg.prior)
        self.register_buffer("kl_weight", torch.ones((), device=self.device))
        prior = torch.full((self.cfg.d_sae,), self.cfg.prior, device=self.device)
        if self.cfg.learn_alpha:
            self.alpha_logit = nn.Parameter(prior.logit())
        else:
            self.register_buffer("alpha_logit", prior.logit())

    def get_coefficients(self) -> dict[str, float | backend.TrainCoefficientConfig]:
        """The weight of the KL, warmed up by the trainer."""
        return {
            "kl": backend.TrainCoefficientConfig(self.cfg.kl_coefficient, self.cfg.kl_warm_up_steps)
        }

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Deterministic encoding and the slab's pre-activation."""
        latents, slab = self.posterior_and_slab(x)
        return self.hook_sae_acts_post(self.expected(latents)), slab

    def training_forward_pass(self, step_input: backend.TrainStepInput) -> backend.TrainStepOutput:
        """One step's losses; ``feature_acts`` are the deterministic ones."""
        latents, slab = self.posterior_and_slab(step_input.sae_in)
        step, ends = step_input.n_training_steps, (self.cfg.sharpness_start, self.cfg.sharpness_end)
        sharpness = annealed(step, self.cfg.anneal_steps, start=ends[0], end=ends[1])
        spike = relaxed_spike(latents.gamma, torch.rand_like(latents.gamma), sharpness)
        noise = torch.randn_like(latents.mu)
        sae_out = self.decode((latents.mu + latents.log_sigma.exp() * noise) * spike)
        mse = self.mse_loss_fn(sae_out, step_input.sae_in).sum(-1).mean()
        alpha = torch.sigmoid(self.alpha_logit)
        kl = kl_divergence(*latents, alpha).sum(-1).mean()
        weight = step_input.coefficients["kl"] * self.kl_weight
        # SAELens's trainer calls a latent dead by these. Sampled ones would never be 0.
        feature_acts = self.expected(latents).detach()
        aux = self.calculate_aux_loss(step_input, feature_acts, slab, sae_out)
        losses = {"mse_loss": mse, "kl_loss": weight * kl, **aux}
        self._track(latents)
        return backend.TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=slab,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
            metrics={"kl_nats": kl.detach(), "kl_weight": self.kl_weight, "sharpness": sharpness},
        )

    def calculate_aux_loss(
        self,
        step_input: backend.TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Float[Tensor, "batch d_sae"],
        sae_out: Float[Tensor, "batch d_in"],
    ) -> dict[str, Tensor]:
        """Dead latents reconstruct the remaining error, as for top-k (Gao et al. 2024, A.2)."""
        dead = step_input.dead_neuron_mask
        count = 0 if dead is None else int(dead.sum())
        if dead is None or not count:
            return {}
        wanted = step_input.sae_in.shape[-1] // 2
        acts = backend.calculate_topk_aux_acts(min(wanted, count), hidden_pre, dead)
        residual = (step_input.sae_in - sae_out).detach()
        error = (acts.relu() @ self.W_dec - residual).square().sum(-1).mean()
        scale = self.cfg.aux_loss_coefficient * min(count / wanted, 1.0)
        # No gradient of that error reaches the gates, which decide whether a latent is present.
        gates = -self.b_gate[dead].mean()
        return {"auxiliary_reconstruction_loss": scale * error, "gate_revival_loss": scale * gates}

    @torch.no_grad()
    def _track(self, latents: Posterior) -> None:
        """Update each latent's running presence, and steer the weight of the KL to the target."""
        rate = latents.gamma.mean(0).to(self.presence_rate.dtype)
        self.presence_rate.lerp_(rate, 1 - self.cfg.living_decay)
        if self.cfg.target_l0 is not None:
            present = (latents.gamma > self.cfg.presence_threshold).sum(-1).float().mean()
            # Multiplicative, as the right weight is unknown over several orders of magnitude; the
            # clamp keeps an early step with hundreds present from overshooting.
            excess = (present / self.cfg.target_l0 - 1).clamp(-1, 1)
            self.kl_weight.mul_(torch.exp(_STEERING * excess)).clamp_(*_WEIGHT)

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Drop what only training needs."""
        super().process_state_dict_for_saving_inference(state_dict)
        for name in _TRAINING_ONLY:
            state_dict.pop(name)
