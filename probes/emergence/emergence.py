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

Cost: one forward pass over packed prompts, one over single tokens, the same for the untrained twin,
and the estimator's work (see ``tests/benchmarks/bench_emergence.py``).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.untrained import untrained_twin
from ed_interp.options import OptionError, takes_options
from ed_interp.probes.emergence import tabulate
from ed_interp.probes.emergence.calibration.calibrate import calibrate_estimator
from ed_interp.probes.emergence.curve import EmergenceCurve, EstimatorComparison
from ed_interp.probes.emergence.estimators.base import Estimator
from ed_interp.probes.emergence.estimators.noise import Normalisation
from ed_interp.probes.emergence.estimators.registry import get_estimator
from ed_interp.probes.emergence.measure import Read, ShotTerms, estimate, read
from ed_interp.probes.emergence.options import EmergenceOptions
from ed_interp.probes.emergence.rows import ProfileRow
from ed_interp.progress import Progress
from ed_interp.prompts.population import Population
from ed_interp.prompts.tokens import TokenPopulation, sample
from ed_interp.results import keep


@takes_options(EmergenceOptions)
def emergence(
    model: Any = None,
    task: Any = None,
    *,
    options: EmergenceOptions,
    tokenizer: Any = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> EmergenceCurve:
    """Emergence of every block over in-context shot counts, with the model's accuracy.

    >>> curve = ed_interp.emergence("icl-gpt2", shots=range(9))  # doctest: +SKIP

    Args:
        model: Anything :func:`ed_interp.load` takes; a name, or a live model.
        task: A name (see ``ed_interp.task_names()``), a task (see ``ed_interp.from_file``), a
            population, or a sequence of (input, output) pairs.
        options: All settings at once; those given by keyword take precedence.
        tokenizer: A name, or a tokenizer for a live model that does not carry one.
        out: Run folder to make; an interrupted run in it is resumed. Without it nothing is written.
        overwrite: Replace the run in ``out`` once the new one is complete.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        UnknownNameError: unknown model, task or estimator; the nearest names are listed.
        ModelLoadError: the model cannot be loaded.
        InvalidInputError: settings that do not fit the task, the model or each other.
        RunFolderError: ``out`` exists (and not ``overwrite``) or cannot be written.
    """
    if options.keep_activations and out is None:
        raise InvalidInputError("keep_activations must come with out, the folder to keep them in")
    # Whatever can be refused is refused here, before the model runs or a folder is made.
    estimator = options.make_estimator()
    others = [get_estimator(name) for name in options.compare_estimators]
    if options.noise_profile and not estimator.variants():
        problem = f"must come with an estimator that adds noise, got {options.estimator!r}; drop it"
        raise OptionError("noise_profile", problem)
    hooked = options.load(model, tokenizer)
    population = _population(task, options, hooked)
    # One noise for all blocks, shot counts and slots; with different ones, E is not comparable.
    size = {"d": hooked.d_model, "n": len(population.prompts)}
    run = _Run(
        options=options,
        hooked=hooked,
        population=population,
        normalisation=hooked.norm if options.normalisation == "auto" else options.normalisation,
        estimator=estimator.for_population(**size),
        # The curve's own estimator is in the comparison already.
        others=[other.for_population(**size) for other in others if other.name != estimator.name],
        progress=progress,
    )
    record = options.to_dict()
    if not all(isinstance(given, (str, Path, type(None))) for given in (model, task, tokenizer)):
        # The options hold no more than the names of live objects: another one of the same name
        # must not resume this run.
        record["fingerprints"] = [hooked.fingerprint, population.fingerprint]
    return keep(
        run,
        options=record,
        out=out,
        overwrite=overwrite,
        keep_work=options.keep_activations,
        progress=progress,
    )


def _population(task: Any, options: EmergenceOptions, hooked: HookedModel) -> TokenPopulation:
    """The prompts, as tokens of the model."""
    if not isinstance(task, (Population, TokenPopulation)):
        made = options.make_task(task)
        # The template is on it already, unless it was a live object.
        task, template = made, options.template if made is task else None
    else:
        template = options.template
    prompts, shots, seed = options.prompts, options.shots, options.seed
    tokenizer = hooked.tokenizer
    return sample(task, tokenizer, prompts=prompts, shots=shots, seed=seed, template=template)


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run, with everything that it needs loaded; calling it does the work."""

    options: EmergenceOptions
    hooked: HookedModel
    population: TokenPopulation
    normalisation: Normalisation
    estimator: Estimator
    others: list[Estimator]
    progress: Progress

    def __call__(self, folder: Path | None) -> EmergenceCurve:
        """Read, estimate and tabulate; intermediate work is kept in ``folder``, if there is one."""
        trained = self.read(self.hooked, folder, "trained")
        terms = self.estimate(trained, self.estimator, folder)
        twin = None
        if self.options.untrained:
            fresh = untrained_twin(self.hooked, seed=self.options.seed)
            states = self.read(fresh, folder, "untrained")
            twin = self.estimate(states, self.estimator, folder, "untrained twin")
        # From here on everything is computed from the activations that are read already.
        profile = self.profile(trained, folder) if self.options.noise_profile else ()
        about = self.hooked, self.population, self.options
        rows = tabulate.emergence_rows(terms, twin, *about)
        estimates = {self.estimator.name: rows}
        for other in self.others:
            other_terms = self.estimate(trained, other, folder, other.name)
            estimates[other.name] = tabulate.emergence_rows(other_terms, None, *about)
        compared = EstimatorComparison(*tabulate.comparison_rows(estimates))
        calibration = None
        if self.options.calibrate:
            calibration = calibrate_estimator(
                self.estimator,
                n=len(self.population.prompts),
                d=self.hooked.d_model,
                folder=folder and folder / "calibration",
                progress=self.progress,
            )
        drawn = self.population.population
        return EmergenceCurve(
            model=self.hooked.name,
            task=drawn.task,
            estimator=self.estimator.name,
            noise=self.estimator.added_noise,
            rows=rows,
            behaviour=tabulate.behaviour_rows(
                trained.activations, chance=drawn.chance or 0.0, options=self.options
            ),
            profile=profile,
            comparison=compared if self.others else None,
            calibration=calibration,
            settings=self.settings(trained),
        )

    def read(self, subject: HookedModel, folder: Path | None, name: str) -> Read:
        """The states of a model, kept in a folder of that name."""
        return read(
            subject,
            self.population,
            position=self.options.single_position,
            normalisation=self.normalisation,
            # How well fresh weights answer is chance, which is known; scoring needs the head.
            answers=self.options.behaviour and subject is self.hooked,
            path=self.options.path,
            batch_size=self.options.batch_size,
            folder=folder and folder / "activations" / name,
            progress=self.progress,
        )

    def estimate(
        self, states: Read, estimator: Estimator, folder: Path | None, what: str = "estimating"
    ) -> dict[int, ShotTerms]:
        """Terms per shot count."""
        # One folder for all: a training finds its state again by its rows and options.
        resumable = estimator.resuming(folder and folder / "training")
        seed, progress = self.options.seed, self.progress
        return estimate(states, resumable, seed=seed, progress=progress, what=what)

    def profile(self, trained: Read, folder: Path | None) -> tuple[ProfileRow, ...]:
        """Emergence over a range of noise, from the same activations."""
        size = {"d": self.hooked.d_model, "n": len(self.population.prompts)}
        rows: list[ProfileRow] = []
        for beta, variant in self.estimator.variants():
            variant = variant.for_population(**size)
            noise = variant.added_noise
            assert noise is not None  # what makes it a variant
            terms = self.estimate(trained, variant, folder, f"noise {noise:.3g}")
            rows += tabulate.profile_rows(terms, beta, noise)
        # By block and shot count like all rows, not by the order of the estimates.
        return tuple(sorted(rows, key=dataclasses.astuple))

    def settings(self, trained: Read) -> dict[str, Any]:
        """What the options leave open and this run has settled: enough to repeat it exactly."""
        drawn = self.population.population
        return {
            "model": self.hooked.describe(),
            "population": {
                **drawn.settings,
                "fingerprint": self.population.fingerprint,
                "exact_size": drawn.exact_size,
                "tokenization": self.population.tokenization,
                "longest_tokens": self.population.longest,
            },
            "shots": list(self.population.shots),
            "seed": self.options.seed,
            "estimator": {"name": self.estimator.name, **self.estimator.to_dict()},
            "noise": self.estimator.added_noise,
            "normalisation": self.normalisation,
            "path": trained.activations.path,
            "path_discrepancy": trained.activations.discrepancy,
        }
