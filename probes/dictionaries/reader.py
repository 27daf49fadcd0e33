"""Reading text with a model and a dictionary: states, activations, and training batches.

:func:`stream_states` reads the residual stream at every token in order, :class:`Batches` as an
endless shuffled stream for training. A :class:`Reader` is a dictionary at one site of one model; an
:class:`Observation` is what it does on text, kept sparse, and serves every measurement that needs
activations and tokens. Cost: one forward pass up to the site, without the head, and one encoding;
windows of similar length are read together, so that little is spent on padding. Memory: one buffer
of states, 4 bytes per token and channel; 12 bytes per activation that is not zero (so about 200
bytes per token at an L0 of 16), never ``token x latent``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.loading import load, site_of
from ed_interp.probes.dictionaries.options import DictionaryOptions
from ed_interp.probes.dictionaries.text import Ids, Windows
from ed_interp.progress import Progress, track
from ed_interp.streams.capture import check_finite

CELLS = 2**24
"""Dense cells to compute at a time (64 MB)."""
_BATCH_TOKENS = 8192


@dataclasses.dataclass(frozen=True)
class TokenStates:
    """States of a run of tokens, in the order of the text."""

    states: Float[Tensor, "token d_model"]
    """Float32, on the model's device."""
    ids: Int[Tensor, "token"]
    window: Int[Tensor, "token"]
    """Number of each token's window, from 0."""


def stream_states(
    hooked: HookedModel, site: Site, windows: Iterable[Ids], skip: int = 0, size: int | None = None
) -> Iterator[TokenStates]:
    """States of every token of ``windows`` after the first ``skip``, in order; ``size`` at a time.

    Raises:
        CaptureError: the hook did not fire, or states that are not finite.
    """
    done = 0
    for group in _groups(windows, size):
        yield _read(hooked, site, group, skip=skip, first=done)
        done += len(group)


def read_states(
    hooked: HookedModel, site: Site, windows: Iterable[Ids], *, skip: int = 0
) -> Float[Tensor, "token d_model"]:
    """The states of :func:`stream_states`, in one tensor."""
    return torch.cat([part.states for part in stream_states(hooked, site, windows, skip=skip)])


def _groups(windows: Iterable[Ids], size: int | None) -> Iterator[list[Ids]]:
    group: list[Ids] = []
    tokens = 0
    for ids in windows:
        group.append(ids)
        tokens += len(ids)
        if len(group) == size or (size is None and tokens >= _BATCH_TOKENS):
            yield group
            group, tokens = [], 0
    if group:
        yield group


def padded(windows: Sequence[Ids]) -> tuple[Int[Tensor, "window pos"], Int[Tensor, "window"]]:
    """Windows as one tensor, and their lengths."""
    lengths = torch.tensor([len(ids) for ids in windows])
    width = int(lengths.max())
    # On the right, where no token of the text attends to it. The last token is repeated because
    # transformers asks for a mask when it sees a padding token.
    rows = [[*ids, *[ids[-1]] * (width - len(ids))] for ids in windows]
    return torch.tensor(rows), lengths


def _read(
    hooked: HookedModel, site: Site, windows: Sequence[Ids], *, skip: int, first: int
) -> TokenStates:
    order = sorted(range(len(windows)), key=lambda row: len(windows[row]))
    parts: list[list[int]] = [[]]
    for row in order:
        # In order of length, so a part's first window is its shortest and this one the longest of
        # all so far. A quarter of padding costs less than another pass.
        shortest = len(windows[parts[-1][0]]) if parts[-1] else len(windows[row])
        if parts[-1] and len(windows[row]) > max(shortest * 4 / 3, shortest + 4):
            parts.append([])
        parts[-1].append(row)
    states: dict[int, Tensor] = {}
    for part in parts:
        ids, lengths = padded([windows[row] for row in part])
        every = torch.arange(ids.shape[1]).expand(ids.shape)
        read = hooked.runner.run(Inputs(ids), sites=[site], reads=every).states
        check_finite(hooked, read, [site])
        for place, row in enumerate(part):
            states[row] = read[place, skip : int(lengths[place]), 0]
    tokens = [ids[skip:] for ids in windows]
    return TokenStates(
        torch.cat([states[row] for row in range(len(windows))]),
        torch.tensor([token for ids in tokens for token in ids], dtype=torch.long),
        torch.tensor([first + row for row, ids in enumerate(tokens) for _ in ids]),
    )


@dataclasses.dataclass
class Batches:
    """Endless shuffled batches of states, the same ones for the same seed.

    States are read block by block, each block shuffled as a whole and served before the next one
    is read. Two numbers (:attr:`block`, :attr:`served`) therefore say how far training is, and a
    resumed run reads only the block it stopped in. The last window of a block is cut where the
    block is full.
    """

    hooked: HookedModel
    site: Site
    windows: Windows
    batch_size: int
    blocks_of: int
    """Batches in a block."""
    seed: int
    block: int = 0
    """Number of the block that is being served."""
    served: int = 0
    """How many of its batches were served."""

    def __post_init__(self) -> None:
        self._stream = self.windows.endless("train", seed=self.seed)
        self._states: Tensor | None = None

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Float[Tensor, "batch d_model"]:
        if self.served == self.blocks_of:
            self._states = None
            self.block += 1
            self.served = 0
        if self._states is None:
            self._states = self._shuffled(self._next_block())
        start = self.served * self.batch_size
        self.served += 1
        return self._states[start : start + self.batch_size]

    def skip_to(self, block: int, served: int) -> None:
        """Go to where a run stopped: whole blocks are skipped without reading their states."""
        if served == self.blocks_of:  # stopped between two blocks
            block, served = block + 1, 0
        for _ in range(block):
            self._next_block()
        self.block, self.served = block, served

    def _next_block(self) -> list[Ids]:
        taken: list[Ids] = []
        skip, left = len(self.windows.prefix), self.batch_size * self.blocks_of
        while left > 0:
            ids = next(self._stream)[: skip + left]
            if len(ids) > skip:
                taken.append(ids)
                left -= len(ids) - skip
        return taken

    def _shuffled(self, windows: list[Ids]) -> Tensor:
        skip = len(self.windows.prefix)
        states = read_states(self.hooked, self.site, windows, skip=skip)
        # A seed of its own per block, so that a resumed run shuffles it alike. The factor keeps
        # block 1 of seed 0 from being block 0 of seed 1.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.block)
        order = torch.randperm(len(states), generator=generator)
        return states[order.to(states.device)]


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
    batch_size: int | None = None
    """Most windows per forward pass; None is as many as their length allows."""

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
        return dataclasses.replace(reader, batch_size=options.batch_size)

    def states(self, windows: Iterable[Ids]) -> Iterator[TokenStates]:
        """States at every token of ``windows`` that is not skipped, in order."""
        return stream_states(self.hooked, self.site, windows, self.skip, self.batch_size)

    def settings(self) -> dict[str, Any]:
        """What was read, for the settings of a result."""
        dictionary, cautions = self.dictionary, []
        if (reason := dictionary.fits(self.hooked)) is not None:
            cautions.append(f"The dictionary was not trained on this model: {reason}.")
        own = dictionary.sae.cfg.metadata.hook_name
        # By its configuration: the site of the dictionary itself is what --site says.
        if own is not None and own != self.site.name and site_of(own) != self.site:
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
