"""Tasks: what prompts are drawn from, and the built-in ones by name. Imports nothing heavy."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from ed_interp.errors import InvalidInputError, OptionError, unknown

DEFAULT_TEMPLATE = "{input} -> {output}\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    r"""One line of text with ``{input}`` before ``{output}``, each once.

    The query is the text before the answer, without the spaces at its end, which become part of
    the answer: GPT-like tokenizers split words that way.

    >>> template = Template("{input} -> {output}\n")
    >>> template.demonstration("France", "Paris")
    'France -> Paris\n'
    >>> template.query("France"), template.answer("Paris")
    ('France ->', ' Paris')
    """

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        counts = [self.text.count(part) for part in ("{input}", "{output}")]
        if counts != [1, 1] or self.text.index("{input}") > self.text.index("{output}"):
            raise InvalidInputError(
                f"the template must have {{input}} once and then {{output}} once, got template "
                f"{self.text!r}; for instance {DEFAULT_TEMPLATE!r}"
            )

    @classmethod
    def of(cls, text: str | None) -> Template:
        """The template of a text; the default one for None."""
        return cls() if text is None else cls(text)

    @property
    def _head(self) -> str:
        return self.text[: self.text.index("{output}")]

    def demonstration(self, input: str, output: str) -> str:
        """The whole text of one pair."""
        # Not str.format, as inputs may contain braces.
        before, after = self._head, self.text[self.text.index("{output}") + len("{output}") :]
        return before.replace("{input}", input) + output + after

    def query(self, input: str) -> str:
        """The text before the answer."""
        return self._head.rstrip(" ").replace("{input}", input)

    def answer(self, output: str) -> str:
        """The right continuation of the query."""
        return " " * (len(self._head) - len(self._head.rstrip(" "))) + output


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
                f"list task {self.name!r} must have at least 2 entities, all different, got "
                f"{len(self.entities)}, {len(set(self.entities))} different"
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
                f"task {self.name!r} has {len(self.pairs)} usable pair(s); it must have at least "
                "2, one for the query and one to show"
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
class MixedTask:
    """Several labelled tasks over the same words, one of them per prompt.

    Only the demonstrations show which one it is, so prompts differ in the query and in the task,
    which is what in-context learning is about. In the prompts of a single task the relation is
    always the same, and demonstrations do not help a model that knows it.
    """

    name: str
    tasks: tuple[LabelledTask, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if len(self.tasks) < 2:
            raise InvalidInputError(
                f"mixed task {self.name!r} must have at least 2 tasks, got {len(self.tasks)}"
            )


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
            raise InvalidInputError(f"text task {self.name!r} holds no text; give some")
        if self.window < 1:
            raise InvalidInputError(f"window must be 1 or greater, got {self.window}")


Task = ListTask | LabelledTask | MixedTask | TextTask


@functools.cache
def read_data(file: str) -> dict[str, Any]:
    """What a JSON file of ``data/`` holds, by the name of the task."""
    text = resources.files("ed_interp.prompts").joinpath("data", file).read_text("utf-8")
    return dict(json.loads(text))


# Four relations over the same countries; only the demonstrations show which one it is.
DEFAULT_TASK = "mixed-country"

_MIXED = "mixed-"


def task_names() -> list[str]:
    """Names of the built-in tasks: mixtures, then relations and sentiment, then lists."""
    groups = collections.Counter(entry["group"] for entry in read_data("relations.json").values())
    mixtures = [_MIXED + group for group, relations in groups.items() if relations > 1]
    return [*mixtures, *read_data("relations.json"), *read_data("lists.json")]


def builtin_task(name: str, *, template: str | None = None) -> ListTask | LabelledTask | MixedTask:
    """A built-in task, one of :func:`task_names`; ``template`` is the text of a pair.

    Raises:
        UnknownNameError: no such task; the nearest names are listed.
        InvalidInputError: a template for a list, or one without ``{input}`` and ``{output}``.
    """
    if name not in task_names():
        raise unknown("task", name, task_names())
    relations = read_data("relations.json")
    shape = Template.of(template)
    if name in relations:
        return _relation(name, shape)
    if name.startswith(_MIXED):
        group = name.removeprefix(_MIXED)
        members = [member for member, entry in relations.items() if entry["group"] == group]
        about = f"one of {', '.join(members)}; only the demonstrations show which one"
        return MixedTask(name, tuple(_relation(member, shape) for member in members), about)
    if template is not None:
        raise OptionError("template", f"must be left out for task {name!r}, which is a list")
    entry = read_data("lists.json")[name]
    return ListTask(name, tuple(entry["entities"]), entry["description"])


def _relation(name: str, shape: Template) -> LabelledTask:
    entry = read_data("relations.json")[name]
    pairs = tuple((str(input), str(output)) for input, output in entry["pairs"])
    return LabelledTask(name, pairs, entry["description"], shape)


def as_task(task: str | Task | Sequence[tuple[str, str]], *, template: str | None = None) -> Task:
    """A task from a name, a task object or a sequence of (input, output) pairs."""
    if isinstance(task, (ListTask, TextTask)):
        if template is not None:
            raise OptionError("template", f"must be left out for task {task.name!r}")
        return task
    if isinstance(task, str):
        return builtin_task(task, template=template)
    if isinstance(task, (LabelledTask, MixedTask)):
        if template is None:
            return task
        if isinstance(task, LabelledTask):
            return dataclasses.replace(task, template=Template(template))
        members = (dataclasses.replace(one, template=Template(template)) for one in task.tasks)
        return dataclasses.replace(task, tasks=tuple(members))
    pairs = tuple((str(input), str(output)) for input, output in task)
    return LabelledTask("pairs", pairs, template=Template.of(template))


def most_shots(task: ListTask | LabelledTask | MixedTask) -> int:
    """The largest shot count of a task: its entities, or the pairs that any query leaves."""
    if isinstance(task, ListTask):
        return len(task.entities)
    if isinstance(task, MixedTask):
        return min(most_shots(member) for member in task.tasks)
    # Pairs with the input of the query are never shown.
    repeats = collections.Counter(input for input, _ in task.pairs)
    return len(task.pairs) - max(repeats.values())
