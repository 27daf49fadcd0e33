"""What clamping a latent to its largest activation does to the next token, by injection.

At the last token of a few held-out contexts, the latent's decoder row is added, times the
difference between its largest activation in the text and its activation at that token. The effect
is the divergence between the next-token distributions after and before, in nats, averaged over the
contexts, with the tokens that gain most probability. Cost: one pass over the contexts, which are
kept in a cache; then one token per context and latent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.probes.dictionaries.description.contexts import Columns
from ed_interp.probes.dictionaries.reader import Reader
from ed_interp.probes.dictionaries.text import Ids
from ed_interp.progress import Progress, track
from ed_interp.streams.injection import Add, Where, inject

_ROWS = 256


@torch.no_grad()
def clamp_effects(
    reader: Reader,
    largest: NDArray[np.float32],
    contexts: Sequence[Ids],
    *,
    top: int,
    progress: Progress = None,
) -> Columns:
    """Clamp every latent to its ``largest`` activation, at the last token of each context.

    Latents of 0 are left out; contexts have 2 tokens or more; ``top`` tokens are listed.
    """
    if not contexts:
        raise InvalidInputError("clamping needs a context of 2 tokens or more; pass more text")
    alive = torch.from_numpy(np.flatnonzero(largest > 0))
    decoder = reader.dictionary.decoder
    to = torch.from_numpy(largest).to(decoder.device)
    divergence = torch.zeros(len(alive), dtype=torch.float64)
    gain: Tensor | None = None
    total = len(alive) * len(contexts)
    with track(progress, "clamping features", total) as advance:
        for ids in contexts:
            runs = _Runs(reader, ids)
            plain, states = runs.plain()
            before = reader.dictionary.encode(states)[0].to(decoder.device)
            if gain is None:
                gain = torch.zeros(len(alive), plain.shape[-1])
            for start in range(0, len(alive), _ROWS):
                rows = alive[start : start + _ROWS].to(decoder.device)
                change = decoder[rows] * (to[rows] - before[rows])[:, None]
                after = runs.changed(change.float())
                # KL(after || plain) = sum of p_after (log p_after - log p_plain).
                moved = after.exp() * (after - plain)
                divergence[start : start + len(rows)] += moved.sum(-1).double().cpu()
                gain[start : start + len(rows)] += (after.exp() - plain.exp()).cpu()
                advance(len(rows))
    assert gain is not None
    by, tokens = (gain / len(contexts)).topk(min(top, gain.shape[1]), dim=-1)
    nats = np.full(len(largest), np.nan, dtype=np.float32)
    # Rounding can take a divergence of 0 below it.
    nats[alive.numpy()] = (divergence / len(contexts)).clamp(min=0).numpy()
    raised = np.zeros((len(largest), by.shape[1]), dtype=np.int32)
    raised_by = np.zeros((len(largest), by.shape[1]), dtype=np.float32)
    raised[alive.numpy()], raised_by[alive.numpy()] = tokens.numpy(), by.numpy()
    return {"clamp_nats": nats, "clamp_tokens": raised, "clamp_by": raised_by}


class _Runs:
    """One context, run with changes to its last token; the tokens before it are read once."""

    def __init__(self, reader: Reader, ids: Ids) -> None:
        self._hooked, self._site = reader.hooked, reader.site
        self._ids = torch.tensor([ids])
        self._cache, hooked = None, reader.hooked
        if isinstance(hooked.runner, TransformersRunner) and hooked.runner.takes_masks:
            before = self._ids[:, :-1]
            self._cache = hooked.runner.prefix_cache(before, torch.ones_like(before).bool())

    def plain(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``1 token`` and the state ``1 d_model`` at the last token."""
        return self._run(1)

    def changed(self, change: Tensor) -> Tensor:
        """Log-probabilities ``row token`` with each row of ``change`` added at the site."""
        # With a cache only the last token is run, so it is all that there is to select.
        last = Where() if self._cache is not None else Where(positions=self._ids.shape[1] - 1)
        with inject(self._hooked, Add(change, self._site, where=last)):
            return self._run(len(change))[0]

    def _run(self, rows: int) -> tuple[Tensor, Tensor]:
        ids = self._ids[:, -1:] if self._cache is not None else self._ids
        read = torch.full((rows, 1), ids.shape[1] - 1)
        inputs = Inputs(ids.expand(rows, -1))
        if self._cache is not None:
            # A pass writes into its cache, so each gets one of its own.
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(rows)
            inputs = Inputs(
                ids.expand(rows, -1),
                position_ids=torch.full((rows, 1), self._ids.shape[1] - 1),
                valid=torch.ones(rows, self._ids.shape[1], dtype=torch.bool),
                cache=cache,
            )
        out = self._hooked.runner.run(inputs, sites=[self._site], reads=read, logit_reads=read)
        assert out.logits is not None
        return out.logits[:, 0].float().log_softmax(-1), out.states[:, 0, 0]
