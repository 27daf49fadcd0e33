"""What both sides are asked: the task's prompts, the watched relations, and neutral text.

Drawn once, from seeds, as token ids, and the same for every subject. Every prompt carries the name
of its relation, so that a side effect can be named. Cost: that of tokenizing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.population import Population, draw
from ed_interp.prompts.tasks import (
    LabelledTask,
    ListTask,
    MixedTask,
    Task,
    TextTask,
    as_task,
    builtin_task,
    most_shots,
    task_names,
)
from ed_interp.prompts.tokens import Ids, TokenPopulation, draw_windows, tokenize

Asked = str | Task | Population | TokenPopulation | Sequence[tuple[str, str]]
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

    @property
    def clusters(self) -> tuple[int, ...]:
        """The query of each prompt of `target`, by number; see :func:`same_query`."""
        return same_query(self.target)

    @property
    def watched_clusters(self) -> tuple[int, ...]:
        """The same for `watched`; () without."""
        return () if self.watched is None else same_query(self.watched)

    def longest(self, before: int = 0) -> int:
        """Tokens of the longest sequence, with ``before`` tokens put in front."""
        sets = [found.longest for found in (self.target, self.watched) if found is not None]
        texts = [len(self.first) + len(text) for text in self.texts]
        return before + max([*sets, *texts])


def questions(
    tokenizer: Any,
    *,
    on: Asked,
    shots: Iterable[int] | None,
    prompts: int,
    seed: int,
    template: str | None,
    watch: str | Sequence[str | LabelledTask] | None,
    watch_prompts: int,
    watch_shots: Sequence[int],
    texts: Sequence[str] | None,
    text_tokens: int,
) -> Questions:
    """Draw and tokenize everything.

    Raises:
        InvalidInputError: an empty task or text, settings that do not fit, or no tokenizer.
        UnknownNameError: an unknown task or relation; the nearest are listed.
    """
    target, relations = _target(on, tokenizer, shots, prompts, seed, template)
    if not target.prompts:
        raise InvalidInputError(f"task {target.population.task!r} has no prompts; pass at least 2")
    watched, names = _watched(watch, set(relations), tokenizer, watch_prompts, watch_shots, seed)
    if tokenizer is None and texts is None:
        texts = ()
    windows, first = _windows(
        neutral_texts(seed=seed) if texts is None else texts, tokenizer, text_tokens
    )
    if texts and not windows:
        raise InvalidInputError(
            f"{len(texts)} neutral text(s) hold no token to predict; give texts of 2 tokens or more"
        )
    return Questions(target, relations, watched, names, windows, first)


def same_query(population: TokenPopulation) -> tuple[int, ...]:
    """A number per prompt, equal for prompts that ask the same: they are no independent samples.

    A task with fewer pairs than prompts repeats its queries, at 0 shots word for word.
    """
    known: dict[Ids, int] = {}
    found = []
    for row, prompt in enumerate(population.prompts):
        query = prompt.queries[-1][1] if prompt.queries else ()
        found.append(known.setdefault(query, len(known)) if query else row)
    return tuple(found)


def neutral_texts(*, documents: int = 60, seed: int = 0) -> tuple[str, ...]:
    """Generated plain English: sentences about many things and small stories.

    The grammar of the bundled models' plain text (:mod:`ed_interp.models.recipe.text`), from the
    sentences that were kept out of their training.
    """
    from ed_interp.models.recipe.corpus import Corpus

    corpus = Corpus(seed=0, stream=f"neutral text {seed}")
    return tuple(corpus.held_out_text(documents=documents))


def watchable() -> list[str]:
    """Names of the built-in relations: what ``watch="all"`` watches."""
    return [name for name in task_names() if isinstance(builtin_task(name), LabelledTask)]


def _target(
    on: Asked,
    tokenizer: Any,
    shots: Iterable[int] | None,
    prompts: int,
    seed: int,
    template: str | None,
) -> tuple[TokenPopulation, tuple[str, ...]]:
    if isinstance(on, (Population, TokenPopulation)):
        if shots is not None or template is not None:
            raise InvalidInputError("shots and template are fixed when a population is drawn")
        found = on if isinstance(on, TokenPopulation) else tokenize(on, tokenizer)
        return found, _members(found.population)
    task = as_task(on, template=template)
    if isinstance(task, TextTask):
        windows = draw_windows(task, tokenizer, prompts=prompts, shots=shots, seed=seed)
        return windows, (task.name,) * len(windows.prompts)
    if shots is None:
        first = 1 if isinstance(task, ListTask) else 0
        shots = range(first, min(8, most_shots(task)) + 1)
    population = draw(task, prompts=prompts, shots=shots, seed=seed)
    return tokenize(population, tokenizer), _members(population)


def _members(population: Population) -> tuple[str, ...]:
    """The relation of each prompt: the tasks of a mixture take turns, one a prompt."""
    names = population.settings.get("tasks") or [population.task]
    return tuple(str(names[row % len(names)]) for row in range(len(population)))


def _watched(
    watch: str | Sequence[str | LabelledTask] | None,
    known: set[str],
    tokenizer: Any,
    prompts: int,
    shots: Sequence[int],
    seed: int,
) -> tuple[TokenPopulation | None, tuple[str, ...]]:
    """Relations that are not the task's own, ``prompts`` of each, at the same shot counts."""
    if watch is None or (watch == "all" and tokenizer is None):
        return None, ()
    if isinstance(watch, str):
        watch = watchable() if watch == "all" else [watch]
    members: list[LabelledTask] = []
    for item in watch:
        task = builtin_task(item) if isinstance(item, str) else item
        if isinstance(task, ListTask):
            raise InvalidInputError(f"{task.name} has no answers to watch; watch a relation")
        members += task.tasks if isinstance(task, MixedTask) else [task]
    members = [task for task in members if task.name not in known]
    if not members:
        return None, ()
    if prompts < 2:
        raise InvalidInputError(
            f"watch_prompts={prompts}: at least 2 prompts a relation are needed"
        )
    if len(members) == 1:
        population = draw(members[0], prompts=prompts, shots=shots, seed=seed)
    else:
        mixture = MixedTask(WATCHED, tuple(members))
        population = draw(mixture, prompts=prompts * len(members), shots=shots, seed=seed)
    return tokenize(population, tokenizer), _members(population)


def _windows(texts: Sequence[str], tokenizer: Any, length: int) -> tuple[tuple[Ids, ...], Ids]:
    """Texts cut into windows of at most ``length`` tokens, and the tokens that go first."""
    if not texts:
        return (), ()
    if tokenizer is None:
        raise InvalidInputError("neutral text needs a tokenizer; pass tokenizer=, or texts=()")
    if length < 2:
        raise InvalidInputError(f"text_tokens={length}: a window needs 2 tokens, one to predict")
    plain = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    probe = tuple(tokenizer("a", add_special_tokens=True)["input_ids"])
    bare = tuple(tokenizer("a", add_special_tokens=False)["input_ids"])
    first = probe[: len(probe) - len(bare)] if bare and probe[-len(bare) :] == bare else ()
    windows = [
        tuple(ids[start : start + length]) for ids in plain for start in range(0, len(ids), length)
    ]
    return tuple(window for window in windows if len(window) > 1), first
