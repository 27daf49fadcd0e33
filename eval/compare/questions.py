"""The prompts and texts that both models get: the task, the watched relations, and neutral text.

Drawn once, from seeds, as token ids. Every prompt carries the name of its relation, so that a side
effect can be named. Cost: that of tokenizing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.options import CompareOptions
from ed_interp.models.recipe.corpus import Corpus
from ed_interp.prompts.population import Population, draw
from ed_interp.prompts.tasks import (
    LabelledTask,
    MixedTask,
    Task,
    builtin_task,
    task_names,
)
from ed_interp.prompts.tokens import Ids, TokenPopulation, sample, tokenize

On = str | Task | Population | TokenPopulation | Sequence[tuple[str, str]]
"""What ``on`` may be."""

WATCHED = "watched relations"


@dataclasses.dataclass(frozen=True)
class Questions:
    """Everything that both models are run on."""

    target: TokenPopulation
    relations: tuple[str, ...]
    """The relation of each prompt of `target`."""
    watched: TokenPopulation | None
    watched_relations: tuple[str, ...]
    texts: tuple[Ids, ...]
    """Windows of neutral text, without the tokenizer's first tokens; () for none."""
    first: Ids
    """What the tokenizer puts before a text (``<bos>``)."""

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.target.population.task

    def longest(self, before: int = 0) -> int:
        """Tokens of the longest sequence, with ``before`` tokens put in front."""
        populations = [each for each in (self.target, self.watched) if each is not None]
        texts = [len(self.first) + len(text) for text in self.texts]
        return before + max([*(each.longest for each in populations), *texts])


def draw_questions(tokenizer: Any, options: CompareOptions, *, on: On | None = None) -> Questions:
    """Draw and tokenize everything; ``on`` is the task, if it is a live object.

    Raises:
        InvalidInputError: an empty task or text, settings that do not fit, or no tokenizer.
        UnknownNameError: an unknown task or relation; the nearest names are listed.
    """
    target, relations = _target(options.on if on is None else on, tokenizer, options)
    if not target.prompts:
        raise InvalidInputError(
            f"task {target.population.task!r} must have at least 2 prompts, got none"
        )
    watched, names = _watched(set(relations), tokenizer, options)
    texts: int | Sequence[str] = options.texts
    if isinstance(texts, int):
        # Facts and small stories, from sentences kept out of the bundled models' training.
        # Models without a tokenizer can be compared, but not on generated text.
        corpus = Corpus(seed=0, stream=f"neutral text {options.seed}")
        texts = corpus.held_out_text(documents=texts if tokenizer is not None else 0)
    windows, first = _windows(texts, tokenizer, options.text_tokens)
    if texts and not windows:
        raise InvalidInputError(
            f"texts must hold a text of 2 tokens or more, got {len(texts)} with no token to predict"
        )
    return Questions(target, relations, watched, names, windows, first)


def same_query(population: TokenPopulation) -> tuple[int, ...]:
    """A number per prompt; prompts with the same query share it: they are not independent.

    A task with fewer pairs than prompts repeats its queries, at 0 shots word for word.
    """
    numbers: dict[Ids, int] = {}
    clusters = []
    for row, prompt in enumerate(population.prompts):
        query = prompt.queries[-1][1] if prompt.queries else ()
        # Prompts without a query (lists, windows) are each their own cluster.
        clusters.append(numbers.setdefault(query, len(numbers)) if query else row)
    return tuple(clusters)


def _target(
    on: On, tokenizer: Any, options: CompareOptions
) -> tuple[TokenPopulation, tuple[str, ...]]:
    drawn = sample(
        on,
        tokenizer,
        prompts=options.prompts,
        shots=options.shots,
        seed=options.seed,
        template=options.template,
    )
    return drawn, _members(drawn.population)


def _members(population: Population) -> tuple[str, ...]:
    """The relation of each prompt."""
    names = population.settings.get("tasks") or [population.task]
    # The tasks of a mixture take turns, one prompt each.
    return tuple(str(names[row % len(names)]) for row in range(len(population)))


def _watched(
    known: set[str], tokenizer: Any, options: CompareOptions
) -> tuple[TokenPopulation | None, tuple[str, ...]]:
    """Relations that are not the task's own, all at the same shot counts."""
    watch = options.watch
    if watch is None or (watch == "all" and tokenizer is None):
        return None, ()
    if watch == "all":
        watch = [name for name in task_names() if isinstance(builtin_task(name), LabelledTask)]
    elif isinstance(watch, str):
        watch = [watch]
    members: list[LabelledTask] = []
    for item in watch:
        task = builtin_task(item) if isinstance(item, str) else item
        if not isinstance(task, (LabelledTask, MixedTask)):
            raise InvalidInputError(f"watch must name relations, got {task.name}, without answers")
        members += task.tasks if isinstance(task, MixedTask) else [task]
    # The task's own relations are measured with the task.
    members = [task for task in members if task.name not in known]
    if not members:
        return None, ()
    # A mixture draws all relations at once, so that they share their forward passes.
    mixture = members[0] if len(members) == 1 else MixedTask(WATCHED, tuple(members))
    prompts, shots = options.watch_prompts * len(members), options.watch_shots
    population = draw(mixture, prompts=prompts, shots=shots, seed=options.seed)
    return tokenize(population, tokenizer), _members(population)


def _windows(texts: Sequence[str], tokenizer: Any, length: int) -> tuple[tuple[Ids, ...], Ids]:
    """Texts cut into windows of at most ``length`` tokens, and the tokens that go first."""
    if not texts:
        return (), ()
    if tokenizer is None:
        raise InvalidInputError("neutral text needs a tokenizer; pass tokenizer=, or texts=()")
    plain = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    # Tokenizers do not name their first tokens: they are what comes before a plain letter.
    probe = tuple(tokenizer("a", add_special_tokens=True)["input_ids"])
    bare = tuple(tokenizer("a", add_special_tokens=False)["input_ids"])
    first = probe[: len(probe) - len(bare)] if bare and probe[-len(bare) :] == bare else ()
    # A last window of one token would have nothing to predict.
    windows = [
        tuple(ids[start : start + length]) for ids in plain for start in range(0, len(ids), length)
    ]
    return tuple(window for window in windows if len(window) > 1), first
