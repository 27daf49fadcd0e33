"""``ed-interp paper``: one page and Markdown from the records of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ed_interp.cli.running import calm_libraries, shown

HELP = r"""Write a paper from the records of runs, and from nothing else.

One HTML page that opens offline and prints as a PDF, and the same as Markdown: implementation,
results, discussion against baselines, limits, references, and appendices (configuration, code,
protocols, trials, challenges, ethics). Every number carries its record and key; what no record
holds is shown as missing, with the command that makes it.

- ed-interp paper STUDY CURVE --out PAPER
- ed-interp paper RECORDS --out PAPER  (a folder of run folders)
"""


def command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, or folders of run folders.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default="paper")] = Path(
        "paper"
    ),
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the paper in --out.", metavar=""),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print where every number stands, as JSON.", metavar=""),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", metavar="")] = False,
) -> None:
    """Run ``ed-interp paper``; what it does is in :data:`HELP`."""
    calm_libraries()
    from ed_interp.eval.paper import write_paper

    path = write_paper(runs or [], out, overwrite=overwrite)
    found = json.loads((path / "provenance.json").read_text("utf-8"))
    if as_json:
        typer.echo(json.dumps({**found, "folder": str(path)}, allow_nan=False))
        return
    typer.echo(shown(path / "paper.html"))
    typer.echo(shown(path / "paper.md"))
