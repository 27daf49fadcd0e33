"""Tasks: what prompts are drawn from, and the built-in ones by name. Imports nothing heavy."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.prompts.template import Template


@dataclasses.dataclass(frozen=True)
class ListTask:
    """Ordered selections without repetition, ``France,Mexico,Russia,``: no query, no answer.

    A shot is one entity and a comma, as in the emergence paper (arXiv 2405.12617).
    """

    name: str
    entities: tuple[str, ...]
    description: str = ""
    separator: str = ","

    def __post_init__(self) -> None:
        if len(set(self.entities)) != len(self.entities) or len(self.entities) < 2:
            raise InvalidInputError(
                f"list task {self.name!r} needs at least 2 entities, all different; "
                f"found {len(self.entities)}, {len(set(self.entities))} different"
            )


@dataclasses.dataclass(frozen=True)
class LabelledTask:
    """Pairs of input and output, shown as demonstrations before a query."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    description: str = ""
    template: Template = dataclasses.field(default_factory=Template)

    def __post_init__(self) -> None:
        if len(self.pairs) < 2:
            raise InvalidInputError(
                f"task {self.name!r} has {len(self.pairs)} usable pair(s); at least 2 are needed, "
                "one to ask and one to show"
            )
        for row, (input, output) in enumerate(self.pairs, 1):
            if not input.strip() or not output.strip():
                empty = "input" if not input.strip() else "output"
                raise InvalidInputError(
                    f"task {self.name!r}, pair {row}: the {empty} is empty; remove the pair"
                )

    @property
    def answers(self) -> collections.Counter[str]:
        """How many pairs have each output."""
        return collections.Counter(output for _, output in self.pairs)


@dataclasses.dataclass(frozen=True)
class TextTask:
    """Windows of running text; a shot is one token."""

    name: str
    texts: tuple[str, ...]
    window: int = 16
    """Length of a window in tokens."""
    description: str = ""

    def __post_init__(self) -> None:
        if not any(text.strip() for text in self.texts):
            raise InvalidInputError(f"text task {self.name!r} holds no text")
        if self.window < 1:
            raise InvalidInputError(f"window={self.window}: a window has at least 1 token")


Task = ListTask | LabelledTask | TextTask


@functools.cache
def _data(file: str) -> dict[str, Any]:
    text = resources.files("ed_interp.prompts").joinpath("data", file).read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def task_names() -> list[str]:
    """Names of the built-in tasks: relations and sentiment first, then lists."""
    return [*_data("relations.json"), *_data("lists.json")]


def builtin_task(name: str, *, template: str | None = None) -> ListTask | LabelledTask:
    """A built-in task by name.

    Args:
        name: One of :func:`task_names`.
        template: Instead of the default one; labelled tasks only.

    Raises:
        UnknownNameError: no such task; the nearest names are listed.
        InvalidInputError: a template for a list, or one without its two places.
    """
    if name not in task_names():
        raise unknown("task", name, task_names())
    if name in _data("relations.json"):
        entry = _data("relations.json")[name]
        pairs = tuple((str(input), str(output)) for input, output in entry["pairs"])
        shape = Template(template) if template is not None else Template()
        return LabelledTask(name, pairs, entry["description"], shape)
    if template is not None:
        raise InvalidInputError(f"task {name!r} is a list and takes no template")
    entry = _data("lists.json")[name]
    return ListTask(name, tuple(entry["entities"]), entry["description"])


def as_task(task: str | Task | Sequence[tuple[str, str]], *, template: str | None = None) -> Task:
    """A task from a name, a task object or a sequence of (input, output) pairs."""
    if isinstance(task, (ListTask, TextTask)):
        if template is not None:
            raise InvalidInputError(f"task {task.name!r} takes no template")
        return task
    if isinstance(task, LabelledTask):
        return dataclasses.replace(task, template=Template(template)) if template else task
    if isinstance(task, str):
        return builtin_task(task, template=template)
    pairs = tuple((str(input), str(output)) for input, output in task)
    return LabelledTask("pairs", pairs, template=Template(template) if template else Template())
