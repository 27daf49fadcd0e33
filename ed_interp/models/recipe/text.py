"""The grammar of the plain text: sentences that state the facts, and small stories.

The sentences state every fact, of the held-out pairs too: a model learns about words from them, and
what to do with a prompt from the training prompts. Some sentences (one fact in one template) are
kept out of training, to measure how well unseen text is modelled.
"""

import itertools
import random
from functools import cache

from ed_interp.models.recipe.tables import relations

# What each relation is called in a sentence.
LABELS = {name: entry.label for name, entry in relations().items()}

COMMON = (
    "{i} : {label} {o} .",
    "{label} of {i} : {o} .",
    "the {label} of {i} is {o} .",
    "{i} has the {label} {o} .",
    "{i} and its {label} , {o} .",
    "what is the {label} of {i} ? it is {o} .",
    "we say that {o} is the {label} of {i} .",
)

# Facts with the arrow and the relation's name, of the held-out pairs too. A labelled line needs no
# demonstration, so it is not a prompt that trains a held-out pair; it teaches that the word after
# an arrow follows from the relation and the word before it, however the relation is known.
LABELLED = ("{label} :\n{i} -> {o}", "{label} : {i} -> {o}")

HELD_OUT_SENTENCES = 0.05

_SYLLABLES = "ba do ki lu me no pa ri so tu va ze mo la ni fe".split()  # noqa: SIM905
_PLACES = ["forest", "village", "river", "harbour", "market", "castle", "garden", "hill"]
_THINGS = ["lamp", "kite", "ring", "basket", "letter", "coin", "map", "bell", "mirror", "rope"]
_COLOURS = ["red", "blue", "green", "yellow", "white", "brown", "golden", "grey"]
_DAYS = ["one morning", "late one night", "in the winter", "after the rain", "on a warm day"]
_STORIES = (
    "{day} {name} found a {colour} {thing} near the {place} . {name} showed the {colour} {thing} "
    "to {friend} . {friend} told {name} to keep the {thing} . so {name} and {friend} went back to "
    "the {place} .",
    "there was a child named {name} who lived by the {place} . {name} had a friend named "
    "{friend} . {day} {friend} gave {name} a {thing} . the {thing} was {colour} , and {name} "
    "was happy .",
    "{friend} lost a {thing} in the {place} . {day} {friend} asked {name} for help . {name} looked "
    "and {name} found it : a {colour} {thing} . {friend} thanked {name} .",
)


@cache
def sentences(seed: int, *, kept: bool) -> dict[str, tuple[str, ...]]:
    """All sentences by relation: those trained on (``kept``), or those held out."""
    chosen: dict[str, tuple[str, ...]] = {}
    for name, entry in relations().items():
        # The labelled ones twice, so that they are drawn twice as often.
        templates = COMMON + LABELLED * 2 + entry.sentences
        cells = itertools.product(entry.pairs, templates)
        every = (text.format(i=pair[0], o=pair[1], label=entry.label) for pair, text in cells)
        # Split by the text alone, so that adding a relation does not change that of the others.
        rolls = ((random.Random(f"sentence {seed} {text}").random(), text) for text in every)
        chosen[name] = tuple(text for roll, text in rolls if (roll >= HELD_OUT_SENTENCES) == kept)
    return chosen


def _invented_name(rng: random.Random) -> str:
    """A name outside the tables, of two or three syllables: mostly several tokens long."""
    return "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3)))).capitalize()


def story(rng: random.Random) -> str:
    """A small story that repeats its names, thing and place, so that copying helps."""
    text, day = rng.choice(_STORIES), rng.choice(_DAYS)
    name, friend = _invented_name(rng), _invented_name(rng)
    colour, thing, place = (rng.choice(words) for words in (_COLOURS, _THINGS, _PLACES))
    return text.format(day=day, name=name, friend=friend, colour=colour, thing=thing, place=place)
