"""``ed-interp models``: the bundled models."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List the bundled models and their training checkpoints.

    Hub ids and local folders work wherever a bundled name does.
    """
    from ed_interp.models.registry import bundled, bundled_names

    rows = [_row(bundled(name)) for name in bundled_names()]
    if as_json:
        typer.echo(json.dumps({"models": rows}))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False)
    longest = max((len(row["name"]) for row in rows), default=0)
    table.add_column("model", no_wrap=True, min_width=longest)
    table.add_column("architecture", no_wrap=True)
    for name in ("blocks", "width", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("checkpoints (training steps)")
    for row in rows:
        steps = ", ".join(str(step) for step in row["checkpoints"])
        size = f"{row['bytes'] / 1e6:.1f} MB"
        table.add_row(
            row["name"], row["family"], str(row["blocks"]), str(row["width"]), size, steps
        )
    console = Console()
    console.print(table)
    console.print(
        "A checkpoint is [bold]icl-gpt2@STEP[/]. Also: any Hugging Face hub id, or a local folder "
        "of a model or a PEFT adapter."
    )


def _row(entry: Any) -> dict[str, Any]:
    config = entry.config
    return {
        "name": entry.name,
        "family": config["model_type"],
        "blocks": config.get("num_hidden_layers", config.get("n_layer")),
        "width": config.get("hidden_size", config.get("n_embd")),
        "bytes": entry.size_bytes,
        "checkpoints": list(entry.checkpoints),
        "folder": str(entry.folder),
    }
