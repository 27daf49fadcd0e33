"""`Reader`: a dictionary at one site of one model; `Observation`: what it does on text.

One pass over the text serves every measurement that needs activations and tokens. Cost: one
forward pass up to the site and one encoding; memory 12 bytes per activation that is not zero (so
about 200 bytes per token at an L0 of 16), never ``token x latent``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.loading import load
from ed_interp.probes.dictionaries.options import DictionaryOptions
from ed_interp.probes.dictionaries.states import TokenStates, stream_states
from ed_interp.probes.dictionaries.text import Ids, Windows
from ed_interp.progress import Progress, track

CELLS = 2**24
"""Dense cells to compute at a time (64 MB)."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Made by :meth:`of` and :meth:`open`, which check that the dictionary fits."""

    dictionary: Dictionary
    hooked: HookedModel
    site: Site
    skip: int = 0
    """Tokens to leave out at the beginning of every window (special ones)."""
    text: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The text that is read, for the settings of a result."""

    @classmethod
    def of(
        cls, dictionary: Dictionary, hooked: HookedModel, *, site: str | Site | None = None
    ) -> Reader:
        """A reader of ``hooked`` at ``site``, or at the dictionary's own."""
        return cls(dictionary, hooked, dictionary.check(hooked, at=site))

    def on(self, windows: Windows) -> Reader:
        """The same, for these windows of text."""
        return dataclasses.replace(self, skip=len(windows.prefix), text=windows.settings())

    @classmethod
    def open(cls, options: DictionaryOptions, dictionary: Any = None, model: Any = None) -> Reader:
        """What ``options`` name; dictionary and model are loaded unless they are live objects.

        Raises:
            ModelLoadError: the dictionary or the model cannot be loaded.
            InvalidInputError: the dictionary does not fit the model, or names none.
            UnknownNameError: no such site.
        """
        opened = load(dictionary or options.dictionary, options.sae_id, site=options.site)
        if not model:
            if opened.model_name is None:
                raise InvalidInputError(
                    f"{opened.source or 'this dictionary'} names no model; pass model (--model)"
                )
            # By way of the options, so that device, precision and the like hold for it too.
            options, model = dataclasses.replace(options, model=opened.model_name), None
        reader = cls.of(opened, options.load(model), site=options.site)
        if opened is not dictionary:  # a live object stays where it is
            opened.sae.to(reader.hooked.device)
        return reader

    def states(self, windows: Iterable[Ids]) -> Iterator[TokenStates]:
        """States at every token of ``windows`` that is not skipped, in order."""
        return stream_states(self.hooked, self.site, windows, skip=self.skip)

    def settings(self) -> dict[str, Any]:
        """What was read, for the settings of a result."""
        dictionary, cautions = self.dictionary, []
        if (reason := dictionary.fits(self.hooked)) is not None:
            cautions.append(f"The dictionary was not trained on this model: {reason}.")
        own = dictionary.sae.cfg.metadata.hook_name
        if own is not None and own != self.site.name and dictionary.site != self.site:
            cautions.append(f"The dictionary was trained at {own}, not at {self.site.name}.")
        return {
            "dictionary": {**dictionary.describe(), "source": dictionary.source},
            "model": self.hooked.describe(),
            "cautions": cautions,
            **self.text,
        }


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
