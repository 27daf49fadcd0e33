"""`compare`: a treated model against a control, on the same prompts, seeds and texts, in pairs.

Use::

    comparison = compare("icl-gpt2", "path/of/an/adapter", on="country-capital")
    comparison.headline(); comparison.harmed(); comparison.to_frame()

For several treated models, ``panel = open_panel(control, on=...)`` reads the control once and
``panel.compare(treated)`` each of the others.

Cost: per subject one pass over the packed prompts, one over the single tokens (emergence), one
over the watched relations and one over neutral text; nothing is run twice
(``tests/benchmarks/bench_compare.py``). The control's text is run again with each treated model,
since keeping its distributions would take ``token d_vocab`` numbers. ``cost=True`` adds decoding.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.adaptivity import measure_adaptivity
from ed_interp.eval.compare.cost import measure_cost
from ed_interp.eval.compare.effects import check_power, effects_of, enough_permutations
from ed_interp.eval.compare.features import Encoder, FeatureSums
from ed_interp.eval.compare.identity import check_identity
from ed_interp.eval.compare.options import CompareOptions
from ed_interp.eval.compare.questions import On, Questions, draw_questions
from ed_interp.eval.compare.reading import Reading, check_fits, read_prompts
from ed_interp.eval.compare.result import Comparison
from ed_interp.eval.compare.subjects import Subject, check_alike, open_subject
from ed_interp.eval.compare.texts import read_texts
from ed_interp.options import OptionError, takes_options
from ed_interp.progress import Progress
from ed_interp.prompts.tasks import LabelledTask, as_task
from ed_interp.results import keep


@dataclasses.dataclass(frozen=True)
class Panel:
    """A control that has been read, and everything that the treated models get."""

    control: Subject
    questions: Questions
    options: CompareOptions
    reading: Reading
    """The control over the task's prompts."""
    watched: Reading | None
    progress: Progress = dataclasses.field(default=None, compare=False)

    def open(self, treated: Any, *, name: str | None = None) -> Subject:
        """A treated model, loaded like the control and refused if it cannot be compared with it.

        Raises:
            InvalidInputError: other tokens than the control's, or prompts beyond its window.
            ModelLoadError: it cannot be loaded.
        """
        settings = _loading(self.options, self.control.hooked.tokenizer)
        subject = open_subject(treated, name=name, **settings)
        check_alike(self.control, subject)
        check_fits(subject, self.questions.longest(len(subject.before)))
        return subject

    def compare(
        self,
        treated: Any,
        *,
        name: str | None = None,
        dictionary: Encoder | None = None,
        session: LabelledTask | None = None,
        training_seconds: float | None = None,
    ) -> Comparison:
        """Compare one treated model with the control.

        Args:
            treated: Anything :func:`~ed_interp.eval.compare.subjects.open_subject` takes.
            name: Name to use instead of the model's.
            dictionary: Also report which of its features changed most on neutral text.
            session: Also run sessions with feedback on pairs of this task.
            training_seconds: Time of its training, for the record.
        """
        subject, options, questions = self.open(treated, name=name), self.options, self.questions
        target = questions.target
        sequences = [prompt.sequence(target.shots[-1]) for prompt in target.prompts]
        sides = (self.control, subject)
        # First, since it refuses what the long passes after it would measure in vain.
        identity = check_identity(*sides, sequences, required=options.require_identity)
        sums = None if dictionary is None else FeatureSums(dictionary, len(questions.texts))
        reading, watched = _read(subject, questions, options, self.progress)
        text = None
        if windows := questions.texts:
            first, progress = questions.first, self.progress
            text = read_texts(*sides, windows, first=first, features=sums, progress=progress)
        target_pair = (self.reading, reading)
        pair = None if self.watched is None or watched is None else (self.watched, watched)
        effects, forgetting = effects_of(questions, target_pair, pair, text, options)
        cost = adaptivity = None
        if options.cost:
            cost = measure_cost(
                *sides, sequences, seconds=training_seconds, rounds=options.decode_rounds
            )
        if session is not None:
            tests: dict[str, Any] = {"level": options.level, "seed": options.seed}
            adaptivity = measure_adaptivity(subject, session, **tests)
        return Comparison(
            control=self.control.describe(),
            treated=subject.describe(),
            task=questions.task,
            effects=effects,
            forgetting=forgetting,
            features=() if sums is None else sums.changes(options),
            cost=cost,
            identity=identity,
            adaptivity=adaptivity,
            settings={
                "options": options.to_dict(),
                "shots": list(target.shots),
                "prompts": len(target.prompts),
                "prompts_fingerprint": target.fingerprint,
                "population": target.population.settings,
                "watched": sorted(set(questions.watched_relations)),
                "texts": len(questions.texts),
                "path": [self.reading.path, reading.path],
                "permutations": enough_permutations(len(effects), options),
                "correction": "Holm over all effects",
            },
            samples=_samples(questions, target_pair, pair) if options.samples else None,
        )


