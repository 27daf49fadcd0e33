"""Streaming top contexts against a walk over everything at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ed_interp.probes.dictionaries.description.contexts import (
    BEFORE,
    BIN_EDGES,
    NO_TOKEN,
    WIDTH,
    TopContexts,
)
from ed_interp.probes.dictionaries.reader import TokenStates

LATENTS, KEEP = 5, 3


def _text(seed: int, windows: int) -> tuple[TokenStates, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 30, (windows,), generator=generator)
    window = torch.repeat_interleave(torch.arange(windows), lengths)
    tokens = len(window)
    dense = torch.rand(tokens, LATENTS, generator=generator) ** 4
    dense *= torch.rand(tokens, LATENTS, generator=generator) < 0.3
    dense[:, 4] = 0.0
    ids = torch.randint(0, 50, (tokens,), generator=generator)
    return TokenStates(torch.zeros(tokens, 2), ids, window), dense


def _cut(
    part: TokenStates, dense: torch.Tensor, window: int
) -> list[tuple[TokenStates, torch.Tensor]]:
    pieces = []
    for chosen in (part.window < window, part.window >= window):
        columns = (part.states, part.ids, part.window)
        pieces.append((TokenStates(*(c[chosen] for c in columns)), dense[chosen]))
    return pieces


@pytest.mark.parametrize("seed", [0, 1])
def test_batches_give_what_everything_at_once_gives(seed: int) -> None:
    part, dense = _text(seed, 20)
    whole, streamed = TopContexts(LATENTS, keep=KEEP), TopContexts(LATENTS, keep=KEEP)
    whole.add(part, dense)
    for piece, activations in _cut(part, dense, 7):
        streamed.add(piece, activations)
    for name in ("context_ids", "context_values", "context_peak"):
        np.testing.assert_array_equal(whole.columns()[name], streamed.columns()[name])
    np.testing.assert_array_equal(whole.histogram, streamed.histogram)
    np.testing.assert_array_equal(whole.fired, (dense > 0).sum(0).numpy())
    np.testing.assert_array_equal(whole.histogram.sum(1), whole.fired)
    np.testing.assert_allclose(whole.summed, dense.double().sum(0).numpy(), rtol=1e-6)


def test_contexts_are_the_strongest_of_different_windows() -> None:
    part, dense = _text(3, 12)
    top = TopContexts(LATENTS, keep=KEEP)
    top.add(part, dense)
    found = top.columns()["context_peak"]
    for latent in range(LATENTS):
        peaks = {
            int(window): float(dense[part.window == window, latent].max())
            for window in part.window.unique()
        }
        best = sorted((peak for peak in peaks.values() if peak > 0), reverse=True)[:KEEP]
        expected = np.zeros(KEEP, dtype=np.float32)
        expected[: len(best)] = best
        np.testing.assert_array_equal(found[latent], expected)


def test_a_context_is_the_text_around_its_peak_and_stops_at_the_window() -> None:
    ids = torch.arange(10)
    window = torch.tensor([0] * 4 + [1] * 6)
    dense = torch.zeros(10, 1)
    dense[4, 0] = 2.0
    dense[6, 0] = 1.0
    top = TopContexts(1, keep=2)
    top.add(TokenStates(torch.zeros(10, 1), ids, window), dense)
    ids, values = (top.columns()[f"context_{name}"][0] for name in ("ids", "values"))
    row = ids[0]
    assert row[BEFORE] == 4
    assert (row[:BEFORE] == NO_TOKEN).all()  # the window before is not shown
    assert row[BEFORE : BEFORE + 6].tolist() == [4, 5, 6, 7, 8, 9]
    assert values[0, BEFORE : BEFORE + 3].tolist() == [2.0, 0.0, 1.0]
    assert ids[1].tolist() == [NO_TOKEN] * WIDTH


def test_strengths_beyond_the_bins_are_counted_in_the_last_ones() -> None:
    dense = torch.tensor([[1e-9], [1e9], [1.0]])
    top = TopContexts(1, keep=1)
    window = torch.arange(3)
    top.add(TokenStates(torch.zeros(3, 1), window, window), dense)
    counts = top.histogram[0]
    assert counts[0] == counts[-1] == 1
    assert counts[np.searchsorted(BIN_EDGES, 1.0, side="right") - 1] == 1
