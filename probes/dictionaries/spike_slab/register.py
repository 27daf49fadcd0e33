"""Make ``spike_slab`` known to SAELens."""

from __future__ import annotations

from sae_lens import register_sae_class, register_sae_training_class
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

from ed_interp.probes.dictionaries.spike_slab.config import (
    ARCHITECTURE,
    SpikeSlabSAEConfig,
    SpikeSlabTrainingSAEConfig,
)
from ed_interp.probes.dictionaries.spike_slab.inference import SpikeSlabSAE
from ed_interp.probes.dictionaries.spike_slab.training import SpikeSlabTrainingSAE


def register() -> None:
    """Register both classes; a second call changes nothing."""
    if ARCHITECTURE not in SAE_CLASS_REGISTRY:
        register_sae_class(ARCHITECTURE, SpikeSlabSAE, SpikeSlabSAEConfig)
    if ARCHITECTURE not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(ARCHITECTURE, SpikeSlabTrainingSAE, SpikeSlabTrainingSAEConfig)
