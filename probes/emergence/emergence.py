r"""Strength of emergence per block and shot count.

For block l with input :math:`h_l` and output :math:`h_{l+1}`, over a population of sequences of T
tokens (Chen, Yang, Zhu, Wang: "Quantifying Emergence in Large Language Models", arXiv 2405.12617):

    E(l) = I(h_{l+1}^macro; h_l^macro) - (1/T) sum_t I(h_{l+1}^micro_t; h_l^micro_t)

- macro: the representation of the last token of the whole sequence, which has read all of it;
- micro_t: the representation of token t fed alone, which depends on that token only.

What differs from the paper:
- the estimator: ``smoothed`` by default (information through a noisy channel), not a critic
  trained on and evaluated with the same sample;
- shots are demonstrations before a query, or entities of a list, or tokens of a text;
- prompts may differ in length: places are aligned by structure (see ``ed_interp.prompts.tokens``),
  and the mean over t is over all tokens of all prompts;
- representations are normalised as the model's own blocks do before they read them, without
  learned scales.

Cost: one forward pass over packed prompts, one over lone tokens, the same for the untrained twin,
and the estimator's work (see ``tests/benchmarks/bench_emergence.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.untrained import untrained_twin
from ed_interp.probes.emergence.behaviour import behaviour_rows
from ed_interp.probes.emergence.calibration import Calibration
from ed_interp.probes.emergence.calibration import calibrate as calibrated
from ed_interp.probes.emergence.compare import side_by_side
from ed_interp.probes.emergence.curve import EmergenceCurve, ProfileRow
from ed_interp.probes.emergence.estimators import (
    DEFAULT_BETA,
    Estimator,
    available_estimators,
    get_estimator,
    noise_scale,
)
from ed_interp.probes.emergence.estimators.noise import Normalisation
from ed_interp.probes.emergence.measure import Read, ShotTerms, estimate, read
from ed_interp.probes.emergence.tabulate import emergence_rows, noise_profile_rows
from ed_interp.progress import Progress
from ed_interp.prompts.population import Population, draw
from ed_interp.prompts.tasks import (
    DEFAULT_TASK,
    LabelledTask,
    ListTask,
    MixedTask,
    Task,
    TextTask,
    as_task,
    most_shots,
)
from ed_interp.prompts.tokens import TokenPopulation, draw_windows, tokenize


def emergence(
    model: Any,
    *,
    task: str | Task | Population | TokenPopulation | Sequence[tuple[str, str]] = DEFAULT_TASK,
    shots: Iterable[int] | None = None,
    prompts: int = 500,
    seed: int = 0,
    template: str | None = None,
    estimator: str = "smoothed",
    noise: float | None = None,
    beta: float | None = None,
    noise_profile: bool = False,
    compare: Sequence[str] = (),
    calibrate: bool = False,
    normalisation: str = "auto",
    position: str = "zero",
    untrained: bool = True,
    behaviour: bool = True,
    level: float = 0.95,
    resamples: int = 1000,
    path: str = "auto",
    batch_size: int | None = None,
    folder: str | Path | None = None,
    tokenizer: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress = None,
) -> EmergenceCurve:
    """Emergence of every block over in-context shot counts, with behaviour beside it.

    >>> curve = ed_interp.emergence("icl-gpt2", shots=range(9))  # doctest: +SKIP

    Args:
        model: Anything :func:`ed_interp.load` takes.
        task: A name (see ``ed_interp.task_names()``), a task (see ``ed_interp.from_file``), a
            population, or a sequence of (input, output) pairs.
        shots: Shot counts; default 0 to 8 (lists: 1 to 8; windows: 1 to their length), as far as
            the task goes.
        prompts: Size of the sample.
        seed: Of the sample, the noise, the bootstrap and the untrained twin.
        template: For labelled tasks, with ``{input}`` and ``{output}``.
        estimator: See ``available_estimators()``.
        noise: Standard deviation s of the smoothed estimator's noise per normalised coordinate;
            default by the rule s = beta * sqrt(d / ln n), the same for every block and shot count.
        beta: In that rule; default 1/3.
        noise_profile: Also estimate over a range of noise levels (seven times the work).
        compare: Further estimators to ask about the same activations, side by side.
        calibrate: Also run the estimator, at this number of prompts and this width, on populations
            of known information (see :func:`ed_interp.calibrate`).
        normalisation: ``layernorm``, ``rms``, ``none``, or ``auto`` for the model's own kind.
        position: Where a lone token stands: ``zero`` or ``original``.
        untrained: Also run the untrained twin (same architecture, fresh weights).
        behaviour: Also score the right answers, where the task has them.
        level: Of all intervals.
        resamples: Of the bootstrap over prompts.
        path: See :func:`ed_interp.capture`.
        batch_size: Prompts a forward pass; default by number of tokens.
        folder: Keep activations there and resume from them.
        tokenizer: For a live model that does not carry one.
        device: For a model given by name.
        dtype: For a model given by name.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        UnknownNameError: unknown model, task or estimator; the nearest names are listed.
        ModelLoadError: the model cannot be loaded.
        InvalidInputError: settings that do not fit the task, the model or each other.
    """
    _check(prompts=prompts, seed=seed, level=level, resamples=resamples)
    name, options = estimator, {"device": device, "dtype": dtype, "tokenizer": tokenizer}
    hooked = load(model, **{key: value for key, value in options.items() if value is not None})
    population = _population(task, hooked, shots, prompts, seed, template)
    how = _normalisation(normalisation, hooked)
    scale = _noise(name, noise, beta, hooked.d_model, len(population.prompts))
    chosen = get_estimator(name, **({} if scale is None else {"noise": scale}))
    if noise_profile and scale is None:
        raise InvalidInputError(f"noise_profile: estimator {name!r} has no noise to vary")
    others = _others(name, compare, hooked.d_model, len(population.prompts))

    def run(subject: HookedModel, answers: bool, label: str) -> Read:
        where = None if folder is None else Path(folder) / label
        return read(
            subject,
            population,
            position=position,
            normalisation=how,
            answers=answers,
            path=path,
            batch_size=batch_size,
            folder=where,
            progress=progress,
        )

    trained = run(hooked, behaviour, "trained")
    terms = estimate(trained, chosen, seed=seed, progress=progress)
    twin: dict[int, ShotTerms] | None = None
    if untrained:
        fresh = run(untrained_twin(hooked, seed=seed), False, "untrained")
        twin = estimate(fresh, chosen, seed=seed, progress=progress, what="untrained twin")
    profile: tuple[ProfileRow, ...] = ()
    if noise_profile:
        profile = noise_profile_rows(
            trained, hooked.d_model, len(population.prompts), name, seed, progress
        )
    rows = tuple(emergence_rows(terms, twin, hooked, population, level, resamples, seed))
    found: dict[str, Any] = {name: rows}
    for other, asked in others.items():
        again = estimate(trained, asked, seed=seed, progress=progress, what=other)
        found[other] = tuple(
            emergence_rows(again, None, hooked, population, level, resamples, seed)
        )
    calibration: Calibration | None = None
    if calibrate:
        calibration = calibrated(
            name,
            n=len(population.prompts),
            d=hooked.d_model,
            options={} if scale is None else {"noise": scale},
            folder=None if folder is None else Path(folder) / "calibration",
            progress=progress,
        )
    chance = population.population.chance
    return EmergenceCurve(
        model=hooked.name,
        task=population.population.task,
        estimator=name,
        noise=scale,
        rows=rows,
        behaviour=behaviour_rows(
            trained.activations,
            chance=chance if chance is not None else 0.0,
            level=level,
            resamples=resamples,
            seed=seed,
        ),
        profile=profile,
        comparison=side_by_side(found) if others else None,
        calibration=calibration,
        settings={
            "model": hooked.describe(),
            "population": {
                **population.population.settings,
                "fingerprint": population.fingerprint,
                "exact_size": population.population.exact_size,
                "tokenization": population.tokenization,
                "longest_tokens": population.longest,
            },
            "shots": list(population.shots),
            "seed": seed,
            "estimator": name,
            "compare": list(others),
            "noise": scale,
            "noise_rule": None if noise is not None or scale is None else "s = beta sqrt(d / ln n)",
            "beta": None if noise is not None or scale is None else (beta or DEFAULT_BETA),
            "normalisation": how,
            "lone_position": position,
            "level": level,
            "resamples": resamples,
            "path": trained.activations.path,
            "path_discrepancy": trained.activations.discrepancy,
        },
    )


def _check(*, prompts: int, seed: int, level: float, resamples: int) -> None:
    """Refuse before the model runs what would fail after it."""
    if prompts < 2:
        raise InvalidInputError(f"prompts={prompts}: at least 2 are needed to speak of information")
    if not 0 <= seed < 2**63:
        raise InvalidInputError(f"seed={seed}: a whole number from 0 to 2^63 - 1 is expected")
    if not 0 < level < 1:
        raise InvalidInputError(f"level={level}: a number between 0 and 1 is expected")
    if resamples < 1:
        raise InvalidInputError(f"resamples={resamples}: at least 1 is needed for an interval")


def _population(
    task: Any,
    hooked: HookedModel,
    shots: Iterable[int] | None,
    prompts: int,
    seed: int,
    template: str | None,
) -> TokenPopulation:
    if isinstance(task, (Population, TokenPopulation)):
        if shots is not None or template is not None:
            raise InvalidInputError("shots and template are fixed when a population is drawn")
        return task if isinstance(task, TokenPopulation) else tokenize(task, hooked.tokenizer)
    found = as_task(task, template=template)
    if isinstance(found, TextTask):
        return draw_windows(found, hooked.tokenizer, prompts=prompts, shots=shots, seed=seed)
    counts = default_shots(found) if shots is None else shots
    return tokenize(draw(found, prompts=prompts, shots=counts, seed=seed), hooked.tokenizer)


def default_shots(task: ListTask | LabelledTask | MixedTask) -> range:
    """0 to 8 shots (lists: 1 to 8), as far as the task goes."""
    first = 1 if isinstance(task, ListTask) else 0
    return range(first, min(8, most_shots(task)) + 1)


def _normalisation(name: str, hooked: HookedModel) -> Normalisation:
    if name == "auto":
        return hooked.norm
    if name not in ("layernorm", "rms", "none"):
        raise InvalidInputError(f"unknown normalisation {name!r}; use auto, layernorm, rms or none")
    return name  # type: ignore[return-value]


def _noise(
    estimator: str, noise: float | None, beta: float | None, d_model: int, n: int
) -> float | None:
    """The noise scale, by the rule unless given; None for estimators without one."""
    if estimator != "smoothed":
        if noise is not None or beta is not None:
            raise InvalidInputError(f"noise and beta do not apply to estimator {estimator!r}")
        return None
    if noise is not None and beta is not None:
        raise InvalidInputError("give noise or beta, not both: beta only chooses the noise")
    for name, value in (("noise", noise), ("beta", beta)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InvalidInputError(f"{name}={value}: a finite number above 0 is expected")
    return noise if noise is not None else noise_scale(d_model, n, beta or DEFAULT_BETA)


def _others(
    name: str,
    compare: Sequence[str],
    d_model: int,
    n: int,
) -> dict[str, Estimator]:
    """The further estimators, made before the model runs, so that a wrong name costs nothing."""
    if isinstance(compare, str):
        raise InvalidInputError(f"compare={compare!r}: a sequence of names is expected")
    made: dict[str, Estimator] = {}
    for other in compare:
        if other not in available_estimators():
            raise unknown("estimator", other, available_estimators())
        if other != name:
            scale = _noise(other, None, None, d_model, n)
            made[other] = get_estimator(other, **({} if scale is None else {"noise": scale}))
    return made
