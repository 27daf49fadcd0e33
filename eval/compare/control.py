"""`compare`: a treated model against a control, on the same prompts, seeds and texts, in pairs.

Use::

    comparison = compare("icl-gpt2", "path/of/an/adapter", on="country-capital")
    comparison.headline(); comparison.harmed(); comparison.to_frame()

For several treated models, ``panel = Panel.open(control, on=...)`` reads the control once and
``panel.compare(treated)`` each of the others.

Cost: per subject one pass over the packed prompts, one over the lone tokens (emergence), one over
the watched relations and one over neutral text; nothing is run twice
(``tests/benchmarks/bench_compare.py``). The control's text is run again beside each treated model,
since keeping its distributions would take ``token d_vocab`` numbers. ``cost=True`` adds decoding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.adaptivity import measure_adaptivity
from ed_interp.eval.compare.cost import measure_cost
from ed_interp.eval.compare.effects import (
    Inference,
    behaviour_effects,
    corrected,
    emergence_effects,
    enough_permutations,
    forgetting_effects,
    relation_effects,
)
from ed_interp.eval.compare.features import Encoder, FeatureSums
from ed_interp.eval.compare.identity import check_identity
from ed_interp.eval.compare.questions import Asked, Questions, questions
from ed_interp.eval.compare.reading import Reading, check_fits, read_prompts
from ed_interp.eval.compare.result import Comparison, Effect, Forgetting
from ed_interp.eval.compare.subjects import Subject, check_alike, open_subject
from ed_interp.eval.compare.texts import TextReading, read_texts
from ed_interp.progress import Progress
from ed_interp.prompts.tasks import DEFAULT_TASK, LabelledTask

WATCH_SHOTS = (1, 4)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A control that has been read, and everything to ask of those compared with it."""

    control: Subject
    questions: Questions
    rules: Inference
    reading: Reading
    """The control over the task's prompts."""
    watched: Reading | None
    options: dict[str, Any]
    """Of :meth:`open`, for the record."""
    progress: Progress = dataclasses.field(default=None, compare=False)

    @classmethod
    def open(
        cls,
        control: Any,
        *,
        on: Asked = DEFAULT_TASK,
        shots: Iterable[int] | None = None,
        prompts: int = 200,
        seed: int = 0,
        template: str | None = None,
        watch: str | Sequence[str | LabelledTask] | None = "all",
        watch_prompts: int = 24,
        watch_shots: Sequence[int] = WATCH_SHOTS,
        texts: Sequence[str] | None = None,
        text_tokens: int = 128,
        emergence: bool = True,
        level: float = 0.95,
        resamples: int = 1000,
        permutations: int = 9999,
        path: str = "auto",
        batch_size: int | None = None,
        tokenizer: Any = None,
        device: str | None = None,
        dtype: str | None = None,
        progress: Progress = None,
    ) -> Panel:
        """Draw the questions and read the control; arguments as of :func:`compare`."""
        rules = Inference(level, resamples, permutations, seed)
        given = {"tokenizer": tokenizer, "device": device, "dtype": dtype}
        loading = {key: value for key, value in given.items() if value is not None}
        subject = open_subject(control, **loading)
        asked = questions(
            subject.hooked.tokenizer,
            on=on,
            shots=shots,
            prompts=prompts,
            seed=seed,
            template=template,
            watch=watch,
            watch_prompts=watch_prompts,
            watch_shots=watch_shots,
            texts=texts,
            text_tokens=text_tokens,
        )
        check_fits(subject, asked.longest(len(subject.before)))
        _check_power(asked, rules, watch_prompts)
        options = {
            "shots": list(asked.target.shots),
            "prompts": len(asked.target.prompts),
            "prompts_fingerprint": asked.target.fingerprint,
            "population": asked.target.population.settings,
            "seed": seed,
            "watched": sorted(set(asked.watched_relations)),
            "watch_prompts": watch_prompts,
            "watch_shots": list(watch_shots),
            "texts": len(asked.texts),
            "text_tokens": text_tokens,
            "emergence": emergence,
            "level": level,
            "resamples": resamples,
            "path": path,
            "batch_size": batch_size,
            "loading": {"device": device, "dtype": dtype},
        }
        reading, watched = _read(subject, asked, options, progress)
        return cls(subject, asked, rules, reading, watched, options, progress)

    def compare(
        self,
        treated: Any,
        *,
        name: str | None = None,
        dictionary: Encoder | None = None,
        cost: bool = True,
        require_identity: bool = True,
        samples: bool = True,
        session: LabelledTask | None = None,
        decode_rounds: int = 5,
        training_seconds: float | None = None,
    ) -> Comparison:
        """Compare one treated model with the control; arguments as of :func:`compare`."""
        loading = {key: value for key, value in self.options["loading"].items() if value}
        if self.control.hooked.tokenizer is not None:
            loading["tokenizer"] = self.control.hooked.tokenizer
        subject = open_subject(treated, name=name, **loading)
        asked = self.questions
        check_alike(self.control, subject)
        check_fits(subject, asked.longest(len(subject.before)))
        sequences = [prompt.sequence(asked.target.shots[-1]) for prompt in asked.target.prompts]
        identity = check_identity(self.control, subject, sequences, required=require_identity)
        sums = None if dictionary is None else FeatureSums(dictionary, len(asked.texts))
        reading, watched = _read(subject, asked, self.options, self.progress)
        text = self._texts(subject, sums)
        effects, forgetting = self._effects(reading, watched, text)
        rules = self.rules
        changes = (
            ()
            if sums is None
            else sums.changes(top=20, level=rules.level, resamples=rules.resamples, seed=rules.seed)
        )
        return Comparison(
            control=self.control.describe(),
            treated=subject.describe(),
            task=asked.task,
            effects=effects,
            forgetting=forgetting,
            features=changes,
            cost=measure_cost(
                self.control, subject, sequences, seconds=training_seconds, rounds=decode_rounds
            )
            if cost
            else None,
            identity=identity,
            adaptivity=None
            if session is None
            else measure_adaptivity(subject, session, level=rules.level, seed=rules.seed),
            settings={
                **self.options,
                "path": [self.reading.path, reading.path],
                "permutations": self.permutations(len(effects)),
                "correction": "Holm over all effects",
                "require_identity": require_identity,
            },
            samples=self._samples(reading, watched) if samples else None,
        )

    def permutations(self, effects: int) -> int:
        """Sign patterns of the tests of a comparison with so many effects."""
        return enough_permutations(effects, self.rules)

    def _texts(self, subject: Subject, sums: FeatureSums | None) -> TextReading | None:
        if not self.questions.texts:
            return None
        return read_texts(
            self.control,
            subject,
            self.questions.texts,
            first=self.questions.first,
            site=None if sums is None else sums.site,
            states=None if sums is None else sums.add,
            progress=self.progress,
        )

    def _effects(
        self, reading: Reading, watched: Reading | None, text: TextReading | None
    ) -> tuple[tuple[Effect, ...], Forgetting | None]:
        return effects_of(
            self.questions,
            (self.reading, reading),
            None if self.watched is None or watched is None else (self.watched, watched),
            text,
            self.rules,
        )

    def _samples(self, reading: Reading, watched: Reading | None) -> pd.DataFrame | None:
        asked = self.questions
        parts = [_sample_rows("task", asked.relations, self.reading, reading)]
        if self.watched is not None and watched is not None:
            parts.append(_sample_rows("watched", asked.watched_relations, self.watched, watched))
        found = [part for part in parts if part is not None]
        return pd.concat(found, ignore_index=True) if found else None


