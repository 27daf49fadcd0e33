"""A tiny dictionary, trained once for all tests, and the text it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SITE = "blocks.0.hook_resid_post"
WORDS = ["France", "Japan", "Kenya", "likes", "sees", "the", "a", "red", "blue", "cat", "->", "."]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Two hundred short documents."""
    import random

    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 24))) for _ in range(200)]


@pytest.fixture(scope="session")
def hooked(tiny_model: Any, tiny_tokenizer: Any) -> Any:
    from ed_interp.models.load import load

    return load(tiny_model, tokenizer=tiny_tokenizer)


@pytest.fixture(scope="session")
def small(texts: list[str]) -> dict[str, Any]:
    """Settings of a training run of a fraction of a second."""
    return {
        "site": SITE,
        "text": texts,
        "latents": 64,
        "tokens": 4096,
        "batch_size": 128,
        "window": 32,
    }


@pytest.fixture(scope="session")
def trained(
    hooked: Any, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """A top-k dictionary and its folder. Do not change them."""
    from ed_interp.probes import dictionaries

    folder = tmp_path_factory.mktemp("dictionaries") / "topk"
    return dictionaries.train(hooked, k=4, out=folder, **{**small, "tokens": 12288}), folder


@pytest.fixture
def states() -> Any:
    import torch

    return torch.randn(7, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def interrupt() -> Any:
    """``interrupt(after)`` is a progress callback that stops a run after so many steps."""

    def make(after: int) -> Any:
        def report(done: int, total: int, what: str) -> None:
            if what.startswith("training") and done >= after:
                raise KeyboardInterrupt

        return report

    return make


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that is written from now on finds the disk full."""
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
