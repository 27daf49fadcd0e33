"""`feature_emergence`: features at the last token, over shots and training checkpoints.

The dictionary stays the same, so that a feature keeps its number; at each checkpoint the model
that it reads is another, and how well it still describes it is reported beside it (``fvu``).
Cost: one shot-packed forward pass up to the site per checkpoint, and the permutations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load as load_model
from ed_interp.models.registry import bundled, bundled_names
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.emergence.information import label_information
from ed_interp.probes.dictionaries.emergence.result import FeatureEmergence, FeatureEmergenceRow
from ed_interp.probes.dictionaries.loading import load
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import Population, draw
from ed_interp.prompts.tasks import (
    DEFAULT_TASK,
    LabelledTask,
    MixedTask,
    as_task,
    most_shots,
)
from ed_interp.prompts.tokens import tokenize
from ed_interp.streams.capture import capture

ACTIVE_SHARE = 0.01
"""Of prompts, from which on a feature counts as active."""
PERMUTATIONS = 200
_TOP = 10


def feature_emergence(
    dictionary: Any,
    model: Any = None,
    *,
    task: str | LabelledTask | MixedTask = DEFAULT_TASK,
    shots: Iterable[int] | None = None,
    prompts: int = 500,
    about: str = "auto",
    checkpoints: Sequence[int] | str = (),
    permutations: int = PERMUTATIONS,
    site: str | Site | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> FeatureEmergence:
    """How many features, and which, are active and informative at the last token of a prompt.

    Args:
        dictionary: Anything :func:`~ed_interp.probes.dictionaries.loading.load` takes.
        model: Anything :func:`ed_interp.load` takes; default the one it was trained on, by name.
        task: A labelled or mixed task.
        shots: Shot counts; default 0 to 8, as far as the task goes.
        prompts: Size of the sample.
        about: What features are to tell about: the ``answer``, or the ``relation`` that a mixed
            task's prompt is of; ``auto`` is the relation where there is one.
        checkpoints: Also follow these training steps of a bundled model; ``all`` for every one.
        permutations: Of the labels, for bias and threshold.
        site: If not the dictionary's own.
        seed: Of the sample and the permutations.
        progress: True for bars on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: a task without answers, checkpoints of a model that has none, a
            dictionary that does not fit.
        UnknownNameError: no such task, site or checkpoint.
        ModelLoadError: the dictionary or the model cannot be loaded.
    """
    if permutations < 20:
        raise InvalidInputError(f"permutations={permutations}: at least 20 are needed at 5%")
    found: Dictionary = load(dictionary)
    if model is None and found.model_name is None:
        raise InvalidInputError("this dictionary names no model; pass one as the second argument")
    hooked = load_model(found.model_name if model is None else model)
    place = found.check(hooked, at=site)
    chosen = as_task(task)
    if not isinstance(chosen, (LabelledTask, MixedTask)):
        raise InvalidInputError(f"task {chosen.name!r} has no answers for features to tell about")
    counts = range(min(8, most_shots(chosen)) + 1) if shots is None else shots
    population = draw(chosen, prompts=prompts, shots=counts, seed=seed)
    labels, about = _labels(population, about)
    steps = _steps(hooked, checkpoints)
    rows: list[FeatureEmergenceRow] = []
    entropy = 0.0
    with track(progress, "following features", len(steps)) as advance:
        for step in steps:
            subject = hooked if step is None else load_model(hooked.name, checkpoint=step)
            part, entropy = _follow(
                found, subject, place, population, labels, step, permutations, seed
            )
            rows += part
            advance(1)
    return FeatureEmergence(
        model=hooked.name,
        task=population.task,
        about=about,
        site=place.name,
        latents=found.latents,
        label_entropy=entropy,
        rows=tuple(rows),
        settings={
            "dictionary": {**found.describe(), "source": found.source},
            "model": hooked.describe(),
            "population": {**population.settings, "fingerprint": population.fingerprint},
            "shots": list(population.shots),
            "about": about,
            "permutations": permutations,
            "active_share": ACTIVE_SHARE,
            "seed": seed,
        },
    )


@torch.no_grad()
def _follow(
    dictionary: Dictionary,
    hooked: HookedModel,
    site: Site,
    population: Population,
    labels: Sequence[str],
    step: int | None,
    permutations: int,
    seed: int,
) -> tuple[list[FeatureEmergenceRow], float]:
    tokens = tokenize(population, hooked.tokenizer)
    read = capture(hooked, tokens, sites=[site], answers=False)
    rows: list[FeatureEmergenceRow] = []
    seen: set[int] = set()
    entropy = 0.0
    for shots in population.shots:
        states = read.at(shots)[:, 0]
        activations = dictionary.encode(states)
        error = (dictionary.decode(activations).cpu().float() - states.cpu()).square().sum()
        spread = (states - states.mean(0)).square().sum()
        active: NDArray[np.bool_] = (activations != 0).cpu().numpy()
        told = label_information(active, labels, permutations=permutations, seed=seed)
        entropy = told.entropy
        informative = set(np.flatnonzero(told.informative).tolist())
        best = np.argsort(-told.bits, kind="stable")[:_TOP]
        rows.append(
            FeatureEmergenceRow(
                step=step,
                shots=shots,
                active=int((active.mean(0) >= ACTIVE_SHARE).sum()),
                l0=float(active.sum(1).mean()),
                informative=len(informative),
                new=tuple(sorted(informative - seen)),
                top=tuple((int(i), float(told.bits[i])) for i in best if told.informative[i]),
                best_bits=float(told.bits[best[0]]),
                # At 0 shots all states can be equal; then there is nothing to explain.
                fvu=float(error / spread) if float(spread) > 0 else 0.0,
            )
        )
        seen |= informative
    return rows, entropy


def _labels(population: Population, about: str) -> tuple[list[str], str]:
    relations = population.settings.get("tasks")
    if about == "auto":
        about = "answer" if relations is None else "relation"
    if about == "answer":
        return [str(prompt.answer) for prompt in population.prompts], about
    if about != "relation":
        raise InvalidInputError(f"about={about!r}: use answer, relation or auto")
    if relations is None:
        raise InvalidInputError(
            f"task {population.task!r} is of one relation, so there is nothing to tell about it; "
            "use about='answer', or a mixed task"
        )
    # The relations of a mixture take turns, one a prompt (ed_interp.prompts.population.draw).
    return [str(relations[i % len(relations)]) for i in range(len(population))], about


def _steps(hooked: HookedModel, checkpoints: Sequence[int] | str) -> list[int | None]:
    if not checkpoints:
        return [None]
    if hooked.name not in bundled_names():
        raise InvalidInputError(
            f"checkpoints={checkpoints!r}: {hooked.name} comes without training checkpoints; the "
            f"bundled models have them ({', '.join(bundled_names())})"
        )
    there = bundled(hooked.name).checkpoints
    if isinstance(checkpoints, str):
        if checkpoints != "all":
            raise InvalidInputError(f"checkpoints={checkpoints!r}: steps are expected, or 'all'")
        return [*there, None]
    for step in checkpoints:
        bundled(hooked.name).checkpoint(step)  # refuses one that is not there
    return [*checkpoints, None]
