"""Populations: a seeded sample of prompts with their shot structure, as text.

A prompt has K demonstrations and, for labelled tasks, one query with its answer. Its k-shot form is
the first k demonstrations and the query, so the shot counts of a prompt are nested and differ in
nothing else. Cost: microseconds per prompt.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

from ed_interp.errors import InvalidInputError, OptionError
from ed_interp.prompts.tasks import LabelledTask, ListTask, MixedTask, Task, TextTask, most_shots


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """Text of one prompt."""

    demonstrations: tuple[str, ...]
    """Texts of the demonstrations (lists: entity and comma), joined without a separator."""
    query: str | None = None
    """Text after the demonstrations; None for lists and windows."""
    answer: str | None = None
    """The right continuation with its leading space; None for lists and windows."""


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
    """Number of different prompts at the most shots; None if unknown."""
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

    Lists: ordered selections without repetition, uniformly; if at most ``prompts`` of them exist
    at the most shots, each is taken once. Labelled tasks: queries go round all pairs, in shuffled
    order; demonstrations are drawn without repetition, never with the input of the query, and
    balanced over the answers: each round takes every answer that still has pairs once, in random
    order. Mixed tasks: the tasks take turns, one per prompt. Windows of text need a tokenizer and
    are drawn by :func:`ed_interp.prompts.tokens.draw_windows`.

    Args:
        task: What to draw from.
        prompts: Sample size.
        shots: Numbers of demonstrations to read at.
        seed: Random seed.

    Raises:
        InvalidInputError: fewer than two prompts, no or negative shots, 0 shots of a list, or more
            shots than the task has demonstrations.
    """
    counts = check_shots(shots)
    if prompts < 2:
        raise OptionError("prompts", f"must be 2 or greater, got {prompts}")
    if isinstance(task, TextTask):
        raise InvalidInputError(
            f"the task must be a list or pairs, got the text {task.name!r}; name pairs"
        )
    if isinstance(task, ListTask):
        return _draw_list(task, prompts, counts, seed)
    return _draw_labelled(task, prompts, counts, seed)


def check_shots(shots: Iterable[int]) -> tuple[int, ...]:
    """Ascending distinct shot counts; InvalidInputError for none or a negative one."""
    counts = tuple(sorted({int(count) for count in shots}))
    if not counts or counts[0] < 0:
        problem = f"must be one or more counts, 0 or greater, got {list(counts)}; e.g. range(9)"
        raise OptionError("shots", problem)
    return counts


def _draw_list(task: ListTask, prompts: int, shots: tuple[int, ...], seed: int) -> Population:
    rng, most, entities = random.Random(seed), shots[-1], len(task.entities)
    if most > entities:
        why = f"got {most} shots: it has {entities} entities, and none is repeated"
        raise OptionError("shots", f"must be at most {entities} for task {task.name!r}, {why}")
    if shots[0] == 0:
        problem = f"must be 1 or greater for task {task.name!r}, which is a list, got 0 shots"
        raise OptionError("shots", f"{problem}; start at 1")
    size = math.perm(entities, most)
    if size <= prompts:
        chosen = list(itertools.permutations(range(entities), most))
        rng.shuffle(chosen)
    else:
        # The population has no repetitions, so the sample has none either; a dict keeps the order.
        seen: dict[tuple[int, ...], None] = {}
        while len(seen) < prompts:
            seen[tuple(rng.sample(range(entities), most))] = None
        chosen = list(seen)
    shown = [f"{entity}{task.separator}" for entity in task.entities]
    items = tuple(Prompt(tuple(shown[index] for index in selection)) for selection in chosen)
    settings = {"prompts": len(items), "seed": seed, "kind": "list", "entities": entities}
    return Population(task.name, "list", items, shots, size, None, None, settings)


def _draw_labelled(
    task: LabelledTask | MixedTask, prompts: int, shots: tuple[int, ...], seed: int
) -> Population:
    """Tasks of a mixture take turns; each goes round its own queries."""
    members = task.tasks if isinstance(task, MixedTask) else (task,)
    rng, most, repeat = random.Random(seed), shots[-1], False
    drawn: list[list[Prompt]] = []
    sizes: list[int] = []
    for turn, member in enumerate(members[:prompts]):
        available, room = len(member.pairs), most_shots(member)
        if most > room:
            part = "" if member is task else f", a part of {task.name}"
            problem = f"must be at most {room} for task {member.name!r}{part}, got {most}: of its "
            raise OptionError(
                "shots", f"{problem}{available} pairs, {room} are left to show with a query"
            )
        share = (prompts + len(members) - 1 - turn) // len(members)
        drawn.append(_prompts(member, share, most, rng))
        repeat = repeat or share > available
        # Only if no input occurs twice, as then every query leaves the same number of pairs.
        if room == available - 1:
            sizes.append(_labelled_size(member, most))
    turns = itertools.zip_longest(*drawn)
    items = tuple(prompt for turn in turns for prompt in turn if prompt is not None)
    answers = collections.Counter(prompt.answer for prompt in items)
    pairs = [pair for member in members for pair in member.pairs]
    # Tasks that share a pair share prompts: then their sizes do not add up.
    exact = len(sizes) == len(members) and len(set(pairs)) == len(pairs)
    settings = {"prompts": len(items), "seed": seed, "kind": "labelled", "pairs": len(pairs)}
    settings |= {"template": members[0].template.text, "queries_repeat": repeat}
    if isinstance(task, MixedTask):
        settings["tasks"] = [member.name for member in members]
    chance = max(answers.values()) / len(items)
    size = sum(sizes) if exact else None
    outputs = len({output for _, output in pairs})
    return Population(task.name, "labelled", items, shots, size, chance, outputs, settings)


def _prompts(task: LabelledTask, prompts: int, most: int, rng: random.Random) -> list[Prompt]:
    """Prompts of one task; every pair is the query once before any is twice."""
    queries: list[int] = []
    while len(queries) < prompts:
        lap = list(range(len(task.pairs)))
        rng.shuffle(lap)
        queries += lap
    items = []
    for query in queries[:prompts]:
        input, output = task.pairs[query]
        shown = _demonstrations(task.pairs, input, most, rng)
        demonstrations = tuple(task.template.demonstration(*task.pairs[index]) for index in shown)
        ending = (task.template.query(input), task.template.answer(output))
        items.append(Prompt(demonstrations, *ending))
    return items


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
    """Number of different prompts with ``count`` demonstrations that :func:`draw` can return."""
    # Summed over the queries; those with the same answer leave the same number of prompts.
    sizes = collections.Counter(task.answers)
    total = 0
    for output, multiplicity in task.answers.items():
        left = collections.Counter(sizes)
        left[output] -= 1
        total += multiplicity * _rounds([n for n in left.values() if n], count)
    return total


def _rounds(left: list[int], count: int) -> int:
    """Number of balanced draws of ``count`` pairs, with ``left`` pairs under each answer."""
    # A round orders the answers that still have pairs. With m answers left, a full round
    # contributes m! orders times the product of the pairs left under each answer; the last, partial
    # round of r answers r! times the r-th elementary symmetric polynomial of the pairs left.
    ways = 1
    while count >= len(left) and left:
        ways *= math.factorial(len(left)) * math.prod(left)
        count -= len(left)
        left = [n - 1 for n in left if n > 1]
    # That polynomial by the recurrence over its arguments; degrees downwards, so that no argument
    # is multiplied with itself.
    symmetric = [1] + [0] * count
    for n in left:
        for degree in range(count, 0, -1):
            symmetric[degree] += n * symmetric[degree - 1]
    return ways * math.factorial(count) * symmetric[count]
