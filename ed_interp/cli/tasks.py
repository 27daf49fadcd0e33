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
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for kind, size in (("mixed", "pairs"), ("labelled", "pairs"), ("list", "entities")):
        # Names are there to be copied: they are never cut, whatever the width.
        table = Table(box=SIMPLE_HEAD, show_edge=False)
        longest = max(len(row["name"]) for row in rows if row["kind"] == kind)
        title = {"mixed": "mixture", "labelled": "task", "list": "list"}[kind]
        table.add_column(title, no_wrap=True, min_width=longest)
        table.add_column(size, justify="right", no_wrap=True)
        if kind != "list":
            table.add_column("answers", justify="right", no_wrap=True)
        table.add_column("for instance", max_width=26)
        table.add_column("about")
        for row in rows:
            if row["kind"] == kind:
                counts = [str(row[name]) for name in ("size", "answers") if row[name] is not None]
                example = escape(row["example"].strip())
                table.add_row(row["name"], *counts, example, escape(row["description"]))
        console.print(table)
        console.print()


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
    return {
        "name": task.name,
        "kind": kind,
        "size": pairs,
        "answers": answers,
        "example": example,
        "description": task.description,
    }
