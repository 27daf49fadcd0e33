"""Configurations of spike-and-slab dictionaries, for SAELens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from sae_lens.saes.sae import SAEConfig, SAEMetadata, TrainingSAEConfig

ARCHITECTURE = "spike_slab"


@dataclass
class SpikeSlabSAEConfig(SAEConfig):  # type: ignore[misc]
    """What a trained dictionary needs."""

    # SAELens reads a configuration with plain data here and puts the object in its place after.
    metadata: Any = field(default_factory=SAEMetadata)
    presence_threshold: float = 0.5
    """Encoding for use is gamma * mu where gamma is above this, and exactly 0 elsewhere."""

    @classmethod
    def architecture(cls) -> str:
        """The name under which SAELens knows it."""
        return ARCHITECTURE


@dataclass
class SpikeSlabTrainingSAEConfig(TrainingSAEConfig):  # type: ignore[misc]
    """What training needs on top."""

    presence_threshold: float = 0.5
    alpha: float | None = None
    """Prior probability of presence; None is ``target_l0 / d_sae``, or 0.01 without a target."""
    learn_alpha: bool = False
    """Learn one alpha per latent, beginning at ``alpha``."""
    target_l0: float | None = None
    """Latents present per token that the weight of the KL is steered to; None leaves it fixed."""
    kl_coefficient: float = 1.0
    """Weight of the KL against the squared error: twice the variance of the observation noise."""
    kl_warm_up_steps: int = 0
    """Steps over which that weight grows from 0."""
    sharpness_start: float = 50.0
    sharpness_end: float = 200.0
    """Of the relaxed spike: c at the beginning and at the end of annealing."""
    anneal_steps: int = 0
    """Steps over which c grows; 0 begins at its end."""
    living_decay: float = 0.999
    """Per step, of the running mean of every latent's presence."""
    aux_loss_coefficient: float = 1.0
    """Weight of the loss that lets dead latents explain what the living ones leave."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        super().__post_init__()
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise ValueError(f"alpha={self.alpha} does not lie between 0 and 1")
        if not 0 <= self.presence_threshold < 1:
            raise ValueError(f"presence_threshold={self.presence_threshold} is not in [0, 1)")
        if self.target_l0 is not None and not 0 < self.target_l0 < self.d_sae:
            raise ValueError(f"target_l0={self.target_l0} is not in (0, {self.d_sae})")
        if not (math.isfinite(self.sharpness_end) and self.sharpness_start > 0):
            raise ValueError("the sharpness of the spike must be positive and finite")

    @property
    def prior(self) -> float:
        """Alpha, or what it is by default."""
        if self.alpha is not None:
            return self.alpha
        return 0.01 if self.target_l0 is None else self.target_l0 / self.d_sae

    @classmethod
    def architecture(cls) -> str:
        """The name under which SAELens knows it."""
        return ARCHITECTURE
