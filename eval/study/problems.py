"""What the arms are trained on and asked: two tasks, split so that nothing asked was trained on.

Cost: none; texts are made when asked for.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.tasks import (
    LabelledTask,
    ListTask,
    MixedTask,
    Task,
    TextTask,
    builtin_task,
    most_shots,
)

if TYPE_CHECKING:
    from ed_interp.adapters.training import Example


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task to train on and to be asked."""

    name: str
    about: str
    examples: tuple[Example, ...]
    """To train on; the trainer holds a share of them out to choose learning rates by."""
    on: LabelledTask | MixedTask | ListTask
    """What is asked: other inputs than those of the examples."""
    known: LabelledTask | None
    """What the examples were made of: where something is chosen that is not trained."""
    shots: tuple[int, ...]
    data: dict[str, Any]
    """How the split was made, for the record."""


SHOTS = (0, 1, 2, 4)


def question(task: str | Task, *, shots: tuple[int, ...] = SHOTS) -> Problem:
    """A task that is only asked: nothing can be trained for it here."""
    found = builtin_task(task) if isinstance(task, str) else task
    if isinstance(found, TextTask):
        raise InvalidInputError("running text has no answers to compare; name a task with pairs")
    least = 1 if isinstance(found, ListTask) else 0
    counts = tuple(count for count in shots if least <= count <= most_shots(found))
    about = f"answer {found.name}"
    return Problem(found.name, about, (), found, None, counts, {"asked": "all of the task"})


def relation_problem(
    task: str | LabelledTask,
    *,
    held_out: float = 0.3,
    session: int = 4,
    seed: int = 0,
    shots: tuple[int, ...] = SHOTS,
) -> Problem:
    """Make the model answer one relation at once, without being shown which it is.

    An example is a session of 1 to ``session`` pairs in a row, with the loss on every answer, so
    that what reads along the sequence is trained at the lengths it is asked at.

    Args:
        task: A labelled task, or the name of one.
        held_out: Share of the inputs that is asked and not trained on.
        session: Pairs of the longest training session.
        seed: Of the split and the sessions.
        shots: Shot counts to ask at, as far as the held-out pairs go.

    Raises:
        InvalidInputError: a task of another kind, or too few pairs to split.
    """
    found = builtin_task(task) if isinstance(task, str) else task
    if not isinstance(found, LabelledTask):
        raise InvalidInputError(
            f"task {found.name!r} is no single relation, so an adapter has nothing to be trained "
            "to answer; name one of its relations"
        )
    if not 0 < held_out < 1:
        raise InvalidInputError(f"held_out={held_out}: a share between 0 and 1 is expected")
    inputs = sorted({input for input, _ in found.pairs})
    asked = set(random.Random(seed).sample(inputs, max(2, round(held_out * len(inputs)))))
    kept = [pair for pair in found.pairs if pair[0] not in asked]
    if len(kept) < 4:
        raise InvalidInputError(
            f"task {found.name!r} has {len(found.pairs)} pairs, of which {len(kept)} are left to "
            "train on; give at least 8 pairs"
        )
    if session < 1:
        raise InvalidInputError(f"session={session}: a session has at least 1 pair")
    on = dataclasses.replace(found, pairs=tuple(p for p in found.pairs if p[0] in asked))
    counts = tuple(count for count in shots if count <= most_shots(on))
    return Problem(
        name=found.name,
        about=f"answer {found.name} at once, on inputs that were not trained on",
        examples=_sessions(kept, found.template.text, session, seed),
        on=on,
        known=dataclasses.replace(found, pairs=tuple(kept)),
        shots=counts,
        data={
            "trained": len(kept),
            "asked": len(on.pairs),
            "seed": seed,
            "held_out": held_out,
            "session": session,
        },
    )


def _sessions(
    pairs: Sequence[tuple[str, str]], template: str, longest: int, seed: int
) -> tuple[Example, ...]:
    """Every pair opens one session, and random others follow it."""
    from ed_interp.adapters.training import Example, examples_of_pairs

    turns = [example.turns[0] for example in examples_of_pairs(pairs, template=template)]
    rng = random.Random(seed)
    found = []
    for place, first in enumerate(turns):
        others = [turn for index, turn in enumerate(turns) if index != place]
        length = place % longest
        found.append(Example((first, *rng.sample(others, min(length, len(others))))))
    return tuple(found)
