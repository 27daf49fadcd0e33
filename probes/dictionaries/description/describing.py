"""`describe`: what every feature of a dictionary looks like on text.

One pass over the text, batch by batch: nothing of it is kept but the strongest contexts, counts,
and the activations of the first 50,000 tokens for the scores. Cost on two CPU cores for icl-gpt2,
1,024 latents and 200,000 tokens: see ``tests/benchmarks/bench_features.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load as load_model
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.categories import token_categories, token_texts
from ed_interp.probes.dictionaries.description.clamping import clamp_effects
from ed_interp.probes.dictionaries.description.contexts import TopContexts
from ed_interp.probes.dictionaries.description.descriptions import Columns, FeatureDescriptions
from ed_interp.probes.dictionaries.description.unembedding import direct_effects
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.loading import load
from ed_interp.probes.dictionaries.monosemantic import Monosemanticity, monosemanticity
from ed_interp.probes.dictionaries.observation import Observation
from ed_interp.probes.dictionaries.states import TokenStates, stream_states
from ed_interp.probes.dictionaries.text import (
    Ids,
    TextSource,
    Windows,
    default_window,
    text_source,
)
from ed_interp.progress import Progress, track

TOKENS = 200_000
SCORED_TOKENS = 50_000
CLAMP_CONTEXTS = 4
_CELLS = 2**24


def describe(
    dictionary: Any,
    model: Any = None,
    *,
    text: str | Path | Sequence[str] | TextSource | None = None,
    tokens: int = TOKENS,
    contexts: int = 8,
    top_tokens: int = 8,
    neighbours: int = 5,
    clamp_contexts: int = CLAMP_CONTEXTS,
    clamp_features: Sequence[int] | None = None,
    window: int | None = None,
    site: str | Site | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> FeatureDescriptions:
    """Describe every feature of a dictionary on held-out text.

    Args:
        dictionary: Anything :func:`~ed_interp.probes.dictionaries.loading.load` takes.
        model: Anything :func:`ed_interp.load` takes; default the one it was trained on, by name.
        text: As for training, whose held-out part is used; default the generated text.
        tokens: To read.
        contexts: Strongest contexts to keep per feature, from as many windows.
        top_tokens: To list as promoted, suppressed, and raised by clamping.
        neighbours: Features with similar decoder rows to list.
        clamp_contexts: Contexts in which each feature is clamped; 0 leaves it out.
        clamp_features: Clamp these features only; default all.
        window: Longest window of text in tokens; default 128, or the model's context.
        site: If not the dictionary's own.
        seed: Of the text and of the score's control.
        progress: True for bars on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: a dictionary that does not fit the model, no text, or a size below 1.
        UnknownNameError: no such site.
        ModelLoadError: the dictionary or the model cannot be loaded.
    """
    sizes = {"tokens": tokens, "contexts": contexts, "top_tokens": top_tokens}
    for name, value in {**sizes, "neighbours": neighbours}.items():
        if value < 1:
            raise InvalidInputError(f"{name}={value}: at least 1 is expected")
    if clamp_contexts < 0:
        raise InvalidInputError(f"clamp_contexts={clamp_contexts}: at least 0 is expected")
    found: Dictionary = load(dictionary)
    if model is None and found.model_name is None:
        raise InvalidInputError("this dictionary names no model; pass describe(dictionary, model)")
    hooked = load_model(found.model_name if model is None else model)
    place = found.check(hooked, at=site)
    source = text_source(text)
    size = default_window(hooked) if window is None else window
    windows = Windows(source, hooked, window=size)
    skip = len(windows.prefix)
    held = windows.once("held-out", seed=seed, tokens=tokens)
    strongest, observed = _read(found, hooked, place, held, skip, contexts, progress)
    texts = token_texts(hooked.tokenizer)
    scored = monosemanticity(observed, texts, token_categories(texts), seed=seed)
    columns = _columns(found, strongest, scored)
    columns |= _nearest(found.decoder.float(), neighbours)
    effects = direct_effects(hooked, found.decoder, top=top_tokens)
    if effects is not None:
        columns |= vars(effects)
    if clamp_contexts:
        clamped = clamp_effects(
            found,
            hooked,
            place,
            _only(columns["largest"], clamp_features),
            _clamp_windows(held, skip, clamp_contexts),
            top=top_tokens,
            progress=progress,
        )
        columns |= {
            "clamp_nats": clamped.divergence_nats,
            "clamp_tokens": clamped.raised,
            "clamp_by": clamped.raised_by,
        }
    return FeatureDescriptions(
        model=hooked.name,
        site=place.name,
        architecture=found.architecture,
        tokens=strongest.tokens,
        columns=columns,
        names=scored.predictor,
        token_texts=tuple(texts),
        settings={
            "dictionary": {**found.describe(), "source": found.source},
            "model": hooked.describe(),
            "site": place.name,
            "text": source.describe(),
            "tokens": tokens,
            "contexts": contexts,
            "top_tokens": top_tokens,
            "neighbours": neighbours,
            "clamp_contexts": clamp_contexts,
            "clamp_features": None if clamp_features is None else list(clamp_features),
            "window": size,
            "seed": seed,
            "scored_tokens": observed.tokens,
        },
    )


@torch.no_grad()
def _read(
    dictionary: Dictionary,
    hooked: HookedModel,
    site: Site,
    windows: Sequence[Ids],
    skip: int,
    keep: int,
    progress: Progress,
) -> tuple[TopContexts, Observation]:
    total = sum(max(0, len(ids) - skip) for ids in windows)
    if not total:
        raise InvalidInputError("no tokens to describe features on; give more text")
    strongest = TopContexts(dictionary.latents, keep=keep)
    kept: list[tuple[TokenStates, Any]] = []
    scored = 0
    with track(progress, "reading features", total) as advance:
        for part in stream_states(hooked, site, windows, skip=skip):
            for piece in _pieces(part, dictionary.latents):
                activations = dictionary.encode(piece.states).float().cpu()
                strongest.add(piece, activations)
                if scored < SCORED_TOKENS:
                    kept.append((piece, sparse.csr_array(activations.numpy())))
                    scored += len(piece.ids)
            advance(len(part.ids))
    return strongest, _observation(kept, dictionary.width)


def _pieces(part: TokenStates, latents: int) -> list[TokenStates]:
    """Runs of whole windows, each with a bounded number of dense activations."""
    ends = (torch.diff(part.window) != 0).nonzero().flatten() + 1
    room = max(1, _CELLS // latents)
    cuts = [0]
    last = 0
    for end in [*ends.tolist(), len(part.ids)]:
        if end - cuts[-1] > room and last > cuts[-1]:
            cuts.append(last)
        last = end
    cuts.append(len(part.ids))

    def cut(tensor: Tensor) -> list[Tensor]:
        return [tensor[a:b] for a, b in itertools.pairwise(cuts)]

    columns = (part.states, part.ids, part.window, part.position)
    return [TokenStates(*row) for row in zip(*map(cut, columns), strict=True)]


def _observation(kept: list[tuple[TokenStates, Any]], width: int) -> Observation:
    """Activations and tokens only: how well it reconstructs is measured elsewhere."""
    parts = [part for part, _ in kept]
    return Observation(
        sparse.vstack([activations for _, activations in kept], format="csr"),
        np.concatenate([part.ids.numpy() for part in parts]),
        np.concatenate([part.window.numpy() for part in parts]),
        np.concatenate([part.position.numpy() for part in parts]),
        float("nan"),
        float("nan"),
        np.full(width, np.nan, dtype=np.float32),
    )


def _columns(dictionary: Dictionary, strongest: TopContexts, scored: Monosemanticity) -> Columns:
    contexts = strongest.result()
    return {
        "fired": strongest.fired,
        "mean": (strongest.summed / np.maximum(strongest.fired, 1)).astype(np.float32),
        "largest": contexts.peak[:, 0].copy(),
        "norm": dictionary.decoder.float().norm(dim=-1).cpu().numpy(),
        "histogram": strongest.histogram.astype(np.int32),
        "context_ids": contexts.ids,
        "context_values": contexts.values,
        "context_peak": contexts.peak,
        "score": scored.score.astype(np.float32),
        "control": scored.control.astype(np.float32),
    }


def _nearest(decoder: Tensor, neighbours: int) -> Columns:
    """Latents by cosine of the decoder rows, in pieces of bounded size."""
    unit = torch.nn.functional.normalize(decoder, dim=-1)
    latents = len(unit)
    count = min(neighbours, latents - 1)
    ids: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    start = 0
    for rows in torch.split(unit, max(1, _CELLS // latents)):
        cosine = rows @ unit.T
        own = torch.arange(len(rows), device=rows.device)
        cosine[own, own + start] = -2.0
        found, which = cosine.topk(count, dim=-1)
        ids.append(which.to(torch.int32).cpu().numpy())
        values.append(found.cpu().numpy())
        start += len(rows)
    return {"nearest": np.concatenate(ids), "cosine": np.concatenate(values)}


def _only(largest: NDArray[np.float32], features: Sequence[int] | None) -> NDArray[np.float32]:
    """The largest activations of the features asked for, 0 for all others."""
    if features is None:
        return largest
    kept = np.zeros_like(largest)
    kept[list(features)] = largest[list(features)]
    return kept


def _clamp_windows(windows: Sequence[Ids], skip: int, count: int) -> list[Ids]:
    """The beginnings of evenly spaced windows, long enough to have a context."""
    least = skip + 2
    fit = [ids for ids in windows if len(ids) >= least]
    step = max(1, len(fit) // count)
    return [ids[: max(least, len(ids) // 2)] for ids in fit[::step][:count]]
