"""The grammar of the plain text: sentences that state the facts, and small stories.

The sentences carry every fact, those of the held-out pairs too: what a model knows about a word
comes from here, and what it does with a prompt comes from the training prompts. Some sentences
(one fact in one template) are kept out of training, to measure how well unseen text is modelled.
"""

import random
from functools import cache

from ed_interp.models.recipe.tables import Relation, relations

LABELS: dict[str, str] = {
    "country-capital": "capital",
    "country-continent": "continent",
    "country-language": "language",
    "country-nationality": "nationality",
    "adjective-opposite": "opposite",
    "adjective-comparative": "comparative",
    "adjective-superlative": "superlative",
    "singular-plural": "plural",
    "item-category": "kind",
    "noun-french": "French word",
    "noun-spanish": "Spanish word",
    "present-past": "past tense",
    "present-gerund": "gerund",
    "present-third": "third person",
    "next-letter": "next letter",
    "previous-letter": "previous letter",
    "letter-uppercase": "capital letter",
    "next-number": "next number",
    "previous-number": "previous number",
    "number-digit": "numeral",
    "number-ordinal": "ordinal",
    "sentiment": "feeling",
    "phrase-subject": "subject",
    "phrase-adjective": "adjective",
}
"""What each relation is called in a sentence."""

COMMON = (
    "{i} : {label} {o} .",
    "{label} of {i} : {o} .",
    "the {label} of {i} is {o} .",
    "{i} has the {label} {o} .",
    "{i} and its {label} , {o} .",
    "what is the {label} of {i} ? it is {o} .",
    "we say that {o} is the {label} of {i} .",
)

LABELLED = ("{label} :\n{i} -> {o}", "{label} : {i} -> {o}")
"""Facts written with the arrow, the relation named. They carry the held-out pairs too: a labelled
line can be read without any demonstration, and so is no training prompt of that kind; it teaches
that what follows an arrow is found from the relation and the word, however the relation is known.
"""

OWN: dict[str, tuple[str, ...]] = {
    "country-capital": ("if you visit {i} you will land in {o} .", "{i} is ruled from {o} ."),
    "country-continent": ("{i} lies in {o} .", "to see {i} you must travel to {o} ."),
    "country-language": ("people in {i} speak {o} .", "{i} sings in {o} ."),
    "country-nationality": ("a person from {i} is {o} .", "{i} is proud of all things {o} ."),
    "adjective-opposite": ("what is not {i} is {o} .", "{i} is far from {o} ."),
    "adjective-comparative": ("this is {i} but that is {o} .", "{i} now and soon {o} ."),
    "adjective-superlative": ("all are {i} but one is the {o} .", "{i} , and of all the {o} ."),
    "singular-plural": ("one {i} , two {o} .", "{i} here and many {o} there ."),
    "item-category": ("a {i} is a sort of {o} .", "{i} belongs with {o} things ."),
    "noun-french": ("in Paris they call a {i} {o} .", "{i} in French is {o} ."),
    "noun-spanish": ("in Madrid they call a {i} {o} .", "{i} in Spanish is {o} ."),
    "present-past": ("today we {i} , yesterday we {o} .", "{i} now , but then we {o} ."),
    "present-gerund": ("they {i} and are still {o} .", "{i} on , keep {o} ."),
    "present-third": ("i {i} and she {o} .", "{i} as she {o} ."),
    "next-letter": ("after {i} comes {o} .", "{i} then {o} ."),
    "previous-letter": ("before {i} comes {o} .", "{i} follows {o} ."),
    "letter-uppercase": ("{i} is written large as {o} .", "{i} at the start becomes {o} ."),
    "next-number": ("after {i} comes {o} .", "{i} then {o} ."),
    "previous-number": ("before {i} comes {o} .", "{i} follows {o} ."),
    "number-digit": ("{i} is written {o} .", "{i} in digits is {o} ."),
    "number-ordinal": ("number {i} is the {o} .", "{i} in a row : the {o} ."),
    "sentiment": ("{i} , so the mood is {o} .",),
    "phrase-subject": ("{i} , and it speaks of the {o} .",),
    "phrase-adjective": ("{i} , and the word for it is {o} .",),
}

HELD_OUT_SENTENCES = 0.05

_SYLLABLES = [
    "ba",
    "do",
    "ki",
    "lu",
    "me",
    "no",
    "pa",
    "ri",
    "so",
    "tu",
    "va",
    "ze",
    "mo",
    "la",
    "ni",
    "fe",
]
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


def templates(name: str) -> tuple[str, ...]:
    """Every sentence template of a relation, with ``{i}``, ``{o}`` and ``{label}`` in it.

    The labelled ones stand in it twice, and so are drawn twice as often.
    """
    return COMMON + LABELLED * 2 + OWN[name]


def sentence(entry: Relation, pair: tuple[str, str], template: str) -> str:
    """The sentence that states ``pair`` in ``template``."""
    return template.format(i=pair[0], o=pair[1], label=LABELS[entry.name])


def sentence_is_held_out(seed: int, text: str) -> bool:
    """Whether ``text`` is one of the sentences kept out of training (about one in twenty)."""
    return random.Random(f"sentence {seed} {text}").random() < HELD_OUT_SENTENCES


@cache
def sentences(seed: int, *, kept: bool) -> dict[str, tuple[str, ...]]:
    """All sentences by relation: those trained on (``kept``), or those held out."""
    found: dict[str, tuple[str, ...]] = {}
    for name, entry in relations().items():
        every = (
            sentence(entry, pair, template) for pair in entry.pairs for template in templates(name)
        )
        found[name] = tuple(s for s in every if sentence_is_held_out(seed, s) != kept)
    return found


def invented_name(rng: random.Random) -> str:
    """A name that no table holds, of two or three syllables: mostly several tokens long."""
    return "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3)))).capitalize()


def story(rng: random.Random) -> str:
    """A small story whose names, thing and place come back: text that rewards copying."""
    return rng.choice(_STORIES).format(
        day=rng.choice(_DAYS),
        name=invented_name(rng),
        friend=invented_name(rng),
        colour=rng.choice(_COLOURS),
        thing=rng.choice(_THINGS),
        place=rng.choice(_PLACES),
    )
