"""The facts that the bundled models know, and the pairs held out of their training prompts.

Cost: reads two small JSON files (50 kB); nothing else.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ed_interp.errors import unknown

DATA = Path(__file__).resolve().parents[2] / "prompts" / "data"

HELD_OUT_FRACTION = 0.15

Pair = tuple[str, str]


@dataclass(frozen=True)
class Relation:
    """One task: a map from words to words."""

    name: str
    """Such as ``country-capital``."""
    group: str
    """What its inputs are; relations of one group share their inputs."""
    description: str
    """One line for people."""
    pairs: tuple[Pair, ...]
    """(input, output), each input once."""


@cache
def relations() -> dict[str, Relation]:
    """Every relation of ``relations.json``, by name."""
    raw = json.loads((DATA / "relations.json").read_text(encoding="utf-8"))
    return {
        name: Relation(
            name=name,
            group=entry["group"],
            description=entry["description"],
            pairs=tuple((source, target) for source, target in entry["pairs"]),
        )
        for name, entry in raw.items()
    }


@cache
def lists() -> dict[str, tuple[str, ...]]:
    """Every list of ``lists.json``: its entities, by name."""
    raw = json.loads((DATA / "lists.json").read_text(encoding="utf-8"))
    return {name: tuple(entry["entities"]) for name, entry in raw.items()}


def relation(name: str) -> Relation:
    """One relation.

    Raises:
        UnknownNameError: when there is none of that name.
    """
    known = relations()
    if name not in known:
        raise unknown("relation", name, list(known))
    return known[name]


def relations_of(word: str) -> tuple[str, ...]:
    """The names of the relations that have ``word`` as an input."""
    return tuple(
        name for name, entry in relations().items() if any(pair[0] == word for pair in entry.pairs)
    )


def chance(word: str) -> float:
    """Accuracy at 0 shots of a model that knows every fact and guesses the relation.

    Equals 1 / (number of relations that have ``word`` as an input), since training prompts draw
    the relations uniformly.
    """
    return 1.0 / len(relations_of(word))


def held_out(seed: int, *, fraction: float = HELD_OUT_FRACTION) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each relation that no training prompt contains, fixed by ``seed``.

    Each relation is drawn on its own, so that a word held out of one relation is mostly seen in
    the others. At least two pairs of each relation are held out.
    """
    chosen: dict[str, tuple[Pair, ...]] = {}
    for name, entry in relations().items():
        rng = random.Random(f"held-out {seed} {name}")
        count = max(2, round(fraction * len(entry.pairs)))
        chosen[name] = tuple(sorted(rng.sample(entry.pairs, count)))
    return chosen


def trained(seed: int) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each relation that training prompts are drawn from: all but the held out."""
    out = held_out(seed)
    return {
        name: tuple(pair for pair in entry.pairs if pair not in set(out[name]))
        for name, entry in relations().items()
    }
