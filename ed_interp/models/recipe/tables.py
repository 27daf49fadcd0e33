"""The facts that the bundled models know, and the pairs held out of their training prompts.

Cost: reads two small JSON files (50 kB); nothing else.
"""

import random
from dataclasses import dataclass
from functools import cache

from ed_interp.prompts.tasks import read_data

HELD_OUT_FRACTION = 0.15

Pair = tuple[str, str]


@dataclass(frozen=True)
class Relation:
    """One task: a map from words to words."""

    description: str
    """One line for people."""
    group: str
    """What its inputs are; relations of one group share their inputs."""
    label: str
    """What it is called in a sentence."""
    sentences: tuple[str, ...]
    """Templates of its own, with ``{i}`` and ``{o}``."""
    pairs: tuple[Pair, ...]
    """(input, output), each input once."""


@cache
def relations() -> dict[str, Relation]:
    """Every relation of ``relations.json``, by name such as ``country-capital``."""
    made = {}
    for name, entry in read_data("relations.json").items():
        pairs = tuple((source, target) for source, target in entry["pairs"])
        made[name] = Relation(**{**entry, "sentences": tuple(entry["sentences"]), "pairs": pairs})
    return made


@cache
def words() -> tuple[str, ...]:
    """The inputs and outputs of all relations that are one word, sorted."""
    every = {word for entry in relations().values() for pair in entry.pairs for word in pair}
    return tuple(sorted(word for word in every if " " not in word))


@cache
def lists() -> dict[str, tuple[str, ...]]:
    """Every list of ``lists.json``: its entities, by name."""
    return {name: tuple(entry["entities"]) for name, entry in read_data("lists.json").items()}


def chance(word: str) -> float:
    """Accuracy at 0 shots of a model that knows every fact and guesses the relation.

    Equals 1 / (number of relations that have ``word`` as an input), since training prompts draw
    the relations uniformly.
    """
    inputs = [{source for source, _ in entry.pairs} for entry in relations().values()]
    return 1.0 / sum(word in sources for sources in inputs)


@cache
def held_out(seed: int) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each relation that no training prompt contains, fixed by ``seed``.

    Each relation is drawn separately, so that a word held out of one relation mostly occurs in
    the others. At least two pairs of each relation are held out.
    """
    chosen = {}
    for name, entry in relations().items():
        rng = random.Random(f"held-out {seed} {name}")
        count = max(2, round(HELD_OUT_FRACTION * len(entry.pairs)))
        chosen[name] = tuple(sorted(rng.sample(entry.pairs, count)))
    return chosen


def trained(seed: int) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each relation that training prompts are drawn from: all but the held out."""
    out = held_out(seed)
    return {
        name: tuple(pair for pair in entry.pairs if pair not in out[name])
        for name, entry in relations().items()
    }
