"""Configurations of spike-and-slab dictionaries, for SAELens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from sae_lens.saes.sae import SAEConfig, SAEMetadata, TrainingSAEConfig

ARCHITECTURE = "spike_slab"


@dataclass
class SpikeSlabSAEConfig(SAEConfig):  # type: ignore[misc]
    """Configuration of a trained dictionary."""

    # SAELens constructs a configuration with plain data here and replaces it by the object after.
    metadata: Any = field(default_factory=SAEMetadata)
    presence_threshold: float = 0.5
    """Encoding for use is gamma * mu where gamma is above this, and exactly 0 elsewhere."""

    @classmethod
    def architecture(cls) -> str:
        """The name under which SAELens knows it."""
        return ARCHITECTURE


@dataclass
class SpikeSlabTrainingSAEConfig(TrainingSAEConfig):  # type: ignore[misc]
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
