"""What a dictionary does on text: its activations at every token, kept sparse.

One pass over the text serves every measurement that needs activations and tokens. Cost: one
forward pass up to the site and one encoding; memory 12 bytes per activation that is not zero (so
about 200 bytes a token at an L0 of 16), never ``token x latent``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.states import stream_states
from ed_interp.probes.dictionaries.text import Ids
from ed_interp.progress import Progress, track
from ed_interp.models.sites import Site

_CELLS = 2**24
"""Of dense activations at a time (64 MB)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """A dictionary's activations on windows of text, and how well it reconstructs there."""

    activations: Any
    """``token x latent``, a SciPy CSR array of float32."""
    ids: NDArray[np.int64]
    """Token ids, in the order of the text; special tokens in front are left out."""
    window: NDArray[np.int64]
    """Number of the window that each token stands in."""
    position: NDArray[np.int64]
    """Place of each token in its window."""
    squared_error: float
    """Summed over tokens and channels."""
    squared_spread: float
    """Squared distance of the states from their mean, summed likewise."""
    mean: NDArray[np.float32]
    """Mean state."""

    @property
    def tokens(self) -> int:
        """Tokens read."""
        return int(self.activations.shape[0])

    @property
    def l0(self) -> float:
        """Latents active per token, on average."""
        return float(self.activations.nnz / self.tokens)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: squared error over squared distance from the mean."""
        return self.squared_error / self.squared_spread if self.squared_spread > 0 else 0.0

    @property
    def fired(self) -> NDArray[np.int64]:
        """How many tokens each latent is active at."""
        return np.bincount(self.activations.indices, minlength=self.activations.shape[1])


@torch.no_grad()
def observe(
    dictionary: Dictionary,
    hooked: HookedModel,
    windows: Sequence[Ids],
    *,
    site: Site | None = None,
    skip: int = 0,
    progress: Progress = None,
) -> Observation:
    """Run ``windows`` through the model and the dictionary.

    Args:
        dictionary: Whose width and site are checked.
        hooked: Read at the site.
        windows: From :class:`~ed_interp.probes.dictionaries.text.Windows`.
        site: If not the dictionary's own.
        skip: Tokens to leave out at the beginning of every window (special ones).
        progress: True for a bar on stderr, or a callable.

    Raises:
        InvalidInputError: no token to read, or a dictionary that does not fit.
    """
    place = dictionary.check(hooked, at=site)
    total = sum(max(0, len(ids) - skip) for ids in windows)
    if not total:
        raise InvalidInputError("no tokens to measure on; give more text")
    rows: list[Any] = []
    kept: list[list[NDArray[np.int64]]] = [[], [], []]
    error = 0.0
    summed = np.zeros(dictionary.width)
    squares = 0.0
    with track(progress, "reading features", total) as advance:
        for part in stream_states(hooked, place, windows, skip=skip):
            for column, values in zip(kept, (part.ids, part.window, part.position), strict=True):
                column.append(values.numpy())
            for states in torch.split(part.states, max(1, _CELLS // dictionary.latents)):
                found = dictionary.encode(states)
                made = dictionary.decode(found).to(states.device).float()
                rows.append(sparse.csr_array(found.float().cpu().numpy()))
                error += float((states - made).square().sum(dtype=torch.float64))
                squares += float(states.square().sum(dtype=torch.float64))
                summed += states.sum(0, dtype=torch.float64).cpu().numpy()
            advance(len(part.ids))
    mean = summed / total
    ids, window, position = (np.concatenate(column) for column in kept)
    return Observation(
        sparse.vstack(rows, format="csr"),
        ids,
        window,
        position,
        error,
        max(0.0, squares - total * float(mean @ mean)),
        mean.astype(np.float32),
    )
