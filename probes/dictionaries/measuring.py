"""`measure`: how good a dictionary is, on text that it was not trained on.

How much of the model's prediction survives it, the cross-entropy recovered, is ``(L_ablated -
L_spliced) / (L_ablated - L_clean)``: 1 if replacing the stream by the reconstruction costs nothing,
0 if it is as bad as replacing it by a constant. Both numbers are reported: for zero (the usual
constant, and the easier one, since zero is far from any state) and for the mean state.

Cost on one CPU core for icl-gpt2 and 1,024 latents, with the default sizes: 20 seconds, most of
them for its four forward passes with all logits over the windows, and the regressions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.models.runners import Inputs
from ed_interp.options import takes_options
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement
from ed_interp.probes.dictionaries.monosemantic import Monosemanticity, monosemanticity, vocabulary
from ed_interp.probes.dictionaries.options import PROBE_TASKS, WINDOW, MeasureOptions
from ed_interp.probes.dictionaries.probing import concepts, probe_task, sparse_probing
from ed_interp.probes.dictionaries.reader import Observation, Reader, observe, padded
from ed_interp.probes.dictionaries.rows import ConceptRow, Recovered
from ed_interp.probes.dictionaries.text import Ids, windows_of
from ed_interp.progress import Progress, track
from ed_interp.prompts.tasks import LabelledTask, MixedTask
from ed_interp.results import keep
from ed_interp.streams.injection import Replace, Selector, Where, inject

_BATCH_TOKENS = 4096
_RESAMPLES = 1000
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
    reader = opened.on(windows)
    probes, seed = [probe_task(task) for task in tasks], options.seed

    def make(_: Path | None) -> DictionaryMeasurement:
        held = windows.once("held-out", seed=seed, tokens=options.tokens)
        observed = observe(reader, held, progress=progress)
        # The beginning of the same text, so that all numbers are of the same tokens.
        few, mean = windows.first(held, options.ce_tokens), torch.from_numpy(observed.mean)
        recovered = cross_entropy_recovered(reader, few, mean=mean, seed=seed, progress=progress)
        texts, categories = vocabulary(reader.hooked.tokenizer)
        named = monosemanticity(observed, texts, categories, seed=seed)
        rows: tuple[ConceptRow, ...] = ()
        if options.absorption:
            # The concepts need dense states and activations, so only as many as fit into memory.
            most = min(_CONCEPT_TOKENS, max(2000, _CONCEPT_CELLS // reader.dictionary.latents))
            few = windows.first(held, most)
            states = torch.cat([part.states for part in reader.states(few)]).cpu().numpy()
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
            settings=settings,
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


def cross_entropy_recovered(
    reader: Reader,
    windows: Sequence[Ids],
    *,
    mean: Float[Tensor, "d_model"],
    seed: int = 0,
    progress: Progress = None,
) -> Recovered:
    """Cross-entropy of the next token over ``windows``, clean, spliced and ablated.

    Tokens that the reader skips are left unchanged; ``mean`` is the state for mean ablation.
    """
    hooked, site, skip = reader.hooked, reader.site, reader.skip
    where: Selector = Where() if skip == 0 else ~Where(positions=list(range(skip)))

    def changed(arm: str) -> contextlib.AbstractContextManager[object]:
        if arm == "clean":
            return contextlib.nullcontext()
        if arm == "spliced":
            return reader.dictionary.splice(hooked, where=where, at=site)
        vector = torch.zeros_like(mean) if arm == "zero" else mean
        return inject(hooked, Replace(vector, site, where=where))

    # A window with one token to read predicts nothing.
    usable = [ids for ids in windows if len(ids) > skip + 1]
    names = ("clean", "spliced", "zero", "mean")
    arms: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    with track(progress, "predicting with the dictionary", len(usable)) as advance:
        for group in _groups(usable, reader.batch_size):
            for name, losses in arms.items():
                with changed(name):
                    losses.append(_losses(reader, group))
            advance(len(group))
    counts = np.array([len(ids) - skip - 1 for ids in usable], dtype=np.float64)
    sums = {name: np.concatenate(parts) for name, parts in arms.items()}
    # Tokens of one window depend on each other, so windows are drawn, the same ones for all arms.
    n = len(usable)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    once = np.ones((1, n))
    shares: dict[str, float] = {}
    for name in ("zero", "mean"):
        low, high = np.percentile(_share(drawn, sums, name), [2.5, 97.5])
        shares[f"against_{name}"] = float(_share(once, sums, name)[0])
        shares |= {f"against_{name}_low": float(low), f"against_{name}_high": float(high)}
    means = {name: float(values.sum() / counts.sum()) for name, values in sums.items()}
    return Recovered(**means, **shares, tokens=int(counts.sum()))


def _share(
    times: NDArray[Any], sums: dict[str, NDArray[np.float64]], ablated: str
) -> NDArray[np.float64]:
    """Share recovered for each row of counts of the windows; 0 if ablation costs nothing."""
    lost = times @ (sums[ablated] - sums["clean"])
    kept = times @ (sums[ablated] - sums["spliced"])
    return np.divide(kept, lost, out=np.zeros(len(times)), where=np.abs(lost) > 1e-12)


def _groups(windows: Sequence[Ids], size: int | None) -> Iterator[list[Ids]]:
    group: list[Ids] = []
    for ids in windows:
        # What a group costs is its padded size.
        tokens = (len(group) + 1) * max(len(ids), *map(len, group), 0)
        if group and (tokens > _BATCH_TOKENS if size is None else len(group) == size):
            yield group
            group = []
        group.append(ids)
    if group:
        yield group


@torch.no_grad()
def _losses(reader: Reader, windows: Sequence[Ids]) -> NDArray[np.float64]:
    """Summed cross-entropy of each window's tokens after the first ``skip + 1``, in nats."""
    ids, lengths = padded(windows)
    every = torch.arange(ids.shape[1]).expand(ids.shape)
    last = torch.zeros(len(windows), 1, dtype=torch.long)
    run = reader.hooked.runner.run
    logits = run(Inputs(ids), sites=[reader.site], reads=last, logit_reads=every).logits
    assert logits is not None
    targets = ids.to(logits.device)[:, 1:]
    predicted = logits[:, :-1].float().flatten(0, 1)
    cross_entropy = torch.nn.functional.cross_entropy
    losses = cross_entropy(predicted, targets.flatten(), reduction="none").view(targets.shape)
    # Target i is token i + 1. The first token after the special ones is predicted from them alone,
    # where nothing was replaced, and what follows a window's end is padding.
    place = torch.arange(targets.shape[1], device=losses.device)
    counted = (place >= reader.skip) & (place < (lengths - 1).to(losses.device)[:, None])
    return np.asarray((losses.double() * counted).sum(1).cpu())
