"""The contexts in which each latent is most active, found in one pass over any amount of text.

For every latent the ``keep`` windows with the highest activation are kept, one context per window,
with the tokens around its peak and the latent's activation at each of them. The same pass counts
how often and how strongly each latent is active. Cost: one sort per batch, of the activations that
exceed the smallest one kept; memory ``latent x keep x width`` times 6 bytes, whatever the length
of the text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.probes.dictionaries.reader import TokenStates

BEFORE, AFTER = 15, 8
"""Tokens of a context before and after its peak."""
WIDTH = BEFORE + 1 + AFTER
NO_TOKEN = -1

Indices = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]
"""Arrays of ``latent ...``, by the names that ``descriptions.NAMES`` explains."""

BINS_PER_OCTAVE = 2
_LOWEST, _HIGHEST = -10, 14
BIN_EDGES: NDArray[np.float64] = 2.0 ** np.linspace(
    _LOWEST, _HIGHEST, (_HIGHEST - _LOWEST) * BINS_PER_OCTAVE + 1
)
"""Edges of the histograms: two bins per doubling; values outside are counted in the end bins."""


class TopContexts:
    """Takes batches of activations and keeps the strongest contexts."""

    def __init__(self, latents: int, *, keep: int) -> None:
        self.tokens = 0
        self.fired = np.zeros(latents, dtype=np.int64)
        """Tokens at which each latent was active."""
        self.summed = np.zeros(latents)
        self.histogram = np.zeros((latents, len(BIN_EDGES) - 1), dtype=np.int64)
        """``latent bin``: counts of activations by strength; see BIN_EDGES."""
        self._keep = keep
        self._ids = np.full((latents, keep, WIDTH), NO_TOKEN, dtype=np.int32)
        self._values = np.zeros((latents, keep, WIDTH), dtype=np.float16)
        self._peak = np.zeros((latents, keep), dtype=np.float32)
        # Float16 ends at 65,504, which few dictionaries reach; larger values are shown clipped.
        self._largest = float(np.finfo(np.float16).max)

    def add(self, part: TokenStates, activations: Float[Tensor, "token latent"]) -> None:
        """Count one batch of whole windows and keep what is stronger than before."""
        dense = activations.detach().float().cpu().numpy()
        window = part.window.cpu().numpy()
        token, latent = np.nonzero(dense)
        value = dense[token, latent]
        latents, bins = self.histogram.shape
        self.tokens += len(dense)
        self.fired += np.bincount(latent, minlength=latents)
        self.summed += np.bincount(latent, weights=value, minlength=latents)
        # The bin in closed form, and all latents in one count of latent * bins + bin.
        place = np.floor((np.log2(np.maximum(value, 1e-30)) - _LOWEST) * BINS_PER_OCTAVE)
        flat = latent * bins + np.clip(place, 0, bins - 1).astype(np.int64)
        self.histogram += np.bincount(flat, minlength=latents * bins).reshape(latents, bins)
        better = value > self._peak[latent, -1]
        token, latent = self._peaks(window, token[better], latent[better], value[better])
        value = dense[token, latent]
        new_ids, new_values = self._around(dense, part.ids.cpu().numpy(), window, token, latent)
        for one in np.unique(latent):
            chosen = slice(*np.searchsorted(latent, [one, one + 1]))
            peak = np.concatenate([self._peak[one], value[chosen]])
            # Stable: what came first in the text stays first among equals.
            best = np.argsort(-peak, kind="stable")[: self._keep]
            self._peak[one] = peak[best]
            self._ids[one] = np.concatenate([self._ids[one], new_ids[chosen]])[best]
            self._values[one] = np.concatenate([self._values[one], new_values[chosen]])[best]

    def _peaks(
        self, window: Indices, token: Indices, latent: Indices, value: NDArray[np.float32]
    ) -> tuple[Indices, Indices]:
        """Token and latent of the strongest windows' peaks, by latent and strongest first."""
        # Strongest first within each latent; of equal ones the first in the text.
        order = np.lexsort((token, -value, latent))
        token, latent = token[order], latent[order]
        # The first entry of each pair of latent and window is that window's peak.
        pair = latent * (int(window.max(initial=0)) + 1) + window[token]
        first = np.sort(np.unique(pair, return_index=True)[1])
        token, latent = token[first], latent[first]
        # Position within each latent's run, as searchsorted returns where the run begins.
        rank = np.arange(len(latent)) - np.searchsorted(latent, latent)
        return token[rank < self._keep], latent[rank < self._keep]

    def _around(
        self, dense: NDArray[np.float32], ids: Indices, window: Indices, token: Indices,
        latent: Indices,
    ) -> tuple[NDArray[np.int32], NDArray[np.float16]]:  # fmt: skip
        """Ids and activations of the tokens around each peak."""
        place = token[:, None] + np.arange(-BEFORE, AFTER + 1)
        inside = np.clip(place, 0, len(ids) - 1)
        # Neither beyond the ends of the batch nor in a neighbouring window.
        valid = (inside == place) & (window[inside] == window[token][:, None])
        around = np.where(valid, ids[inside], NO_TOKEN).astype(np.int32)
        values = np.where(valid, dense[inside, latent[:, None]], 0.0)
        return around, np.minimum(values, self._largest).astype(np.float16)

    def columns(self) -> Columns:
        """What was counted and kept so far."""
        return {
            "fired": self.fired,
            "mean": (self.summed / np.maximum(self.fired, 1)).astype(np.float32),
            "largest": self._peak[:, 0].copy(),
            "histogram": self.histogram.astype(np.int32),
            "context_ids": self._ids,
            "context_values": self._values,
            "context_peak": self._peak,
        }
