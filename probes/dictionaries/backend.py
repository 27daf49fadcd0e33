"""SAELens, imported in one place (8 seconds) and without the warnings of its imports."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # SAELens 6 imports modules that TransformerLens 3.9 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from sae_lens import SAE as SAE
    from sae_lens import SAETrainer as SAETrainer
    from sae_lens import TrainingSAE as TrainingSAE
    from sae_lens import registry as registry
    from sae_lens.config import SAETrainerConfig as SAETrainerConfig
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory as releases
    from sae_lens.saes.sae import SAEMetadata as SAEMetadata

__all__ = ["releases"]
