"""``ed-interp tasks``: the built-in tasks."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List the built-in tasks. A file of your own is --data FILE of `ed-interp emergence`."""
    from ed_interp.prompts.tasks import builtin_task, task_names

    rows = [_row(builtin_task(name)) for name in task_names()]
    if as_json:
        typer.echo(json.dumps({"tasks": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "kind", "size", "answers", "example", "about")
    for row in rows:
        answers = "" if row["answers"] is None else str(row["answers"])
        example = row["example"].replace("\n", "\\n")
        table.add_row(
            row["name"], row["kind"], str(row["size"]), answers, example, row["description"]
        )
    Console().print(table)


def _row(task: Any) -> dict[str, Any]:
    from ed_interp.prompts.tasks import LabelledTask

    labelled = isinstance(task, LabelledTask)
    return {
        "name": task.name,
        "kind": "labelled" if labelled else "list",
        "size": len(task.pairs if labelled else task.entities),
        "answers": len(task.answers) if labelled else None,
        "example": (
            task.template.demonstration(*task.pairs[0])
            if labelled
            else task.separator.join(task.entities[:3]) + task.separator
        ),
        "description": task.description,
    }
