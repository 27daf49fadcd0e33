"""A tiny model with its tokenizer, and pairs that differ before the last token."""

from __future__ import annotations

import random
from typing import Any

import pytest


@pytest.fixture(scope="session")
def hooked(tiny_model: Any, tiny_tokenizer: Any) -> Any:
    import ed_interp

    return ed_interp.load(tiny_model, tokenizer=tiny_tokenizer)


@pytest.fixture(scope="session")
def contrast() -> Any:
    from ed_interp.probes.directions.pairs import Contrast

    rng = random.Random(0)
    words = ["dog", "cat", "France", "Italy", "walk", "talk", "seven"]
    return Contrast.of(
        [
            (f"{' '.join(shared)} big ->", f"{' '.join(shared)} small ->")
            for shared in (rng.choices(words, k=rng.randint(1, 9)) for _ in range(14))
        ]
    )
