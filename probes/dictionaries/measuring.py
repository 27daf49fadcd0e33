"""`measure`: how good a dictionary is, on text that it was not trained on.

Cost on one CPU core for icl-gpt2 and 1,024 latents, with the default sizes: 20 seconds, of which
the four forward passes of cross-entropy recovered and the regressions take most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.models.load import load as load_model
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.absorption import ConceptRow, concepts
from ed_interp.probes.dictionaries.categories import token_categories, token_texts
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.loading import load
from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement, FeatureRow
from ed_interp.probes.dictionaries.monosemantic import Monosemanticity, monosemanticity
from ed_interp.probes.dictionaries.observation import Observation, observe
from ed_interp.probes.dictionaries.probing import TASKS, sparse_probing
from ed_interp.probes.dictionaries.recovered import cross_entropy_recovered
from ed_interp.probes.dictionaries.states import stream_states
from ed_interp.probes.dictionaries.text import (
    Ids,
    TextSource,
    Windows,
    default_window,
    text_source,
)
from ed_interp.progress import Progress
from ed_interp.prompts.tasks import LabelledTask, MixedTask

TOKENS = 100_000
CE_TOKENS = 20_000
_CONCEPT_TOKENS = 20_000
_CONCEPT_CELLS = 2**27


def measure(
    dictionary: Any,
    model: Any = None,
    *,
    text: str | Path | list[str] | TextSource | None = None,
    tokens: int = TOKENS,
    ce_tokens: int = CE_TOKENS,
    tasks: Sequence[str | LabelledTask | MixedTask] = TASKS,
    absorption: bool = True,
    window: int | None = None,
    site: str | Site | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> DictionaryMeasurement:
    """Measure a dictionary on held-out text.

    Args:
        dictionary: Anything :func:`~ed_interp.probes.dictionaries.loading.load` takes.
        model: Anything :func:`ed_interp.load` takes; default the one it was trained on, by name.
        text: As for training, whose held-out part is used; default the generated text.
        tokens: To read features at.
        ce_tokens: To predict, for cross-entropy recovered.
        tasks: For sparse probing; none leaves it out.
        absorption: Also look for splitting and absorption of categories.
        window: Longest window of text in tokens; default the one of training, or 128.
        site: If not the dictionary's own.
        seed: Of the text and of every control.
        progress: True for bars on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: a dictionary that does not fit the model, or too little text.
        UnknownNameError: no such site or task.
        ModelLoadError: the dictionary or the model cannot be loaded.
    """
    if tokens < 2 or ce_tokens < 2:
        raise InvalidInputError(f"tokens={tokens}, ce_tokens={ce_tokens}: at least 2 each")
    found: Dictionary = load(dictionary)
    if model is None and found.model_name is None:
        raise InvalidInputError("this dictionary names no model; pass measure(dictionary, model)")
    hooked = load_model(found.model_name if model is None else model)
    place = found.check(hooked, at=site)
    size = _window(found, window) or default_window(hooked)
    windows = Windows(text_source(text), hooked, window=min(size, hooked.context_window or size))
    skip = len(windows.prefix)
    held = windows.once("held-out", seed=seed, tokens=tokens)
    observed = observe(found, hooked, held, site=place, skip=skip, progress=progress)
    recovered = cross_entropy_recovered(
        found,
        hooked,
        _as_many(held, ce_tokens, skip),
        mean=torch.from_numpy(observed.mean),
        site=place,
        skip=skip,
        seed=seed,
        progress=progress,
    )
    texts = token_texts(hooked.tokenizer)
    categories = token_categories(texts)
    named = monosemanticity(observed, texts, categories, seed=seed)
    rows: tuple[ConceptRow, ...] = ()
    if absorption:
        most = min(_CONCEPT_TOKENS, max(2000, _CONCEPT_CELLS // found.latents))
        part = _as_many(held, most, skip)
        read = stream_states(hooked, place, part, skip=skip)
        states = torch.cat([piece.states for piece in read]).cpu().numpy()
        rows = concepts(
            states,
            observed.activations[: len(states)].toarray(),
            observed.ids[: len(states)],
            found.decoder.float().cpu().numpy(),
            categories,
            seed=seed,
        )
    return DictionaryMeasurement(
        model=hooked.name,
        site=place.name,
        dictionary={**found.describe(), "source": found.source},
        tokens=observed.tokens,
        l0=observed.l0,
        fvu=observed.fvu,
        recovered=recovered,
        features=_features(found, observed, named),
        probing=sparse_probing(found, hooked, tasks, site=place, seed=seed),
        concepts=rows,
        settings={
            "model": hooked.describe(),
            "trained_elsewhere": found.fits(hooked),
            "text": windows.source.describe(),
            "window": windows.window,
            "tokens": tokens,
            "ce_tokens": ce_tokens,
            "tasks": [task if isinstance(task, str) else task.name for task in tasks],
            "seed": seed,
        },
    )


def _window(dictionary: Dictionary, asked: int | None) -> int | None:
    if asked is not None:
        return asked
    trained = dictionary.sae.cfg.metadata.context_size
    return trained if isinstance(trained, int) and trained > 1 else None


def _as_many(windows: list[Ids], tokens: int, skip: int) -> list[Ids]:
    """The first windows, of at least ``tokens`` tokens in all where there are so many."""
    taken: list[Ids] = []
    left = tokens
    for ids in windows:
        if left <= 0:
            break
        taken.append(ids)
        left -= len(ids) - skip
    return taken


def _features(
    dictionary: Dictionary, observed: Observation, named: Monosemanticity
) -> tuple[FeatureRow, ...]:
    activations = observed.activations.tocsc()
    fired = np.diff(activations.indptr)
    summed = np.asarray(activations.sum(0)).ravel()
    largest = activations.max(0).toarray().ravel()
    norms = dictionary.decoder.float().norm(dim=-1).cpu().numpy()

    def or_none(value: float) -> float | None:
        return None if math.isnan(value) else float(value)

    return tuple(
        FeatureRow(
            feature=feature,
            density=float(fired[feature] / observed.tokens),
            mean_active=float(summed[feature] / max(1, fired[feature])),
            largest=float(largest[feature]),
            decoder_norm=float(norms[feature]),
            monosemanticity=or_none(named.score[feature]),
            control=or_none(named.control[feature]),
            predictor=named.predictor[feature],
        )
        for feature in range(dictionary.latents)
    )
