"""Residual-stream states at every token of windows of text, streamed.

:func:`stream_states` reads in order; :class:`Batches` is an endless shuffled stream for training.
Cost: one forward pass up to the site, without the head; windows of similar length are read
together, so that little is spent on padding. Memory: one buffer of states, 4 bytes per token and
channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.text import Ids, Windows
from ed_interp.streams.capture import check_finite

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
    hooked: HookedModel, site: Site, windows: Iterable[Ids], *, skip: int = 0
) -> Iterator[TokenStates]:
    """States of every token of ``windows`` after the first ``skip``, in order.

    Raises:
        CaptureError: the hook did not fire, or states that are not finite.
    """
    done = 0
    for group in _groups(windows):
        yield _read(hooked, site, group, skip=skip, first=done)
        done += len(group)


def read_states(
    hooked: HookedModel, site: Site, windows: Iterable[Ids], *, skip: int = 0
) -> Float[Tensor, "token d_model"]:
    """The states of :func:`stream_states`, in one tensor."""
    return torch.cat([part.states for part in stream_states(hooked, site, windows, skip=skip)])


def _groups(windows: Iterable[Ids]) -> Iterator[list[Ids]]:
    group: list[Ids] = []
    tokens = 0
    for ids in windows:
        group.append(ids)
        tokens += len(ids)
        if tokens >= _BATCH_TOKENS:
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
