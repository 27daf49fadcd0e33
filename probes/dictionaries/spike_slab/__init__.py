"""Sparse coding by a spike-and-slab variational autoencoder, as an architecture of SAELens.

Importing this registers ``spike_slab`` with SAELens, once: such a dictionary then trains with
SAELens's trainer, saves, loads with ``SAE.load_from_disk`` and is evaluated like any other.
Importing it imports SAELens (8 seconds).
"""

from ed_interp.probes.dictionaries.backend import registry as _sae_lens_first  # noqa: F401  (quietly)
from ed_interp.probes.dictionaries.spike_slab.config import (
    ARCHITECTURE,
    SpikeSlabSAEConfig,
    SpikeSlabTrainingSAEConfig,
)
from ed_interp.probes.dictionaries.spike_slab.inference import SpikeSlabSAE
from ed_interp.probes.dictionaries.spike_slab.register import register
from ed_interp.probes.dictionaries.spike_slab.training import SpikeSlabTrainingSAE

register()

__all__ = [
    "ARCHITECTURE",
    "SpikeSlabSAE",
    "SpikeSlabSAEConfig",
    "SpikeSlabTrainingSAE",
    "SpikeSlabTrainingSAEConfig",
]
