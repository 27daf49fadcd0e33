"""Sparse coding by a spike-and-slab variational autoencoder, as an architecture of SAELens.

Importing this registers ``spike_slab`` with SAELens: such a dictionary then trains with SAELens's
trainer, saves, loads with ``SAE.load_from_disk`` and is evaluated like any other. The import takes
8 seconds, which is SAELens's own.
"""

from ed_interp.probes.dictionaries.backend import registry as _registry
from ed_interp.probes.dictionaries.spike_slab.architecture import (
    ARCHITECTURE,
    SpikeSlabSAE,
    SpikeSlabSAEConfig,
    SpikeSlabTrainingSAE,
    SpikeSlabTrainingSAEConfig,
)

# SAELens refuses a name that is already taken, and a reload of this module would repeat it.
if ARCHITECTURE not in _registry.SAE_CLASS_REGISTRY:
    _registry.register_sae_class(ARCHITECTURE, SpikeSlabSAE, SpikeSlabSAEConfig)
    _registry.register_sae_training_class(
        ARCHITECTURE, SpikeSlabTrainingSAE, SpikeSlabTrainingSAEConfig
    )
