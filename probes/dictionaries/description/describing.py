"""`describe`: what every feature of a dictionary looks like on text.

One pass over the text, batch by batch: it keeps only the strongest contexts, counts, and the
activations at the first 50,000 tokens for the scores. Cost on two CPU cores for icl-gpt2, 1,024
latents and 200,000 tokens: see ``tests/benchmarks/bench_features.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ed_interp.options import takes_options
from ed_interp.probes.dictionaries.description.contexts import Columns, TopContexts
from ed_interp.probes.dictionaries.description.descriptions import FeatureDescriptions
from ed_interp.probes.dictionaries.description.effects import clamp_effects, direct_effects
from ed_interp.probes.dictionaries.monosemantic import monosemanticity, vocabulary
from ed_interp.probes.dictionaries.options import DescribeOptions
from ed_interp.probes.dictionaries.reader import (
    CELLS,
    Observation,
    Reader,
    TokenStates,
    read_features,
)
from ed_interp.probes.dictionaries.text import windows_of
from ed_interp.progress import Progress
from ed_interp.results import keep

SCORED_TOKENS = 50_000


@takes_options(DescribeOptions)
def describe(
    dictionary: Any,
    model: Any = None,
    *,
    text: Any = None,
    options: DescribeOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> FeatureDescriptions:
    """Describe every feature of a dictionary on held-out text.

    Args:
        dictionary, model, text: As for :func:`~ed_interp.probes.dictionaries.measuring.measure`,
            like ``out``, ``overwrite``, ``progress`` and what it raises.
    """
    opened = Reader.open(options, dictionary, model)
    opened.dictionary.check_features(options.clamp_features or ())
    windows = windows_of(options, opened.hooked, text)
    reader = opened.on(windows)
    latents, decoder = reader.dictionary.latents, reader.dictionary.decoder

    def make(_: Path | None) -> FeatureDescriptions:
        held = windows.once("held-out", seed=options.seed, tokens=options.tokens)
        strongest = TopContexts(latents, keep=options.contexts)
        kept: list[tuple[TokenStates, Any]] = []
        scored = 0
        for part, encoded in read_features(reader, held, progress=progress):
            activations = encoded.float().cpu()
            strongest.add(part, activations)
            # The scores need them in memory, so only those of the first tokens are kept.
            if scored < SCORED_TOKENS:
                kept.append((part, sparse.csr_array(activations.numpy())))
                scored += len(part.ids)
        texts, categories = vocabulary(reader.hooked.tokenizer)
        observed = Observation.of(kept)
        scores = monosemanticity(observed, texts, categories, seed=options.seed)
        columns: Columns = {
            **strongest.columns(),
            "norm": decoder.float().norm(dim=-1).cpu().numpy(),
            "score": scores.score.astype(np.float32),
            "control": scores.control.astype(np.float32),
            **_nearest(decoder.float(), options.neighbours),
            **direct_effects(reader.hooked, decoder, top=options.top_tokens),
        }
        if options.clamp_contexts:
            # A copy: 0 leaves a latent out of clamping, and its largest activation is still shown.
            largest = columns["largest"].copy()
            if options.clamp_features is not None:
                largest[np.setdiff1d(np.arange(latents), options.clamp_features)] = 0
            least = reader.skip + 2  # one token to clamp, and one before it
            fit = [ids for ids in held if len(ids) >= least]
            # The first halves of evenly spaced windows.
            spaced = fit[:: max(1, len(fit) // options.clamp_contexts)][: options.clamp_contexts]
            contexts = [ids[: max(least, len(ids) // 2)] for ids in spaced]
            top = options.top_tokens
            columns |= clamp_effects(reader, largest, contexts, top=top, progress=progress)
        return FeatureDescriptions(
            model=reader.hooked.name,
            site=reader.site.name,
            architecture=reader.dictionary.architecture,
            tokens=strongest.tokens,
            columns=columns,
            names=scores.predictor,
            token_texts=tuple(texts),
            settings={**reader.settings(), "scored_tokens": scored},
        )

    return keep(make, options=options, out=out, overwrite=overwrite, progress=progress)


def _nearest(decoder: Tensor, neighbours: int) -> Columns:
    """The latents with the most similar decoder rows, by cosine."""
    unit = torch.nn.functional.normalize(decoder, dim=-1)
    latents = len(unit)
    count = min(neighbours, latents - 1)
    ids: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    start = 0
    # In pieces: all cosines at once would be a gigabyte at 16,384 latents.
    for rows in torch.split(unit, max(1, CELLS // latents)):
        cosine = rows @ unit.T
        own = torch.arange(len(rows), device=rows.device)
        cosine[own, own + start] = -2.0  # below any cosine: none is its own neighbour
        largest, which = cosine.topk(count, dim=-1)
        ids.append(which.to(torch.int32).cpu().numpy())
        values.append(largest.cpu().numpy())
        start += len(rows)
    return {"nearest": np.concatenate(ids), "cosine": np.concatenate(values)}
