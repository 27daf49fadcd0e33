"""Populations: a seeded sample of prompts with their shot structure, still as text.

A prompt has K demonstrations and, for labelled tasks, one query with its answer. Its k-shot form
is the first k demonstrations and the query, so the shot counts of one prompt are nested and differ
in nothing else. Cost: microseconds a prompt.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.tasks import (
    LabelledTask,
    ListTask,
    MixedTask,
    Task,
    TextTask,
    most_shots,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """Text of one prompt."""

    demonstrations: tuple[str, ...]
    """Texts of the demonstrations (lists: entity and comma), joined without anything between."""
    query: str | None = None
    """Text after the demonstrations; None for lists and windows."""
    answer: str | None = None
    """What should follow, with its leading space; None where there is no right answer."""


@dataclasses.dataclass(frozen=True)
class Population:
    """A finite, equally weighted sample of prompts; repeated prompts carry more weight."""

    task: str
    kind: str
    """``list``, ``labelled`` or ``text``."""
    prompts: tuple[Prompt, ...]
    shots: tuple[int, ...]
    """Shot counts that will be read, ascending."""
    exact_size: int | None
    """Number of different prompts there are at the most shots; None where it is not known."""
    chance: float | None
    """Frequency of the most common answer among the sampled queries; None without answers."""
    answers: int | None
    """Number of distinct answers of the task; None without answers."""
    settings: dict[str, Any]
    """How the sample was drawn."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the texts and shot counts."""
        text = json.dumps([[*p.demonstrations, p.query, p.answer] for p in self.prompts])
        return hashlib.sha256(f"{self.shots}{text}".encode()).hexdigest()[:16]


def draw(
    task: Task, *, prompts: int = 500, shots: Iterable[int] = range(9), seed: int = 0
) -> Population:
    """Draw a population from a list, a labelled or a mixed task.

    Lists: ordered selections without repetition, uniformly; if there are no more than ``prompts``
    of them at the most shots, every one is taken once. Labelled tasks: queries go round all pairs,
    in shuffled order; demonstrations are drawn without repetition, never with the input of the
    query, and balanced over the answers: each round takes every answer once, in random order, as
    far as answers are left. Mixed tasks: the tasks take turns, one a prompt. Windows of text need
    a tokenizer and are drawn by :func:`ed_interp.prompts.tokens.draw_windows`.

    Args:
        task: What to draw from.
        prompts: Sample size.
        shots: Numbers of demonstrations to read at.
        seed: Of Python's random generator.

    Raises:
        InvalidInputError: no prompts or shots asked for, negative shots, 0 shots of a list, or more
            shots than the task has demonstrations.
    """
    counts = check_shots(shots)
    if prompts < 2:
        raise InvalidInputError(f"prompts={prompts}: at least 2 are needed to speak of information")
    rng = random.Random(seed)
    if isinstance(task, TextTask):
        raise InvalidInputError(f"task {task.name!r} is text: windows are drawn with a tokenizer")
    if isinstance(task, ListTask):
        return _draw_list(task, prompts, counts, rng, seed)
    if isinstance(task, MixedTask):
        return _draw_mixed(task, prompts, counts, rng, seed)
    return _draw_labelled(task, prompts, counts, rng, seed)


def check_shots(shots: Iterable[int]) -> tuple[int, ...]:
    """Ascending distinct shot counts.

    Raises:
        InvalidInputError: none, or a negative one.
    """
    counts = tuple(sorted({int(count) for count in shots}))
    if not counts or counts[0] < 0:
        raise InvalidInputError(
            f"shots={list(counts)}: one or more counts of 0 or above are expected, e.g. range(9)"
        )
    return counts


def _draw_list(
    task: ListTask, prompts: int, shots: tuple[int, ...], rng: random.Random, seed: int
) -> Population:
    most, there = shots[-1], len(task.entities)
    if most > there:
        raise InvalidInputError(
            f"{most} shots of task {task.name!r}: it has {there} entities and none is repeated; "
            f"ask for at most {there}"
        )
    if shots[0] == 0:
        raise InvalidInputError(
            f"0 shots of task {task.name!r}: a list without entities is empty; start at 1"
        )
    size = math.perm(there, most)
    if size <= prompts:
        chosen = [_selection(there, most, index) for index in range(size)]
        rng.shuffle(chosen)
    else:
        # Distinct selections: the population has no repetitions, so the sample has none either.
        seen: dict[tuple[int, ...], None] = {}
        while len(seen) < prompts:
            seen[tuple(rng.sample(range(there), most))] = None
        chosen = list(seen)
    items = tuple(
        Prompt(tuple(task.entities[index] + task.separator for index in selection))
        for selection in chosen
    )
    settings = {"prompts": len(items), "seed": seed, "kind": "list", "entities": there}
    return Population(task.name, "list", items, shots, size, None, None, settings)


