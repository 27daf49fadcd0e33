"""Writing a paper: from run folders to ``paper.html``, ``paper.md`` and their provenance.

Use::

    write_paper(["runs/capital", "runs/curve"], "paper")

The folder::

    paper.html          everything in one page, which opens offline and prints as a PDF
    paper.md            the same as Markdown, with pictures in figures/
    figures/NAME.svg    the still pictures
    provenance.json     {"format": "ed-interp/paper", "version": 1, "records": [...],
                         "values": [{"text", "record", "file", "path"}, ...]}

The same records give the same files. Cost: reading the records, a second per emergence curve, and
5 MB for Plotly's script in the page.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ed_interp.eval.paper.challenges import appendix_e, limits
from ed_interp.eval.paper.discussion import discussion
from ed_interp.eval.paper.document import Paper, Parts, Picture, Section, listed
from ed_interp.eval.paper.ethics import appendix_f
from ed_interp.eval.paper.markup import html_of, markdown_of, plain
from ed_interp.eval.paper.methods import appendix_a, appendix_c, implementation
from ed_interp.eval.paper.pointers import appendix_b
from ed_interp.eval.paper.records import Record, read_records
from ed_interp.eval.paper.references import references
from ed_interp.eval.paper.results import results
from ed_interp.eval.paper.trials import appendix_d
from ed_interp.figures.style import FONT, THEMES, translucent
from ed_interp.records import RunFolder, write_json, write_text
from ed_interp.report import plotly_script, templates

FORMAT = "ed-interp/paper"
VERSION = 1


def write_paper(runs: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the paper of these runs to the folder ``out``, whole or not at all; gives its path.

    Args:
        runs: Run folders: controlled studies, comparisons, emergence curves, trained adapters,
            calibrations, steering sweeps, dictionaries and what was measured of them; or folders
            that hold such folders.
        out: The folder to make.
        overwrite: Replace a paper that is there.

    Raises:
        InvalidInputError: no run was given.
        RunFolderError: a folder that is no run, is damaged, of another version or another kind;
            or ``out`` exists or cannot be written.
    """
    paper = make_paper(runs)
    given = [{"folder": each.folder, "sha256": each.sha256} for each in paper.records]
    with RunFolder.open(out, {"paper": given}, overwrite=overwrite, resumable=False) as run:
        pictures = {picture.name: f"figures/{picture.name}.svg" for picture in _pictures(paper)}
        if pictures:
            (run.folder / "figures").mkdir()
        for picture in _pictures(paper):
            write_text(run.folder / pictures[picture.name], picture.still)
        write_json(run.folder / "provenance.json", provenance(paper))
        write_text(run.folder / "paper.md", markdown_of(paper, pictures, _records_list(paper)))
        write_text(run.folder / "paper.html", render(paper))
    return run.path


def make_paper(runs: Sequence[str | Path]) -> Paper:
    """The document of these runs.

    Raises:
        InvalidInputError: no run was given.
        RunFolderError: a folder that cannot be read as a run.
    """
    records = read_records(runs)
    sections = (
        implementation(records),
        results(records),
        discussion(records),
        limits(records),
        references(records),
        appendix_a(records),
        appendix_b(),
        appendix_c(records),
        appendix_d(records),
        appendix_e(records),
        appendix_f(records),
    )
    return Paper(_title(records), records, sections)


def render(paper: Paper) -> str:
    """The page: one HTML file that loads nothing."""
    return (
        templates()
        .get_template("paper.html.j2")
        .render(
            paper=paper,
            title="".join(part if isinstance(part, str) else _text(part) for part in paper.title),
            records=[_row(record) for record in paper.records],
            inline=html_of,
            markup=Markup,
            themes=THEMES,
            font=Markup(FONT),
            translucent=translucent,
            plotly=Markup(plotly_script()) if _pictures(paper) else None,
        )
    )


def provenance(paper: Paper) -> dict[str, Any]:
    """Where every value of the paper stands, and the digests of the records."""
    records = [
        {
            "id": record.id,
            "kind": record.kind,
            "folder": record.folder,
            "file": record.main,
            "sha256": record.sha256,
        }
        for record in paper.records
    ]
    values = [{**dataclasses.asdict(value), "path": list(value.path)} for value in paper.values()]
    return {"format": FORMAT, "version": VERSION, "records": records, "values": values}


def _title(records: Sequence[Record]) -> Parts:
    studies = [record for record in records if record.kind == "controlled study"]
    names: dict[tuple[str, str], Parts] = {}
    for record in studies:
        head = record.place()
        key = (str(head["tested"].raw), str(head["model"]["name"].raw))
        names.setdefault(key, (head["tested"].show(), " on ", head["model"]["name"].show()))
    if names:
        return ("Trials of ", *listed(list(names.values())))
    kinds = dict.fromkeys(record.kind for record in records)
    return ("Records of ", *listed([(kind,) for kind in kinds]))


def _text(part: Any) -> str:
    return str(getattr(part, "text", ""))


def _row(record: Record) -> dict[str, Any]:
    """A line of the list of records: the command stands in the record or in its settings."""
    known = (record.place("command").raw, record.place("settings", "command").raw)
    found = next((each for each in known if each), "")
    command = found if isinstance(found, str) else shlex.join(map(str, found))
    return {"record": record, "command": " ".join(command.split())}


def _records_list(paper: Paper) -> str:
    lines = ["| record | kind | folder | SHA-256 of its file | command |", "|---|---|---|---|---|"]
    for row in (_row(record) for record in paper.records):
        record, command = row["record"], row["command"]
        cells = (record.id, record.kind, record.folder, record.sha256[:16], command)
        lines.append(f"| {' | '.join(plain(cell) for cell in cells)} |")
    return "\n".join(lines)


def _pictures(paper: Paper) -> list[Picture]:
    def inside(section: Section) -> list[Picture]:
        return [block for block in section.blocks if isinstance(block, Picture)]

    return [picture for section in paper.sections for picture in inside(section)]
