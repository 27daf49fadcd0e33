"""``ed-interp models``: the bundled models."""

from __future__ import annotations

from typing import Any

from ed_interp.cli.app import app
from ed_interp.cli.command import Output, command
from ed_interp.options import Options
from ed_interp.tables import Table

NOTE = (
    "A checkpoint is icl-gpt2@STEP. Any Hugging Face hub id works too, and a local folder of a "
    "model or a PEFT adapter."
)


@command(app, "models", Options)
def models(options: Options, output: Output) -> None:
    """List the bundled models and their training checkpoints.

    Hub ids and local folders work wherever a bundled name does.
    """
    from ed_interp.models.registry import bundled, bundled_names

    rows, cells = [_row(bundled(name)) for name in bundled_names()], []
    for row in rows:
        size, steps = f"{row['bytes'] / 1e6:.1f} MB", ", ".join(map(str, row["checkpoints"]))
        shape = (str(row["blocks"]), str(row["width"]))
        cells.append((row["name"], row["family"], *shape, size, steps))
    heads = ("model", "architecture", "blocks", "width", "size", "checkpoints (training steps)")
    words = frozenset({1, 5})
    table = Table(name="models", caption="", heads=heads, rows=cells, text=words, notes=(NOTE,))
    output.print({"models": rows}, table)


def _row(entry: Any) -> dict[str, Any]:
    config = entry.config
    blocks = config.get("num_hidden_layers", config.get("n_layer"))
    width = config.get("hidden_size", config.get("n_embd"))
    row = {"name": entry.name, "family": config["model_type"], "blocks": blocks, "width": width}
    row |= {"bytes": entry.size_bytes, "checkpoints": list(entry.checkpoints)}
    return {**row, "folder": str(entry.folder)}