def _selection(n: int, k: int, index: int) -> tuple[int, ...]:
    """The ``index``-th ordered selection of ``k`` out of ``n``, in lexicographic order."""
    left, chosen = list(range(n)), []
    for place in range(k):
        digit, index = divmod(index, math.perm(n - place - 1, k - place - 1))
        chosen.append(left.pop(digit))
    return tuple(chosen)


def _draw_labelled(
    task: LabelledTask, prompts: int, shots: tuple[int, ...], rng: random.Random, seed: int
) -> Population:
    most, there, room = shots[-1], len(task.pairs), most_shots(task)
    if most > room:
        raise InvalidInputError(
            f"{most} shots of task {task.name!r}: it has {there} pairs, of which {room} are left "
            f"to show beside the query; ask for at most {room}"
        )
    items = []
    queries: list[int] = []
    while len(queries) < prompts:
        lap = list(range(there))
        rng.shuffle(lap)
        queries += lap
    for query in queries[:prompts]:
        input, output = task.pairs[query]
        items.append(
            Prompt(
                tuple(
                    task.template.demonstration(*task.pairs[index])
                    for index in _demonstrations(task.pairs, input, most, rng)
                ),
                task.template.query(input),
                task.template.answer(output),
            )
        )
    drawn = collections.Counter(prompt.answer for prompt in items)
    settings = {
        "prompts": prompts,
        "seed": seed,
        "kind": "labelled",
        "pairs": there,
        "template": task.template.text,
        "queries_repeat": prompts > there,
    }
    return Population(
        task.name,
        "labelled",
        tuple(items),
        shots,
        _labelled_size(task, most) if room == there - 1 else None,
        max(drawn.values()) / prompts,
        len(task.answers),
        settings,
    )


def _draw_mixed(
    task: MixedTask, prompts: int, shots: tuple[int, ...], rng: random.Random, seed: int
) -> Population:
    """The tasks take turns; each goes round its own queries."""
    members = len(task.tasks)
    drawn = [
        _draw_labelled(member, (prompts + members - 1 - turn) // members, shots, rng, seed)
        for turn, member in enumerate(task.tasks[:prompts])
    ]
    items = tuple(
        part.prompts[turn]
        for turn in range(len(drawn[0].prompts))
        for part in drawn
        if turn < len(part.prompts)
    )
    answers = collections.Counter(prompt.answer for prompt in items)
    # Tasks that share a pair share prompts: then their sizes do not add up.
    pairs = [pair for member in task.tasks for pair in member.pairs]
    sizes = [part.exact_size for part in drawn]
    known = [size for size in sizes if size is not None]
    exact = len(known) == members and len(set(pairs)) == len(pairs)
    settings = {
        "prompts": len(items),
        "seed": seed,
        "kind": "labelled",
        "tasks": [member.name for member in task.tasks],
        "pairs": len(pairs),
        "template": task.tasks[0].template.text,
        "queries_repeat": any(part.settings["queries_repeat"] for part in drawn),
    }
    return Population(
        task.name,
        "labelled",
        items,
        shots,
        sum(known) if exact else None,
        max(answers.values()) / len(items),
        len({output for _, output in pairs}),
        settings,
    )


def _demonstrations(
    pairs: Sequence[tuple[str, str]], query: str, count: int, rng: random.Random
) -> list[int]:
    """Indices of ``count`` demonstrations, balanced over outputs at every prefix."""
    left: dict[str, list[int]] = {}
    for index in rng.sample(range(len(pairs)), len(pairs)):
        if pairs[index][0] != query:
            left.setdefault(pairs[index][1], []).append(index)
    chosen: list[int] = []
    while len(chosen) < count:
        # A round is a random order of the answers that still have pairs to show.
        for output in rng.sample(sorted(left), len(left))[: count - len(chosen)]:
            chosen.append(left[output].pop())
            if not left[output]:
                del left[output]
    return chosen


def _labelled_size(task: LabelledTask, count: int) -> int:
    """Number of different prompts with ``count`` demonstrations that :func:`draw` can give.

    A round of the balanced draw orders the answers that still have pairs. With m answers left, a
    full round contributes m! orders times the product of the pairs left under each answer; the
    last, partial round of r answers contributes r! times the r-th elementary symmetric polynomial
    of the pairs left. Summed over the queries.
    """
    sizes = collections.Counter(task.answers)
    total = 0
    for output, multiplicity in task.answers.items():
        left = collections.Counter(sizes)
        left[output] -= 1
        total += multiplicity * _rounds([n for n in left.values() if n], count)
    return total


def _rounds(left: list[int], count: int) -> int:
    ways = 1
    while count >= len(left) and left:
        ways *= math.factorial(len(left)) * math.prod(left)
        count -= len(left)
        left = [n - 1 for n in left if n > 1]
    # Elementary symmetric polynomial of degree `count`, by the recurrence over its arguments.
    symmetric = [1] + [0] * count
    for n in left:
        for degree in range(count, 0, -1):
            symmetric[degree] += n * symmetric[degree - 1]
    return ways * math.factorial(count) * symmetric[count]