@takes_options(CompareOptions)
def open_panel(
    control: Any = None,
    *,
    on: On | None = None,
    tokenizer: Any = None,
    options: CompareOptions,
    progress: Progress = None,
) -> Panel:
    """Draw the prompts and texts, and read the control; arguments as of :func:`compare`."""
    subject = open_subject(control, **_loading(options, tokenizer))
    questions = draw_questions(subject.hooked.tokenizer, options, on=on)
    check_fits(subject, questions.longest(len(subject.before)))
    check_power(questions, options, options.watch_prompts)
    reading, watched = _read(subject, questions, options, progress)
    return Panel(subject, questions, options, reading, watched, progress)


@takes_options(CompareOptions)
def compare(
    control: Any = None,
    treated: Any = None,
    *,
    on: On | None = None,
    tokenizer: Any = None,
    dictionary: Encoder | None = None,
    session: str | LabelledTask | None = None,
    options: CompareOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Comparison:
    """Compare a treated model with a control, on the same samples.

    Args:
        control: Anything :func:`~ed_interp.eval.compare.subjects.open_subject` takes: a name,
            a folder, a live model, ``PromptOnly(model, text)``, a steered model.
        treated: The same.
        on: The task: a name, a task, a population, or (input, output) pairs.
        tokenizer: For models without one.
        dictionary: Also report which of its features changed most on neutral text.
        session: Also run sessions of interactions with feedback on pairs of this task; needs a
            bias-injection adapter with feedback nodes.
        options: All settings at once.
        out: Run folder to make.
        overwrite: Replace the run in `out` once the new one is complete.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: different tokenizers, vocabularies or precisions, prompts beyond the
            context window, an adapter that is not neutral at the start, an empty task.
        UnknownNameError: an unknown model, task or relation.
        ModelLoadError: a model that cannot be loaded.
        RunFolderError: `out` exists or cannot be written.
    """
    if treated is None:
        raise OptionError("treated", "must be a model to compare with the control, got None")
    task = None if session is None else as_task(session)
    if task is not None and not isinstance(task, LabelledTask):
        raise OptionError("session", f"must be a single relation, got {task.name!r}")
    panel = open_panel(control, on=on, tokenizer=tokenizer, options=options, progress=progress)
    subject = panel.open(treated)  # refused before there is a folder
    return keep(
        lambda _: panel.compare(subject, dictionary=dictionary, session=task),
        # A live model has no name of its own; its fingerprint tells whether a run is the same.
        options={**options.to_dict(), "fingerprint": subject.hooked.fingerprint},
        out=out,
        overwrite=overwrite,
        progress=progress,
    )


def _loading(options: CompareOptions, tokenizer: Any) -> dict[str, Any]:
    # None leaves the choice to `load`.
    given = {"tokenizer": tokenizer, "device": options.device, "dtype": options.dtype}
    return {key: value for key, value in given.items() if value is not None}


def _read(
    subject: Subject, questions: Questions, options: CompareOptions, progress: Progress
) -> tuple[Reading, Reading | None]:
    common: dict[str, Any] = {"options": options, "progress": progress}
    reading = read_prompts(subject, questions.target, emergence=options.emergence, **common)
    # Side effects are looked for in answers only: emergence there would need passes of its own.
    watched = None
    if questions.watched is not None:
        watched = read_prompts(subject, questions.watched, emergence=False, **common)
    if reading.correct is None and not reading.terms and not questions.texts:
        raise InvalidInputError(
            f"task {questions.task!r} has no answers, and neither emergence nor neutral text is "
            "measured: nothing would be compared"
        )
    return reading, watched


def _samples(
    questions: Questions, target: tuple[Reading, Reading], watched: tuple[Reading, Reading] | None
) -> pd.DataFrame | None:
    """One line per prompt and shot count, with the scores of both sides."""
    sets = [("task", questions.relations, target)]
    if watched is not None:
        sets.append(("watched", questions.watched_relations, watched))
    frames = []
    for part, relations, pair in sets:
        if pair[0].correct is None:
            continue
        shots = pair[0].shots
        data: dict[str, Any] = {
            "set": part,
            "relation": [name for name in relations for _ in shots],
            "prompt": [row for row in range(len(relations)) for _ in shots],
            "shots": list(shots) * len(relations),
        }
        # Scores are `prompt shot`, so row by row they are in the order of the columns above.
        for side, reading in zip(("control", "treated"), pair, strict=True):
            for name, kind in (("correct", "int32"), ("logprob", "float32"), ("rank", "int32")):
                data[f"{side}_{name}"] = getattr(reading, name).ravel().astype(kind)
        frames.append(pd.DataFrame(data))
    return pd.concat(frames, ignore_index=True) if frames else None
