"""``ed-interp paper``: one page and Markdown from the records of runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import typer

from ed_interp.cli.app import app
from ed_interp.cli.command import Out, Output, command, shown
from ed_interp.options import OUTPUT, Options, option

PAPER = Out("Folder to make.", "paper")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperOptions(Options):
    """What a paper is made from."""

    runs: tuple[Path, ...] = option((), "Run folders, or folders of run folders.", argument=True)
    template: Path | None = option(
        None,
        "Edited copy of the template (ed_interp/templates/paper.md).",
        OUTPUT,
        shown="the template of the package",
    )


@command(app, "paper", PaperOptions, out=PAPER)
def paper(options: PaperOptions, output: Output) -> None:
    """Write a paper from the records of runs, and from nothing else.

    One HTML page that opens offline and prints as a PDF, and the same as Markdown: implementation,
    results, discussion against baselines, limits, references, and appendices (configuration, code,
    protocols, trials, challenges, ethics). Every number carries its record and key. What no record
    holds is shown as missing, with the command that makes it.

    - ed-interp paper STUDY CURVE --out PAPER
    - ed-interp paper RECORDS --out PAPER  (a folder of run folders)
    """
    from ed_interp.eval.paper import write_paper

    place, overwrite = output.out or Path("paper"), output.overwrite
    path = write_paper(options.runs, place, template=options.template, overwrite=overwrite)
    if output.json:
        provenance = json.loads((path / "provenance.json").read_text("utf-8"))
        output.print({**provenance, "folder": str(path)})
        return
    typer.echo(shown(path / "paper.html"))
    typer.echo(shown(path / "paper.md"))
