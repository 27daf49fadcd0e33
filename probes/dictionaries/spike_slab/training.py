"""Training a spike-and-slab dictionary with SAELens's trainer.

Loss per token: squared error of the decoded sample, plus the weighted KL of posterior from prior
(:func:`~ed_interp.probes.dictionaries.spike_slab.posterior.kl_divergence`). The sample is
``(mu + sigma eps) sigmoid(c (eta + gamma - 1))`` with c annealed up and the weight warmed up.

With ``target_l0`` the weight is steered so that so many latents are present per token, as in
constrained variational inference (Rezende and Viola 2018, "Taming VAEs"): while more are present
than the target, the weight grows. A learned alpha alone would not make latents sparse, since the KL
is least where alpha is the latent's own rate. Cost: about twice that of a top-k dictionary (a
second encoder and two random numbers per latent).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from sae_lens.saes.sae import TrainCoefficientConfig, TrainingSAE, TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import calculate_topk_aux_acts
from torch import Tensor, nn

from ed_interp.probes.dictionaries.spike_slab.config import SpikeSlabTrainingSAEConfig
from ed_interp.probes.dictionaries.spike_slab.inference import Posterior, SpikeSlabHeads
from ed_interp.probes.dictionaries.spike_slab.posterior import (
    annealed,
    kl_divergence,
    relaxed_spike,
)

_STEERING = 0.05
"""Relative change of the KL's weight per step when L0 is twice its target."""
_WEIGHT = (1e-4, 1e4)
_TRAINING_ONLY = ("kl_weight", "alpha_logit")


class SpikeSlabTrainingSAE(SpikeSlabHeads, TrainingSAE[SpikeSlabTrainingSAEConfig]):  # type: ignore[misc]
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

    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        """The weight of the KL, warmed up by the trainer."""
        return {"kl": TrainCoefficientConfig(self.cfg.kl_coefficient, self.cfg.kl_warm_up_steps)}

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Deterministic encoding and the slab's pre-activation."""
        latents, slab = self.posterior_and_slab(x)
        return self.hook_sae_acts_post(self.expected(latents)), slab

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
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
        return TrainStepOutput(
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
        step_input: TrainStepInput,
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
        acts = calculate_topk_aux_acts(min(wanted, count), hidden_pre, dead)
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
