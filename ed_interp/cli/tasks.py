"""``ed-interp tasks``: the built-in tasks."""

from __future__ import annotations

from typing import Any

from ed_interp.cli.app import app
from ed_interp.cli.command import Output, command
from ed_interp.options import Options
from ed_interp.tables import Table

_TITLES = {"mixed": "mixture", "labelled": "task", "list": "list"}


@command(app, "tasks", Options)
def tasks(options: Options, output: Output) -> None:
    """List the built-in tasks. For a file of your own use --data FILE."""
    from ed_interp.prompts.tasks import builtin_task, task_names

    rows = [_row(builtin_task(name)) for name in task_names()]
    output.print({"tasks": rows}, *(_table(kind, rows) for kind in _TITLES))


def _table(kind: str, rows: list[dict[str, Any]]) -> Table:
    size = "entities" if kind == "list" else "pairs"
    heads = (_TITLES[kind], size, "answers", "example", "description")
    cells = []
    for row in (row for row in rows if row["kind"] == kind):
        answers = "" if row["answers"] is None else str(row["answers"])
        example, about = row["example"].strip(), row["description"]
        cells.append((row["name"], str(row["size"]), answers, example, about))
    return Table(name=kind, caption="", heads=heads, rows=cells, text=frozenset({3, 4}))


def _row(task: Any) -> dict[str, Any]:
    from ed_interp.prompts.tasks import ListTask, MixedTask

    if isinstance(task, ListTask):
        kind, pairs, answers = "list", len(task.entities), None
        example = task.separator.join(task.entities[:3]) + task.separator
    else:
        members = task.tasks if isinstance(task, MixedTask) else (task,)
        kind = "mixed" if isinstance(task, MixedTask) else "labelled"
        pairs = sum(len(member.pairs) for member in members)
        answers = len({output for member in members for _, output in member.pairs})
        example = members[0].template.demonstration(*members[0].pairs[0])
    row = {"name": task.name, "kind": kind, "size": pairs, "answers": answers}
    return {**row, "example": example, "description": task.description}
