"""A tiny model to train, and the settings of a run of seconds."""

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
    """Settings of 12 steps with held-out examples, and a checkpoint every 3."""

    def settings(**changes: Any) -> dict[str, Any]:
        return {"max_steps": 12, "batch_size": 4, "eval_steps": 3} | changes

    return settings