def compare(
    control: Any,
    treated: Any,
    *,
    on: Asked = DEFAULT_TASK,
    dictionary: Encoder | None = None,
    cost: bool = True,
    require_identity: bool = True,
    samples: bool = True,
    session: LabelledTask | None = None,
    decode_rounds: int = 5,
    **options: Any,
) -> Comparison:
    """Compare a treated model with a control, on the same samples.

    >>> compare("icl-gpt2", "my-adapter", on="country-capital").harmed()  # doctest: +SKIP

    Args:
        control: Anything :func:`~ed_interp.eval.compare.subjects.open_subject` takes: a name,
            a folder, a live model, ``PromptOnly(model, text)``, a steered model.
        treated: The same.
        on: The task: a name, a task, a population, or (input, output) pairs.
        dictionary: Also find the features of it that changed most on neutral text.
        cost: Also measure parameters, memory and the speed of decoding.
        require_identity: Refuse an adapter whose before-state is not the identity.
        samples: Keep every prompt's scores in the result.
        session: Also run sessions of interactions with feedback on pairs of this task; needs a
            bias-injection adapter with feedback nodes.
        decode_rounds: Of timing the decoding; 0 leaves it out.
        **options: Of :meth:`Panel.open`: ``shots``, ``prompts`` (200), ``seed``, ``template``;
            ``watch``, the relations beside the task in which side effects are looked for (names,
            tasks, None, or ``"all"``: every built-in one), with ``watch_prompts`` each at
            ``watch_shots``; ``texts``, neutral text (default: generated plain English; ``()`` for
            none) in windows of ``text_tokens``; ``emergence``; ``level``, ``resamples``,
            ``permutations`` of the tests; ``path``, ``batch_size``, ``tokenizer``, ``device``,
            ``dtype``, ``progress``.

    Raises:
        InvalidInputError: different tokenizers, vocabularies or precisions, prompts beyond the
            context window, an adapter that is not neutral at the start, an empty task.
        UnknownNameError: an unknown model, task or relation.
        ModelLoadError: a model that cannot be loaded.
    """
    panel = Panel.open(control, on=on, **options)
    return panel.compare(
        treated,
        dictionary=dictionary,
        cost=cost,
        require_identity=require_identity,
        samples=samples,
        session=session,
        decode_rounds=decode_rounds,
    )


