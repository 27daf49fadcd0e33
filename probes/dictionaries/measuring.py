"""`measure`: how good a dictionary is, on text that it was not trained on.

Cost on one CPU core for icl-gpt2 and 1,024 latents, with the default sizes: 20 seconds, most of
them for the four forward passes of cross-entropy recovered and the regressions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ed_interp.options import takes_options
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement
from ed_interp.probes.dictionaries.monosemantic import (
    Monosemanticity,
    monosemanticity,
    token_categories,
    token_texts,
)
from ed_interp.probes.dictionaries.options import PROBE_TASKS, WINDOW, MeasureOptions
from ed_interp.probes.dictionaries.probing import concepts, probe_task, sparse_probing
from ed_interp.probes.dictionaries.reader import Observation, Reader, observe
from ed_interp.probes.dictionaries.recovered import cross_entropy_recovered
from ed_interp.probes.dictionaries.rows import ConceptRow
from ed_interp.probes.dictionaries.states import read_states
from ed_interp.probes.dictionaries.text import windows_of
from ed_interp.progress import Progress
from ed_interp.prompts.tasks import LabelledTask, MixedTask
from ed_interp.results import keep

_CONCEPT_TOKENS = 20_000
_CONCEPT_CELLS = 2**27


@takes_options(MeasureOptions)
def measure(
    dictionary: Any,
    model: Any = None,
    *,
    text: Any = None,
    tasks: Sequence[str | LabelledTask | MixedTask] = PROBE_TASKS,
    options: MeasureOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> DictionaryMeasurement:
    """Measure a dictionary on held-out text.

    Args:
        dictionary: Anything :func:`~ed_interp.probes.dictionaries.loading.load` takes.
        model: Anything :func:`ed_interp.load` takes; default the one it was trained on, by name.
        text: As for training, whose held-out part is used; default the generated text.
        tasks: Tasks for sparse probing, by name or as objects; an empty list skips it.
        out, overwrite: Run folder to make, and whether to replace what it holds.
        progress: True for bars on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: a dictionary that does not fit the model, or too little text.
        UnknownNameError, ModelLoadError: something named does not exist, or cannot be loaded.
        RunFolderError: ``out`` exists or cannot be written.
    """
    opened = Reader.open(options, dictionary, model)
    # In windows as long as in training: positions beyond were never seen.
    trained = opened.dictionary.sae.cfg.metadata.context_size
    usual = trained if isinstance(trained, int) and trained > 1 else WINDOW
    windows = windows_of(options, opened.hooked, text, window=usual)
    reader = dataclasses.replace(opened, skip=len(windows.prefix))
    probes, seed = [probe_task(task) for task in tasks], options.seed

    def make(_: Path | None) -> DictionaryMeasurement:
        held = windows.once("held-out", seed=seed, tokens=options.tokens)
        observed = observe(reader, held, progress=progress)
        # The beginning of the same text, so that all numbers are of the same tokens.
        few, mean = windows.first(held, options.ce_tokens), torch.from_numpy(observed.mean)
        recovered = cross_entropy_recovered(reader, few, mean=mean, seed=seed, progress=progress)
        texts = token_texts(reader.hooked.tokenizer)
        categories = token_categories(texts)
        named = monosemanticity(observed, texts, categories, seed=seed)
        rows: tuple[ConceptRow, ...] = ()
        if options.absorption:
            # The concepts need dense states and activations, so only as many as fit into memory.
            most = min(_CONCEPT_TOKENS, max(2000, _CONCEPT_CELLS // reader.dictionary.latents))
            few = windows.first(held, most)
            read = read_states(reader.hooked, reader.site, few, skip=reader.skip)
            states = read.cpu().numpy()
            rows = concepts(
                states,
                observed.activations[: len(states)].toarray(),
                observed.ids[: len(states)],
                reader.dictionary.decoder.float().cpu().numpy(),
                categories,
                seed=seed,
            )
        settings = reader.settings()
        return DictionaryMeasurement(
            model=reader.hooked.name,
            site=reader.site.name,
            dictionary=settings["dictionary"],
            tokens=observed.tokens,
            l0=observed.l0,
            fvu=observed.fvu,
            recovered=recovered,
            features=_features(reader.dictionary, observed, named),
            probing=sparse_probing(reader, probes, seed=seed),
            concepts=rows,
            settings={**settings, **windows.settings()},
        )

    return keep(make, options=options, out=out, overwrite=overwrite, progress=progress)


def _features(
    dictionary: Dictionary, observed: Observation, named: Monosemanticity
) -> pd.DataFrame:
    activations = observed.activations.tocsc()
    # A column of the sparse table has as many entries as its latent has active tokens.
    fired = np.diff(activations.indptr)
    summed = np.asarray(activations.sum(0)).ravel()
    return pd.DataFrame(
        {
            "feature": np.arange(dictionary.latents),
            "density": fired / observed.tokens,
            "mean_active": summed / np.maximum(1, fired),
            "largest": activations.max(0).toarray().ravel(),
            "decoder_norm": dictionary.decoder.float().norm(dim=-1).cpu().numpy(),
            "monosemanticity": named.score,
            "control": named.control,
            "predictor": list(named.predictor),
        }
    ).astype(dict.fromkeys(("mean_active", "largest", "decoder_norm"), "float64"))
