"""The untrained twin: the same architecture with fresh weights, a control for effects of training.

Cost: one initialisation of the model, and its memory.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch

from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import TransformersRunner


def untrained_twin(hooked: HookedModel, *, seed: int = 0) -> HookedModel:
    """A model of the same configuration, device and dtype, initialised by its own code.

    The twin of an adapted model is the twin of its base. Neither ``hooked`` nor torch's random
    state is changed.
    """
    # Initialised in float32 on the CPU, so that the twin does not depend on device and precision.
    runner = hooked.runner
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(runner, TransformersRunner):
            twin = _fresh_transformers(runner.base)
        elif hasattr(hooked.model, "original_model"):
            # The model in a bridge has replaced modules; its twin is a fresh plain model.
            twin = _fresh_transformers(hooked.model.original_model)
        else:
            config = copy.deepcopy(hooked.model.cfg)
            config.seed, config.init_weights = None, True
            with warnings.catch_warnings():
                # The user chose this deprecated class and was warned when making the first one.
                warnings.simplefilter("ignore", DeprecationWarning)
                twin = type(hooked.model)(config, tokenizer=None, move_to_device=False)
    twin = twin.to(hooked.device).to(hooked.dtype).eval()
    return HookedModel.wrap(twin, hooked.tokenizer, name=f"{hooked.name} (untrained)")


def _fresh_transformers(model: Any) -> Any:
    config = copy.deepcopy(model.config)
    attention = config._attn_implementation
    return type(model)._from_config(config, dtype=torch.float32, attn_implementation=attention)
