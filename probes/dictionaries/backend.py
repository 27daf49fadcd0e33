"""SAELens, imported in one place (8 seconds) and without the warnings of its imports."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # SAELens 6 imports modules that TransformerLens 3.9 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from sae_lens import SAE, SAEConfig, SAETrainer, TrainingSAE, TrainingSAEConfig, registry
    from sae_lens.config import SAETrainerConfig
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory as releases
    from sae_lens.saes.sae import (
        SAEMetadata,
        TrainCoefficientConfig,
        TrainStepInput,
        TrainStepOutput,
    )
    from sae_lens.saes.topk_sae import calculate_topk_aux_acts

__all__ = [
    "SAE", "SAEConfig", "SAEMetadata", "SAETrainer", "SAETrainerConfig", "TrainCoefficientConfig",
    "TrainStepInput", "TrainStepOutput", "TrainingSAE", "TrainingSAEConfig",
    "calculate_topk_aux_acts", "registry", "releases",
]  # fmt: skip
