"""A tiny model to train, and the options of a run of seconds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def base(tiny_model: Any, tiny_tokenizer: Any) -> Any:
    """The tiny model under hooks, a copy of one's own with weights that an adapter can use."""
    from ed_interp.models.hooked import HookedModel

    model = copy.deepcopy(tiny_model)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 4
    return HookedModel.wrap(model, tiny_tokenizer, name="tiny")


@pytest.fixture
def short() -> Callable[..., Any]:
    """Options of 12 steps with held-out examples, dropout's seed and a checkpoint every 3."""
    from ed_interp.adapters.training import TrainingOptions

    def options(**changes: Any) -> Any:
        settings: dict[str, Any] = {"max_steps": 12, "batch_size": 4, "eval_steps": 3}
        return TrainingOptions(**(settings | changes))

    return options
