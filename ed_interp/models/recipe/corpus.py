"""The training documents: prompts with demonstrations, plain text, repeats and lists.

A document is a tuple of ``(text, trained)`` segments; the loss is on the trained segments only.
Segments meet at pre-token boundaries, so tokenizing them one by one gives the tokens of the whole
(tested).

- ``icl``: ``France -> Paris\\nJapan -> Tokyo\\n...``, loss on the answers only.
- ``plain``: fact sentences and stories, loss on all tokens. The sentences state every fact, of the
  held-out pairs too: a model learns about words from them, and what to do with a prompt from the
  prompts. Some sentences (one fact in one template) are kept out of training, to measure how well
  unseen text is modelled.
- ``repeat``: several copies of a random sequence of words, loss from the second copy on. To
  predict it, look for the earlier copy of the token and what followed: an induction head.
- ``walk``: a ring of words followed in pieces from random places, loss where the word before
  occurred earlier. It needs an induction head too, and few words teach it faster.
- ``listing``: ``France,Mexico,Russia,`` without repetition, loss on all tokens.

Everything is a function of the seed and the order of calls.
"""

import itertools
import random
from functools import cache

from ed_interp.models.recipe.tables import lists, relations, trained, words

Segment = tuple[str, bool]
Document = tuple[Segment, ...]

ARROW = " ->"
END = "\n"
# The share of prompts that begin with the name of their relation.
HEADED = 0.25

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


def prompt(demonstrations: list[tuple[str, str]], query: str) -> str:
    """The text that asks for the answer to ``query`` after ``demonstrations``."""
    return "".join(f"{i}{ARROW} {o}{END}" for i, o in demonstrations) + query + ARROW


def join(document: Document) -> str:
    """The text of a document."""
    return "".join(text for text, _ in document)


class Corpus:
    """An endless, seeded source of training documents."""

    def __init__(self, *, seed: int, stream: str = "train") -> None:
        """``stream`` names an independent sequence of draws under the same held-out split."""
        self.seed = seed
        self.rng = random.Random(f"corpus {seed} {stream}")
        self.trained = trained(seed)
        self.sentences = sentences(seed, kept=True)
        self._names = list(relations())
        self.words = words()
        # Walks begin among the first words of this order, which differs from seed to seed.
        self._walked = random.Random(f"walk {seed}").sample(self.words, len(self.words))

    def icl(self, *, pairs: int) -> Document:
        """A prompt of ``pairs`` demonstrations of one relation, drawn uniformly."""
        name = self.rng.choice(self._names)
        known, relation = self.trained[name], relations()[name]
        # Phrases take twice the tokens of a word.
        if relation.group == "phrase":
            pairs = max(1, pairs // 2)
        order: list[tuple[str, str]] = []
        # Beyond the number of trained pairs they start over in a new order.
        while len(order) < pairs:
            order += self.rng.sample(known, len(known))
        segments: list[Segment] = []
        for source, target in order[:pairs]:
            # The loss is on the answer and its line break. On every token the unpredictable inputs
            # would outweigh the answers, and the relation would not be learnt.
            segments += [(source + ARROW, False), (f" {target}{END}", True)]
        if self.rng.random() < HEADED:
            return ((f"{relation.label} :\n", False), *segments)
        # Nothing before the first answer shows the relation. A loss on it would only teach which
        # pairs are held out.
        segments[1] = (segments[1][0], False)
        return tuple(segments)

    def plain(self, *, parts: int) -> Document:
        """``parts`` lines of plain text, each a fact sentence or (one in six) a story."""
        lines = [
            story(self.rng)
            if self.rng.random() < 1 / 6
            else self.rng.choice(self.sentences[self.rng.choice(self._names)])
            for _ in range(parts)
        ]
        return ((END.join(lines) + END, True),)

    def repeat(self, *, length: int, copies: int) -> Document:
        """``length`` random words, ``copies`` times."""
        unit = "".join(" " + w for w in self.rng.choices(self.words, k=length))
        return ((unit, False), (unit * (copies - 1), True))

    def walk(self, *, vocabulary: int, distinct: int, length: int) -> Document:
        """A walk along a ring of ``distinct`` of the first ``vocabulary`` words, with jumps."""
        # The loss is on words whose predecessor occurred before, wherever that was: unlike in a
        # repeat, the answer is at no fixed distance.
        ring = self.rng.sample(self._walked[:vocabulary], distinct)
        # `left` steps until the next jump; `met` are the places whose successor was shown.
        place, left, met = self.rng.randrange(distinct), 0, set[int]()
        segments: list[Segment] = []
        for _ in range(length):
            if left:
                known = place in met
                met.add(place)
                place, left = (place + 1) % distinct, left - 1
            else:
                known = False
                place, left = self.rng.randrange(distinct), self.rng.randint(2, 2 * distinct)
            segments.append((f" {ring[place]}", known))
        return tuple(segments)

    def listing(self) -> Document:
        """Entities of one list in random order, each once, with a comma behind it."""
        entities = self.rng.choice(list(lists().values()))
        chosen = self.rng.sample(entities, self.rng.randint(4, len(entities)))
        return (("".join(f"{entity}," for entity in chosen), True),)

    def held_out_text(self, *, documents: int) -> list[str]:
        """Plain text whose fact sentences were never trained on, two stories in each document."""
        unseen = [s for group in sentences(self.seed, kept=False).values() for s in group]
        return [
            END.join([*self.rng.sample(unseen, 6), story(self.rng), story(self.rng)]) + END
            for _ in range(documents)
        ]


def tokenizer_text(*, seed: int) -> list[str]:
    """The text the tokenizer is trained on: plain text, and each table word in both its forms."""
    corpus = Corpus(seed=seed, stream="tokenizer")
    pairs = [pair for entry in relations().values() for pair in entry.pairs]
    entities = {entity for named in lists().values() for entity in named}
    # What can begin a line has no space before it; every word can stand behind one.
    first = entities | {source.split()[0] for source, _ in pairs}
    every = entities | {word for pair in pairs for text in pair for word in text.split()}
    forms = sorted(first) + [f" {word}" for word in sorted(every)]
    # Repeated, so that each outweighs the pieces of invented names and becomes one token.
    return forms * 50 + [join(corpus.plain(parts=8)) for _ in range(400)]
