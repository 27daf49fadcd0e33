"""In-context prompts of a task with and without the task in them, as token ids."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, Literal

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.population import Population, draw
from ed_interp.prompts.tasks import LabelledTask, as_task
from ed_interp.prompts.tokens import ShotTokens, tokenize

Corrupted = Literal["zero_shot", "shuffled"]


def labelled(task: Any) -> LabelledTask:
    """The labelled task that ``task`` (a name, an object or pairs) is.

    Raises:
        InvalidInputError: it is a list, text, or a mixture of tasks.
        UnknownNameError: no such built-in task.
    """
    named = as_task(task)
    if not isinstance(named, LabelledTask):
        raise InvalidInputError(
            f"{named.name!r} is a {type(named).__name__}; a function vector belongs to one task "
            "with inputs and outputs"
        )
    return named


def demonstrated(
    task: LabelledTask, tokenizer: Any, *, shots: int, prompts: int, seed: int
) -> list[ShotTokens]:
    """Prompts with ``shots`` demonstrations before a query, the answer's first token kept.

    Raises:
        InvalidInputError: more shots than the task has, or no tokenizer.
    """
    return _tokens(draw(task, prompts=prompts, shots=(shots,), seed=seed), tokenizer)


def corrupted_prompts(
    task: LabelledTask, tokenizer: Any, *, kind: Corrupted, shots: int, prompts: int, seed: int
) -> list[ShotTokens]:
    """Prompts from which the task cannot be inferred, with the right answers.

    ``zero_shot``: the query alone. ``shuffled`` (Todd et al. 2024): demonstrations whose outputs
    were redistributed among the inputs.
    """
    if kind == "zero_shot":
        return demonstrated(task, tokenizer, shots=0, prompts=prompts, seed=seed)
    if kind != "shuffled":
        raise InvalidInputError(f"corrupted must be zero_shot or shuffled, got {kind!r}")
    outputs = [output for _, output in task.pairs]
    random.Random(seed).shuffle(outputs)
    inputs = [input for input, _ in task.pairs]
    dealt = dataclasses.replace(task, pairs=tuple(zip(inputs, outputs, strict=True)))
    population = draw(dealt, prompts=prompts, shots=(shots,), seed=seed)
    # The prompts are drawn from the shuffled pairs, so their own answers are shuffled too.
    right = {
        task.template.query(input): task.template.answer(output) for input, output in task.pairs
    }
    answered = tuple(
        dataclasses.replace(prompt, answer=right[prompt.query or ""])
        for prompt in population.prompts
    )
    return _tokens(dataclasses.replace(population, prompts=answered), tokenizer)


def _tokens(population: Population, tokenizer: Any) -> list[ShotTokens]:
    prompts = tokenize(population, tokenizer).prompts
    return [dataclasses.replace(prompt, answer=prompt.answer[:1]) for prompt in prompts]
