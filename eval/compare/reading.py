"""One subject over the prompts: scores of its answers, and the terms of emergence.

One forward pass over the packed prompts yields both; one over the single tokens yields what
emergence needs besides. Nothing is run twice, and a control that has been read serves any number
of treated models. Cost: those two passes and the estimator's work.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.options import CompareOptions
from ed_interp.eval.compare.subjects import Subject
from ed_interp.models.sites import resid_post
from ed_interp.probes.emergence.estimators import get_estimator
from ed_interp.probes.emergence.measure import ShotTerms, estimate, read
from ed_interp.probes.emergence.options import EmergenceOptions
from ed_interp.progress import Progress
from ed_interp.prompts.tokens import TokenPopulation
from ed_interp.streams.activations import Activations
from ed_interp.streams.capture import capture

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Reading:
    """One subject over one population."""

    shots: tuple[int, ...]
    correct: Array | None
    """``prompt shot``, 0 or 1; None without answers."""
    logprob: Array | None
    """``prompt shot``, log-probability of the whole answer, in nats."""
    rank: Array | None
    """``prompt shot``, rank of the answer's first token, from 1."""
    terms: dict[int, ShotTerms]
    """Emergence terms per shot count; {} if they were not measured."""
    path: str

    def emergence(self) -> Array | None:
        """``prompt block shot``: what each prompt contributes; their mean over prompts is E."""
        if not self.terms:
            return None
        terms = [self.terms[shots] for shots in self.shots]
        # E is a ratio (all single-token terms over all tokens), so a prompt's share is scaled by
        # the mean number of tokens, which is the same for both models.
        return np.stack([(t.macro - t.micro / t.tokens.mean()).T for t in terms], axis=-1)


def read_prompts(
    subject: Subject,
    population: TokenPopulation,
    *,
    emergence: bool,
    options: CompareOptions | None = None,
    progress: Progress = None,
) -> Reading:
    """Run one subject over a population (without the subject's own text before the prompts).

    ``emergence`` also reads every block and the single tokens, and estimates; with equal seeds in
    ``options`` two readings share the estimator's noise.

    Raises:
        CaptureError: NaN or infinite states.
        InvalidInputError: prompts longer than the context window.
    """
    prompts, hooked = subject.prefixed(population), subject.hooked
    options = options or CompareOptions()
    common = {name: getattr(options, name) for name in ("path", "batch_size")}
    common |= {"answers": True, "progress": progress}
    with subject.scope():
        if not emergence:
            # Only the scores are needed, but a capture reads one site at least.
            last = [resid_post(hooked.n_layers - 1)]
            return _reading(capture(hooked, prompts, sites=last, **common), {})
        states = read(hooked, prompts, normalisation=hooked.norm, **common)
    # Outside the scope of what steers: the states are read, and estimating runs no model.
    estimator = get_estimator(EmergenceOptions().estimator)
    # Its noise made definite: equal for models of one width.
    estimator = estimator.for_population(d=hooked.d_model, n=len(population.prompts))
    terms = estimate(states, estimator, seed=options.seed, progress=progress)
    return _reading(states.activations, terms)


def check_fits(subject: Subject, longest: int) -> None:
    """Refuse prompts beyond the context window before anything is run.

    Raises:
        InvalidInputError: the longest sequence takes more tokens than the model has room for.
    """
    window = subject.hooked.context_window
    if window is not None and longest > window:
        raise InvalidInputError(
            f"the longest prompt or text must fit the context window of {window} tokens of "
            f"{subject.name}, got {longest}; use fewer shots or shorter texts (text_tokens)"
        )


def _reading(activations: Activations, terms: dict[int, ShotTerms]) -> Reading:
    scores = activations.scores() or {}
    correct, logprob, rank = (
        scores[name].double().numpy() if scores else None for name in ("correct", "logprob", "rank")
    )
    return Reading(activations.shots, correct, logprob, rank, terms, activations.path)
