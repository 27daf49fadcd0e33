"""What one subject says to the prompts: scores of the answers, and the terms of emergence.

One forward pass over the packed prompts gives both, and one over the lone tokens what emergence
needs besides; nothing is run twice, and a control that has been read serves any number of treated
models. Cost: those two passes and the estimator's work.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.subjects import Subject
from ed_interp.probes.emergence.estimators import Estimator, get_estimator, noise_scale
from ed_interp.probes.emergence.measure import ShotTerms, estimate, read
from ed_interp.progress import Progress
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.streams.activations import Activations
from ed_interp.streams.capture import capture
from ed_interp.models.sites import resid_post

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Reading:
    """One subject over one population."""

    shots: tuple[int, ...]
    correct: Array | None
    """``prompt shot``, 0 or 1; None where there are no answers."""
    logprob: Array | None
    """``prompt shot``, nats, of the whole answer."""
    rank: Array | None
    """``prompt shot``, of the answer's first token, from 1."""
    terms: dict[int, ShotTerms]
    """Emergence terms per shot count; {} if not asked for."""
    path: str

    def emergence(self) -> Array | None:
        """``prompt block shot``: what each prompt contributes; their mean over prompts is E.

        E is a ratio (all lone-token terms over all tokens), so a prompt's share is scaled by the
        mean number of tokens, which is the same for both models.
        """
        if not self.terms:
            return None
        found = []
        for shots in self.shots:
            term = self.terms[shots]
            found.append((term.macro - term.micro / term.tokens.mean()).T)
        return np.stack(found, axis=-1)


def read_prompts(
    subject: Subject,
    population: TokenPopulation,
    *,
    emergence: bool,
    seed: int = 0,
    path: str = "auto",
    batch_size: int | None = None,
    progress: Progress = None,
) -> Reading:
    """Run one subject over a population.

    Args:
        subject: Who is asked.
        population: The prompts, without the subject's own text before them.
        emergence: Also read every block and the lone tokens, and estimate.
        seed: Of the estimator's noise: equal for both sides, which share it.
        path: See :func:`ed_interp.capture`.
        batch_size: Prompts a forward pass; default by number of tokens.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        CaptureError: NaN or infinite states.
        InvalidInputError: prompts longer than the context window.
    """
    told = subject.told(population)
    hooked = subject.hooked
    with subject.scope():
        if not emergence:
            last = [resid_post(hooked.n_layers - 1)]
            found = capture(
                hooked,
                told,
                sites=last,
                answers=True,
                path=path,
                batch_size=batch_size,
                progress=progress,
            )
            return _reading(found, {})
        states = read(
            hooked,
            told,
            position="zero",
            normalisation=hooked.norm,
            answers=True,
            path=path,
            batch_size=batch_size,
            folder=None,
            progress=progress,
        )
    terms = estimate(states, estimator_for(subject, population), seed=seed, progress=progress)
    return _reading(states.activations, terms)


def estimator_for(subject: Subject, population: TokenPopulation) -> Estimator:
    """The default estimator, with the noise of the rule: equal for models of one width."""
    noise = noise_scale(subject.hooked.d_model, len(population.prompts))
    return get_estimator("smoothed", noise=noise)


def check_fits(subject: Subject, longest: int) -> None:
    """Refuse prompts beyond the context window before anything is run.

    Raises:
        InvalidInputError: what was asked for takes more tokens than the model has room for.
    """
    window = subject.hooked.context_window
    if window is not None and longest > window:
        raise InvalidInputError(
            f"the longest prompt or text takes {longest} tokens, but {subject.name} has a context "
            f"window of {window}; ask for fewer shots or shorter texts (text_tokens)"
        )


def _reading(found: Activations, terms: dict[int, ShotTerms]) -> Reading:
    scores = found.scores() or {}
    tables = {name: table.double().numpy() for name, table in scores.items()}
    return Reading(
        found.shots,
        tables.get("correct"),
        tables.get("logprob"),
        tables.get("rank"),
        terms,
        found.path,
    )
