"""Tiny models with a bias-injection adapter whose weights are random instead of neutral."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def adapted(build_model: Callable[[str], Any]) -> Callable[..., Any]:
    """Builder of an adapted model in eval mode; ``trained`` makes every weight random."""
    import torch
    from peft import get_peft_model

    from ed_interp.adapters.bias_injection import BiasInjectionConfig

    def build(family: str, *, trained: bool = True, seed: int = 1, **options: Any) -> Any:
        base = build_model(family).eval()
        base.generation_config.pad_token_id = 0
        config = BiasInjectionConfig(**{"r": 4, "n_nodes": 3, "tau": 5.0, **options})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = get_peft_model(base, config).eval()
            if trained:
                randomise(model)
        return model

    return build


def randomise(model: Any) -> None:
    """Every weight of every adapter random, time constants left as they are."""
    for name, parameter in model.named_parameters():
        if "bias_injection" in name and "tau" not in name:
            parameter.data.normal_(std=0.3)


@pytest.fixture(scope="session")
def padded() -> Any:
    """Three sequences of 14 tokens, two of them padded on the left: ids, mask, positions."""
    import torch

    ids = torch.randint(3, 101, (3, 14), generator=torch.Generator().manual_seed(5))
    mask = torch.ones(3, 14, dtype=torch.long)
    mask[1, :5] = 0
    mask[2, :2] = 0
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)
