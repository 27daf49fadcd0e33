"""`feature_emergence`: features at the last token, over shots and training checkpoints.

The dictionary stays the same, so that a feature keeps its number; at each checkpoint the model that
it reads is another, and ``fvu`` reports how well it still describes it. Cost: one shot-packed
forward pass up to the site per checkpoint, and one product of ``label x prompt`` by ``prompt x
feature`` per permutation. Information that a feature's activity carries about a label:

    I = sum over active or not, and labels, of p(a, label) log2 p(a, label) / (p(a) p(label))

The counts of a finite sample overstate it. The labels are therefore permuted, which keeps every
marginal and breaks the dependence; the mean over permutations is subtracted, and a feature is
informative if its information exceeds what the LARGEST of all features reaches in 95% of the
permutations: among a thousand features without information, any is called informative in one run
of twenty (Westfall and Young's max-T, 1993).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load as load_model
from ed_interp.models.registry import bundled, bundled_names
from ed_interp.options import OptionError, takes_options
from ed_interp.probes.dictionaries.options import FeatureEmergenceOptions
from ed_interp.probes.dictionaries.reader import Reader
from ed_interp.probes.dictionaries.results import FeatureEmergence
from ed_interp.probes.dictionaries.rows import FeatureEmergenceRow
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import Population, draw
from ed_interp.prompts.tasks import LabelledTask, MixedTask, most_shots
from ed_interp.prompts.tokens import tokenize
from ed_interp.results import keep
from ed_interp.streams.capture import capture

ACTIVE_SHARE = 0.01
"""Share of prompts from which on a feature counts as active."""
LEVEL = 0.95
_TOP = 10


@takes_options(FeatureEmergenceOptions)
def feature_emergence(
    dictionary: Any,
    model: Any = None,
    *,
    task: Any = None,
    options: FeatureEmergenceOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> FeatureEmergence:
    """How many features, and which, are active and informative at the last token of a prompt.

    Args:
        dictionary, model: As for :func:`~ed_interp.probes.dictionaries.measuring.measure`, like
            ``out``, ``overwrite``, ``progress`` and what it raises.
        task: A labelled or mixed task; without answers InvalidInputError.
    """
    named = options.make_task(task)
    if not isinstance(named, (LabelledTask, MixedTask)):
        raise OptionError("task", f"must have answers, got {named.name!r}; use a labelled task")
    reader = Reader.open(options, dictionary, model)
    shots = range(min(8, most_shots(named)) + 1) if options.shots is None else options.shots
    population = draw(named, prompts=options.prompts, shots=shots, seed=options.seed)
    labels, about = _labels(population, options.about)
    steps = _steps(reader.hooked, options.checkpoints)

    def make(_: Path | None) -> FeatureEmergence:
        rows: list[FeatureEmergenceRow] = []
        with track(progress, "following features", len(steps)) as advance:
            for step in steps:
                subject = reader
                if step is not None:
                    device = reader.hooked.device
                    hooked = load_model(reader.hooked.name, checkpoint=step, device=device)
                    subject = dataclasses.replace(reader, hooked=hooked)
                rows += _follow(subject, population, labels, step, options)
                advance(1)
        return FeatureEmergence(
            model=reader.hooked.name,
            task=population.task,
            about=about,
            site=reader.site.name,
            latents=reader.dictionary.latents,
            label_entropy=entropy_of(labels),
            rows=tuple(rows),
            settings={
                **reader.settings(),
                "population": {**population.settings, "fingerprint": population.fingerprint},
                "permutations": options.permutations,
                "active_share": ACTIVE_SHARE,
            },
        )

    return keep(make, options=options, out=out, overwrite=overwrite, progress=progress)


@torch.no_grad()
def _follow(
    reader: Reader, population: Population, labels: Sequence[str], step: int | None,
    options: FeatureEmergenceOptions,
) -> Iterator[FeatureEmergenceRow]:  # fmt: skip
    # Checkpoints of a model share its tokenizer, so all of them read the same prompts.
    tokens = tokenize(population, reader.hooked.tokenizer)
    size = options.batch_size
    read = capture(reader.hooked, tokens, sites=[reader.site], answers=False, batch_size=size)
    seen: set[int] = set()
    for shots in population.shots:
        states = read.at(shots)[:, 0]
        activations = reader.dictionary.encode(states)
        error = (reader.dictionary.decode(activations).cpu().float() - states.cpu()).square().sum()
        spread = (states - states.mean(0)).square().sum()
        # Only whether it is active counts: activations of features are not on one scale.
        active: NDArray[np.bool_] = (activations != 0).cpu().numpy()
        shuffles = {"permutations": options.permutations, "seed": options.seed}
        about = label_information(active, labels, **shuffles)
        informative = set(np.flatnonzero(about.informative).tolist())
        # Stable, so that features of equal information keep their order in every run.
        best = np.argsort(-about.bits, kind="stable")[:_TOP]
        yield FeatureEmergenceRow(
            step=step,
            shots=shots,
            active=int((active.mean(0) >= ACTIVE_SHARE).sum()),
            l0=float(active.sum(1).mean()),
            informative=len(informative),
            new=tuple(sorted(informative - seen)),
            top=tuple((int(i), float(about.bits[i])) for i in best if about.informative[i]),
            best_bits=float(about.bits[best[0]]),
            # At 0 shots all states can be equal, and there is no variance to explain.
            fvu=float(error / spread) if float(spread) > 0 else 0.0,
        )
        seen |= informative


def _labels(population: Population, about: str) -> tuple[list[str], str]:
    relations = population.settings.get("tasks")
    if about == "auto":
        about = "answer" if relations is None else "relation"
    if about == "answer":
        return [str(prompt.answer) for prompt in population.prompts], about
    if relations is None:
        raise InvalidInputError(
            f"about='relation' must come with a mixed task, got {population.task!r}, which is of "
            "one relation; use about='answer'"
        )
    # The relations of a mixture take turns, one a prompt (ed_interp.prompts.population.draw).
    return [str(relations[i % len(relations)]) for i in range(len(population))], about


def _steps(hooked: HookedModel, checkpoints: Sequence[str]) -> list[int | None]:
    if not checkpoints:
        return [None]
    if hooked.name not in bundled_names():
        problem = f"must be those of a bundled model ({', '.join(bundled_names())})"
        got = f"{hooked.name} without training checkpoints"
        raise OptionError("checkpoints", f"{problem}, got {got}")
    model = bundled(hooked.name)
    steps = list(model.checkpoints) if "all" in checkpoints else list(map(int, checkpoints))
    for step in steps:
        model.checkpoint(step)  # refuses one that does not exist
    return [*steps, None]


class LabelInformation(NamedTuple):
    """Per feature, in bits."""

    bits: NDArray[np.float64]
    """Information less its mean over permutations, and at least 0."""
    informative: NDArray[np.bool_]


def label_information(
    active: NDArray[np.bool_], labels: Sequence[Hashable], *, permutations: int, seed: int
) -> LabelInformation:
    """Information of each column of ``active`` (``prompt feature``) about the labels."""
    table, values = _one_hot(labels), active.astype(np.float32)
    bits, rng = _bits(table, values), np.random.default_rng(seed)
    shuffled = (table[:, rng.permutation(table.shape[1])] for _ in range(permutations))
    null = np.stack([_bits(permuted, values) for permuted in shuffled])
    # The largest of all features in each permutation, not each feature's own.
    threshold = float(np.quantile(null.max(1), LEVEL))
    # Rounding must not make a constant feature informative.
    return LabelInformation(np.maximum(bits - null.mean(0), 0.0), bits > threshold + 1e-6)


def entropy_of(labels: Sequence[Hashable]) -> float:
    """Entropy of the labels in bits: no feature can carry more."""
    share = _one_hot(labels).mean(1)
    return float(-(share * np.log2(share)).sum())


def _one_hot(labels: Sequence[Hashable]) -> NDArray[np.float32]:
    """``label prompt``, 1 where a prompt has the label."""
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    table = np.zeros((len(known), len(labels)), dtype=np.float32)
    table[[known[label] for label in labels], np.arange(len(labels))] = 1.0
    return table


def _bits(table: NDArray[np.float32], active: NDArray[np.float32]) -> NDArray[np.float64]:
    prompts = table.shape[1]
    on = (table @ active).astype(np.float64) / prompts
    label = table.mean(1, dtype=np.float64)[:, None]
    share = active.mean(0, dtype=np.float64)[None]
    total = np.zeros(active.shape[1])
    # Active, then not active: the joint counts of the second are those of the label less the first.
    for joint, marginal in ((on, share), (label - on, 1 - share)):
        # 0 log 0 is 0: a ratio of 1 leaves those cells out.
        full = (joint > 0) & (marginal > 0)
        ratio = np.divide(joint, label * marginal, out=np.ones_like(joint), where=full)
        total += (joint * np.log2(np.maximum(ratio, 1e-300))).sum(0)
    return total