def effects_of(
    asked: Questions,
    target: tuple[Reading, Reading],
    watched: tuple[Reading, Reading] | None,
    text: TextReading | None,
    rules: Inference,
) -> tuple[tuple[Effect, ...], Forgetting | None]:
    """Every effect of two sets of readings, corrected together.

    Apart from the running of models, so that its error rates can be measured on readings that
    are known not to differ.
    """
    forgetting: Forgetting | None = None

    def every(rules: Inference) -> list[Effect]:
        nonlocal forgetting
        clusters = asked.clusters
        found = behaviour_effects(asked.task, *target, rules, clusters=clusters)
        names = set(asked.relations)
        if len(names) > 1:
            found += relation_effects(
                asked.relations, *target, rules, watched=False, clusters=clusters
            )
        if watched is not None:
            found += relation_effects(
                asked.watched_relations,
                *watched,
                rules,
                watched=True,
                clusters=asked.watched_clusters,
            )
        if text is not None:
            effects, forgetting = forgetting_effects(text, rules)
            found += effects
        return found + emergence_effects(*target, rules, clusters=clusters)

    cells = _cells(asked, target, watched, text)
    needed = enough_permutations(cells, rules)
    found = every(dataclasses.replace(rules, permutations=needed))
    return corrected(found), forgetting


def _check_power(asked: Questions, rules: Inference, prompts: int) -> None:
    """Refuse so few prompts a relation that no side effect could survive the correction."""
    if asked.watched is None:
        return
    cells = 3 * len(asked.target.shots) + 2 * len(set(asked.watched_relations)) + 1
    needed = math.ceil(1 + math.log2(2 * cells / (1 - rules.level)))
    if prompts < needed:
        raise InvalidInputError(
            f"watch_prompts={prompts}: with {cells} effects or more to correct for, none in a "
            f"relation could be found; ask for at least {needed}, watch fewer, or watch=None"
        )


def _cells(
    asked: Questions,
    target: tuple[Reading, Reading],
    watched: tuple[Reading, Reading] | None,
    text: TextReading | None,
) -> int:
    """How many effects there will be."""
    shots, first = len(asked.target.shots), target[0]
    blocks = first.terms[first.shots[0]].macro.shape[0] if first.terms else 0
    relations = len(set(asked.relations)) + (len(set(asked.watched_relations)) if watched else 0)
    return 3 * shots + 2 * relations + (text is not None) + blocks * shots


def _read(
    subject: Subject, asked: Questions, options: dict[str, Any], progress: Progress
) -> tuple[Reading, Reading | None]:
    common = {
        "path": options["path"] if isinstance(options["path"], str) else "auto",
        "batch_size": options["batch_size"],
        "progress": progress,
    }
    reading = read_prompts(
        subject, asked.target, emergence=options["emergence"], seed=options["seed"], **common
    )
    watched = None
    if asked.watched is not None:
        watched = read_prompts(subject, asked.watched, emergence=False, **common)
    if reading.correct is None and not reading.terms and not asked.texts:
        raise InvalidInputError(
            f"task {asked.task!r} has no answers, and neither emergence nor neutral text was asked "
            "for: nothing would be compared"
        )
    return reading, watched


def _sample_rows(
    part: str, relations: Sequence[str], control: Reading, treated: Reading
) -> pd.DataFrame | None:
    """One line per prompt and shot count, with the scores of both sides."""
    if control.correct is None:
        return None
    prompts, shots = control.correct.shape
    data: dict[str, Any] = {
        "set": part,
        "relation": [name for name in relations for _ in range(shots)],
        "prompt": [row for row in range(prompts) for _ in range(shots)],
        "shots": list(control.shots) * prompts,
    }
    for side, reading in (("control", control), ("treated", treated)):
        for name in ("correct", "logprob", "rank"):
            values = getattr(reading, name).ravel()
            data[f"{side}_{name}"] = values.astype("float32" if name == "logprob" else "int32")
    return pd.DataFrame(data)
