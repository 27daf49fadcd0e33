"""A rule announced early governs later answers, beyond what the model can see.

Three relations over the same countries (to capital, continent, language) are the rules. A session
draws a rule and distinct countries. The first is shown with its answer by the rule
(``France -> Paris``), which announces the rule; the model must answer for the others by the same
rule. No query says which rule it is, and no country occurs twice, so without a memory of the
announcement the best answer is right one time in three.

- **turns**: the announcement and every query are separate calls. Nothing of a call is in the
  context of the next; only a state that outlives the call can carry the rule. Queries before the
  last get no answer, so none of them reveals the rule again: with k queries it must survive k
  calls.
- **distance**: announcement, filler and one query are one sequence, for a model whose layers all
  attend to the last ``window`` tokens only. Through L layers a position can be reached from at most
  ``L (window - 1)`` tokens back (:func:`reach`); the filler is longer. It is phrases of the task
  ``sentiment``, which name no country.

Rules take turns, so every rule is equally frequent. :func:`split_words` keeps the countries of
training, validation and test apart, so that the rule is tested and not the country. Use::

    words = split_words(seed=0)
    sessions = draw_sessions(64, words=words["test"], queries=3, seed=1)
    examples = [turns_of(session) for session in sessions]      # for training with carry=True

Cost: microseconds a session.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from ed_interp.adapters.training.data import Example, Part, Turn, examples_of_pairs
from ed_interp.errors import InvalidInputError
from ed_interp.prompts.tasks import LabelledTask, builtin_task

RULES = ("country-capital", "country-continent", "country-language")
CHANCE = 1 / len(RULES)
SPLITS = ("training", "validation", "test")

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """One announcement and the queries that it governs."""

    rule: str
    announcement: Pair
    """A country and its answer by the rule."""
    queries: tuple[Pair, ...]
    """Countries with the answers by the rule."""


def rule_answers() -> dict[str, dict[str, str]]:
    """Rule -> country -> answer, for the countries whose answers differ between all rules."""
    tables = {rule: dict(_pairs(rule)) for rule in RULES}
    words = [word for word in tables[RULES[0]] if all(word in table for table in tables.values())]
    # Two rules with the same answer (Singapore's capital) would not show which of them governs.
    clear = [w for w in words if len({table[w] for table in tables.values()}) == len(RULES)]
    return {rule: {word: table[word] for word in clear} for rule, table in tables.items()}


def split_words(*, seed: int) -> dict[str, tuple[str, ...]]:
    """Countries for training (half), validation (a quarter) and test (the rest), disjoint."""
    words = sorted(rule_answers()[RULES[0]])
    random.Random(seed).shuffle(words)
    half, quarter = len(words) // 2, len(words) // 4
    parts = (words[:half], words[half : half + quarter], words[half + quarter :])
    return {name: tuple(part) for name, part in zip(SPLITS, parts, strict=True)}


def draw_sessions(
    count: int, *, words: Sequence[str], queries: int, seed: int
) -> tuple[Session, ...]:
    """Sessions over ``words``, the rules in turn.

    Raises:
        InvalidInputError: fewer than one query, or fewer words than a session needs.
    """
    if queries < 1 or len(words) < queries + 1:
        raise InvalidInputError(
            f"queries must be 1 or more and fewer than the words, got {queries} queries and "
            f"{len(words)} words: the announcement takes one too"
        )
    tables, rng = rule_answers(), random.Random(seed)
    sessions = []
    for number in range(count):
        rule = RULES[number % len(RULES)]
        first, *rest = rng.sample(list(words), queries + 1)
        table = tables[rule]
        answers = tuple((word, table[word]) for word in rest)
        sessions.append(Session(rule, (first, table[first]), answers))
    return tuple(sessions)


def turns_of(session: Session) -> Example:
    """The announcement and every query, each a turn; only the last query has an answer (and loss).

    A query without answer is its text up to the answer (``Spain ->``).
    """
    announcement, *queries = _written(session)
    # A turn is (query, answer); without its answer nothing reveals the rule again.
    unanswered = tuple((turn[0],) for turn in queries[:-1])
    return Example((_without_loss(announcement), *unanswered, queries[-1]))


def context_of(session: Session, query: int) -> Example:
    """Announcement and one query in one sequence: the upper bound for any memory."""
    announcement, *queries = _written(session)
    return Example(((*_without_loss(announcement), *queries[query]),))


def distance_of(session: Session, *, phrases: int, seed: int) -> Example:
    """Announcement, a number of phrases of filler, and the first query, in one sequence."""
    announcement, query, *_ = _written(session)
    rng, pairs = random.Random(seed), _pairs("sentiment")
    filler = tuple(Part(f"{rng.choice(pairs)[0]}\n", False) for _ in range(phrases))
    return Example(((*_without_loss(announcement), *filler, *query),))


def reach(layers: int, window: int) -> int:
    """Tokens back from which a position can be reached through sliding windows.

    A window holds the position itself and ``window - 1`` before it, in each layer.
    """
    return layers * (window - 1)


def _pairs(name: str) -> Sequence[Pair]:
    task = builtin_task(name)
    assert isinstance(task, LabelledTask)
    return task.pairs


def _written(session: Session) -> tuple[Turn, ...]:
    made = examples_of_pairs([session.announcement, *session.queries])
    return tuple(example.turns[0] for example in made)


def _without_loss(turn: Turn) -> Turn:
    return tuple(Part(part.text, False) for part in turn)
