"""What a latent does to the next token: through the unembedding, and when it is clamped.

Directly, its decoder row through the unembedding:

    effect[latent, token] = (centred row * scale of the final norm) . unembedding[token]

less its mean over the vocabulary, which no softmax sees. The row is centred if the final norm
centres. The norm's division by the size of the state is left out, so effects compare tokens and
latents, but are not logits; later blocks are left out too, so it is most exact near the last block.
Cost: one product of ``latent x d_model`` by ``d_model x vocabulary``, in pieces.

By injection: at the last token of a few held-out contexts, the decoder row is added, times the
difference between the latent's largest activation in the text and its activation at that token. The
effect is the divergence between the next-token distributions after and before, in nats, averaged
over the contexts, with the tokens that gain most probability. Cost: one pass over the contexts,
which are kept in a cache; then one token per context and latent.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.probes.dictionaries.description.contexts import Columns
from ed_interp.probes.dictionaries.reader import CELLS, Reader
from ed_interp.probes.dictionaries.text import Ids
from ed_interp.progress import Progress, track
from ed_interp.streams.injection import Add, Where, inject

_ROWS = 256


@torch.no_grad()
def direct_effects(
    hooked: HookedModel, decoder: Float[Tensor, "latent d_model"], *, top: int
) -> Columns:
    """Top tokens of each row of ``decoder``; nothing if the unembedding cannot be read."""
    unembedding = _unembedding(hooked)
    if unembedding is None:
        return {}
    scale, centres = _final_norm(hooked)
    rows = decoder.to(unembedding.device, torch.float32)
    if centres:
        rows = rows - rows.mean(-1, keepdim=True)
    if scale is not None:
        rows = rows * scale.to(rows.device)
    top = min(top, unembedding.shape[0])
    columns: dict[str, list[NDArray[Any]]] = defaultdict(list)
    for part in torch.split(rows, max(1, CELLS // unembedding.shape[0])):
        effect = part @ unembedding.T
        effect -= effect.mean(-1, keepdim=True)
        for name, sign in (("promoted", 1), ("suppressed", -1)):
            values, ids = (sign * effect).topk(top, dim=-1)
            columns[name].append(ids.to(torch.int32).cpu().numpy())
            columns[f"{name}_by"].append((sign * values).cpu().numpy())
    return {name: np.concatenate(pieces) for name, pieces in columns.items()}


def _unembedding(hooked: HookedModel) -> Float[Tensor, "token d_model"] | None:
    if isinstance(hooked.runner, TransformersRunner):
        head = hooked.runner.base.get_output_embeddings()
        weight = getattr(head, "weight", None)
        return None if weight is None else weight.detach().float()
    weight = getattr(hooked.model, "W_U", None)
    return weight.detach().float().T if isinstance(weight, Tensor) else None


def _final_norm(hooked: HookedModel) -> tuple[Tensor | None, bool]:
    """Its scale per channel, and whether it centres."""
    if not isinstance(hooked.runner, TransformersRunner):
        # TransformerLens keeps the scale in the unembedding, or it is processed away.
        return None, hooked.norm == "layernorm"
    # Families name it differently: it is the first norm after the list of blocks.
    blocks = hooked.runner.blocks
    for parent in hooked.runner.base.modules():
        seen = False
        for child in parent.children():
            seen = seen or child is blocks
            if seen and "norm" in type(child).__name__.lower():
                return _scale_of(child, hooked.d_model), hooked.norm == "layernorm"
    return None, False


def _scale_of(norm: nn.Module, width: int) -> Tensor | None:
    """The scale of a norm, read off its output, as families store it differently (w or 1 + w)."""
    parameter = next(iter(norm.parameters()), None)
    if parameter is None or width % 2:
        return None
    # An input of alternating signs has mean 0 and size 1, so its output is scale times sign, plus
    # the bias, which is the output for zeros.
    signs = torch.ones(width, device=parameter.device, dtype=parameter.dtype)
    signs[1::2] = -1
    flat: Tensor = norm(signs) - norm(torch.zeros_like(signs))
    return (flat * signs).float()


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
            plain, states = runs.run(1)
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

    def changed(self, change: Tensor) -> Tensor:
        """Log-probabilities ``row token`` with each row of ``change`` added at the site."""
        # With a cache only the last token is run, so it is all that there is to select.
        last = Where() if self._cache is not None else Where(positions=self._ids.shape[1] - 1)
        with inject(self._hooked, Add(change, self._site, where=last)):
            return self.run(len(change))[0]

    def run(self, rows: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``row token`` and states ``row d_model`` at the last token."""
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
