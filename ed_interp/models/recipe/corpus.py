"""The training documents: prompts with demonstrations, plain text, repeats and lists.

A document is a tuple of ``(text, trained)`` segments; the loss falls on the trained segments
only. Segments meet at pre-token boundaries, so tokenizing them one by one gives the tokens of
the whole (tested).

- ``icl``: ``France -> Paris\\nJapan -> Tokyo\\n...``. Loss on the answers alone: with the loss on
  every token the unpredictable inputs drown the answers, and the relation is not learnt.
- ``plain``: fact sentences and stories, loss on all tokens.
- ``repeat``: a random sequence of words several times over, loss from the second copy on. It can
  only be predicted by looking back for the token that followed last time: an induction head.
- ``walk``: a ring of words followed in pieces from random places, loss where the predecessor has
  been met before. It needs an induction head too, and teaches it faster among few words.
- ``listing``: ``France,Mexico,Russia,`` without repetition, loss on all tokens.

Everything is a function of the seed and the order of calls.
"""

import random

from ed_interp.models.recipe.tables import lists, relations, trained
from ed_interp.models.recipe.text import LABELS, sentences, story

Segment = tuple[str, bool]
Document = tuple[Segment, ...]

ARROW = " ->"
END = "\n"
HEADED = 0.25


def demonstration(source: str, target: str) -> tuple[Segment, Segment]:
    """One demonstration, ``France -> Paris\\n``; the loss falls on the answer and its line end."""
    return (source + ARROW, False), (f" {target}{END}", True)


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
        words = {w for entry in relations().values() for i, o in entry.pairs for w in (i, o)}
        self._words = sorted(w for w in words if " " not in w)
        self._walked = random.Random(f"walk {seed}").sample(self._words, len(self._words))

    def icl(self, *, pairs: int) -> Document:
        """A prompt of ``pairs`` demonstrations of one relation; the relation drawn uniformly.

        Beyond the number of trained pairs the relation starts over in a fresh order. Phrases
        take twice the tokens of a word, so their prompts hold half the pairs.
        """
        name = self.rng.choice(self._names)
        known = self.trained[name]
        if relations()[name].group == "phrase":
            pairs = max(1, pairs // 2)
        order: list[tuple[str, str]] = []
        while len(order) < pairs:
            order += self.rng.sample(known, len(known))
        segments = [seg for pair in order[:pairs] for seg in demonstration(*pair)]
        if self.rng.random() < HEADED:
            return ((f"{LABELS[name]} :\n", False), *segments)
        # Nothing before the first answer tells the relation; trained on, it would only teach
        # which pairs are held out.
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
        """``length`` random words, ``copies`` times over."""
        unit = "".join(" " + w for w in self.rng.choices(self._words, k=length))
        return ((unit, False), (unit * (copies - 1), True))

    @property
    def vocabulary(self) -> int:
        """Number of words that repeats and walks are made of."""
        return len(self._words)

    def walk(self, *, vocabulary: int, distinct: int, length: int) -> Document:
        """A walk around a ring of ``distinct`` words, of the first ``vocabulary`` ones.

        It follows the ring for a while, jumps to a random word of it and goes on, so that a word
        can be predicted once its predecessor has been seen before, wherever that was; the loss is
        on these. Unlike in a repeat, no fixed distance back tells the answer.
        """
        ring = self.rng.sample(self._walked[:vocabulary], distinct)
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
        """Entities of one list in random order, each once and followed by a comma."""
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
    """The text the tokenizer is trained on: plain text, and each table word in both its forms.

    The words are repeated so that each outweighs the pieces of invented names, and so becomes
    one token with and without a leading space.
    """
    corpus = Corpus(seed=seed, stream="tokenizer")
    words = {
        w for entry in relations().values() for pair in entry.pairs for s in pair for w in s.split()
    }
    words |= {entity for entities in lists().values() for entity in entities}
    inputs = {i.split()[0] for entry in relations().values() for i, _ in entry.pairs}
    inputs |= {entity for entities in lists().values() for entity in entities}
    forms = sorted(inputs) + [f" {word}" for word in sorted(words)]
    return forms * 50 + [join(corpus.plain(parts=8)) for _ in range(400)]
