"""What a dictionary does on text: its activations at every token, kept sparse.

One pass over the text serves every measurement that needs activations and tokens. Cost: one
forward pass up to the site and one encoding; memory 12 bytes per activation that is not zero (so
about 200 bytes per token at an L0 of 16), never ``token x latent``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.dictionaries.reader import Reader
from ed_interp.probes.dictionaries.states import TokenStates
from ed_interp.probes.dictionaries.text import Ids
from ed_interp.progress import Progress, track

CELLS = 2**24
"""Dense cells to compute at a time (64 MB)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """A dictionary's activations on windows of text."""

    activations: Any
    """``token x latent``, a SciPy CSR array of float32."""
    ids: NDArray[np.int64]
    """Token ids, in the order of the text; special tokens in front are left out."""
    window: NDArray[np.int64]
    """Number of each token's window."""
    fvu: float = float("nan")
    """Fraction of variance unexplained: squared error over squared distance from the mean."""
    mean: NDArray[np.float32] = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    """Mean state."""

    @classmethod
    def of(cls, parts: Sequence[tuple[TokenStates, Any]]) -> Observation:
        """Parts of a text, each with its activations as a CSR array, joined."""
        return cls(
            sparse.vstack([activations for _, activations in parts], format="csr"),
            np.concatenate([part.ids.numpy() for part, _ in parts]),
            np.concatenate([part.window.numpy() for part, _ in parts]),
        )

    @property
    def tokens(self) -> int:
        """Number of tokens read."""
        return int(self.activations.shape[0])

    @property
    def l0(self) -> float:
        """Mean number of active latents per token."""
        return float(self.activations.nnz / self.tokens)


@torch.no_grad()
def observe(reader: Reader, windows: Sequence[Ids], *, progress: Progress = None) -> Observation:
    """Run ``windows`` through the model and the dictionary; refuses them without any token."""
    parts: list[tuple[TokenStates, Any]] = []
    error = squares = 0.0
    summed = np.zeros(reader.dictionary.width)
    for part, activations in read_features(reader, windows, progress=progress):
        states = part.states
        made = reader.dictionary.decode(activations).to(states.device).float()
        # Dense activations of a whole text would not fit into memory; a few per token are not 0.
        parts.append((part, sparse.csr_array(activations.float().cpu().numpy())))
        error += float((states - made).square().sum(dtype=torch.float64))
        squares += float(states.square().sum(dtype=torch.float64))
        summed += states.sum(0, dtype=torch.float64).cpu().numpy()
    observed = Observation.of(parts)
    mean = summed / observed.tokens
    # The spread in one pass: sum of squares less n times the squared mean, all in float64.
    spread = squares - observed.tokens * float(mean @ mean)
    fvu = error / spread if spread > 0 else 0.0
    return dataclasses.replace(observed, fvu=fvu, mean=mean.astype(np.float32))


@torch.no_grad()
def read_features(
    reader: Reader, windows: Sequence[Ids], *, progress: Progress = None
) -> Iterator[tuple[TokenStates, Float[Tensor, "token latent"]]]:
    """Runs of whole windows, each with its activations; a bounded number of them at a time."""
    total = sum(max(0, len(ids) - reader.skip) for ids in windows)
    if not total:
        raise InvalidInputError("the text holds no tokens to read features at; pass more text")
    with track(progress, "reading features", total) as advance:
        for part in reader.states(windows):
            for piece in _pieces(part, reader.dictionary.latents):
                yield piece, reader.dictionary.encode(piece.states)
            advance(len(part.ids))


def _pieces(part: TokenStates, latents: int) -> list[TokenStates]:
    """Runs of whole windows, each with a bounded number of dense activations."""
    ends = (torch.diff(part.window) != 0).nonzero().flatten() + 1
    room = max(1, CELLS // latents)
    cuts = [0]
    last = 0
    for end in [*ends.tolist(), len(part.ids)]:
        # `last` is where the window before ended: the cut comes there, unless that leaves nothing.
        if end - cuts[-1] > room and last > cuts[-1]:
            cuts.append(last)
        last = end
    cuts.append(len(part.ids))
    return [
        TokenStates(part.states[start:end], part.ids[start:end], part.window[start:end])
        for start, end in itertools.pairwise(cuts)
    ]
