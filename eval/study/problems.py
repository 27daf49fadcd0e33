"""What the arms are trained on and prompted with, split so that no prompt was trained on.

Cost: none; texts are made on demand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, OptionError
from ed_interp.eval.study.options import StudyOptions
from ed_interp.prompts.tasks import LabelledTask, ListTask, MixedTask, Task, TextTask, most_shots

if TYPE_CHECKING:
    from ed_interp.adapters.training import Example

SESSION = 4
"""Pairs of the longest training session."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task to train on and to be prompted with."""

    name: str
    about: str
    examples: tuple[Example, ...]
    """To train on; the trainer holds a share of them out to choose learning rates by."""
    on: LabelledTask | MixedTask | ListTask
    """The task of the prompts: other inputs than those of the examples."""
    known: LabelledTask | None
    """The pairs of the examples: for choices of an arm that is not trained."""
    shots: tuple[int, ...]
    data: dict[str, Any]
    """How the split was made, for the record."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the pairs: a file may change between two runs."""
        return hashlib.sha256(repr((self.on, self.known)).encode()).hexdigest()[:16]


def make_problem(task: Task, options: StudyOptions) -> Problem:
    """The problem of a task: split if it is a single relation, else only to be prompted with.

    An example is a session of 1 to :data:`SESSION` pairs in a row, with the loss on every answer,
    so that what reads along the sequence is trained at the lengths it is prompted at.

    Raises:
        InvalidInputError: a task without answers to compare, too few pairs to split, or an arm
            that would have to be trained on a task that is not a single relation.
    """
    if isinstance(task, TextTask):
        raise OptionError("task", "must have pairs, got running text; name a task with pairs")
    if not isinstance(task, LabelledTask):
        return _prompted(task, options)
    # Split by input: an input with two outputs would otherwise be trained on and prompted with.
    inputs, share = sorted({input for input, _ in task.pairs}), options.held_out
    count = min(len(inputs), max(2, round(share * len(inputs))))
    held_out = set(random.Random(options.seed).sample(inputs, count))
    kept = tuple(pair for pair in task.pairs if pair[0] not in held_out)
    # Fewer leave nothing to hold out from training by which a learning rate could be chosen.
    if len(kept) < 4:
        raise InvalidInputError(
            f"task {task.name!r} must have 8 pairs or more, got {len(task.pairs)}, of which "
            f"{len(kept)} are left to train on"
        )
    on = dataclasses.replace(task, pairs=tuple(p for p in task.pairs if p[0] in held_out))
    return Problem(
        name=task.name,
        about=f"answer {task.name} at once, on inputs that were not trained on",
        examples=_sessions(kept, task.template.text, options.seed),
        on=on,
        known=dataclasses.replace(task, pairs=kept),
        # Demonstrations come from the held-out pairs too, of which there may be few.
        shots=tuple(count for count in options.shots if count <= most_shots(on)),
        data={"trained": len(kept), "asked": len(on.pairs), "seed": options.seed,
              "held_out": share, "session": SESSION},
    )  # fmt: skip


def _prompted(task: MixedTask | ListTask, options: StudyOptions) -> Problem:
    if isinstance(task, ListTask) and options.arm(options.tested).method == "direction":
        why = f"by their loss the length of {options.tested!r} is chosen; name a relation"
        raise OptionError("task", f"must have answers, got {task.name!r}: {why}")
    trained = [arm.name for arm in options.arms() if arm.trained]
    if trained:
        why = f"{', '.join(trained)} would have to be trained to answer it"
        hint = "name one of its relations, or arms that are not trained"
        raise OptionError("task", f"must be a single relation, got {task.name!r}: {why}; {hint}")
    least = 1 if isinstance(task, ListTask) else 0
    shots = tuple(count for count in options.shots if least <= count <= most_shots(task))
    data = {"asked": "all of the task"}
    return Problem(task.name, f"answer {task.name}", (), task, None, shots, data)


def _sessions(pairs: Sequence[tuple[str, str]], template: str, seed: int) -> tuple[Example, ...]:
    """Every pair opens one session, and random others follow it."""
    from ed_interp.adapters.training import Example, examples_of_pairs

    turns = [example.turns[0] for example in examples_of_pairs(pairs, template=template)]
    rng = random.Random(seed)
    examples = []
    for place, first in enumerate(turns):
        others = [turn for index, turn in enumerate(turns) if index != place]
        # Lengths take turns, so that every length is trained equally often.
        rest = rng.sample(others, min(place % SESSION, len(others)))
        examples.append(Example((first, *rest)))
    return tuple(examples)
