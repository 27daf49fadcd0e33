"""Writing a paper: from run folders to ``paper.html``, ``paper.md`` and their provenance.

Use::

    write_paper(["runs/capital", "runs/curve"], "paper")

The folder::

    paper.html          everything in one page, which opens offline and prints as a PDF
    paper.md            the same as Markdown, with pictures in figures/
    figures/NAME.svg    the still pictures
    provenance.json     {"format": "ed-interp/paper", "version": 1, "records": [...],
                         "values": [{"text", "record", "file", "path"}, ...]}

The same records give the same files. Cost: reading the records, a second per picture, and 5 MB for
Plotly's script in the page.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ed_interp import report
from ed_interp.charts.still import svg
from ed_interp.eval.paper.claims import FILTERS, HIGHER, methods, models, unfinished, works
from ed_interp.eval.paper.page import markdown, render
from ed_interp.eval.paper.records import LISTS, Record, read_records
from ed_interp.eval.paper.template import Draft, Template
from ed_interp.eval.study.summary import COMPARED, LEVEL
from ed_interp.options import OptionError
from ed_interp.records.files import write_json, write_text
from ed_interp.records.folders import RunFolder

FORMAT = "ed-interp/paper"
VERSION = 1
TEMPLATE = Path(report.__file__).with_name("templates") / "paper.md"


def write_paper(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    template: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the paper of these runs to the folder ``out``, whole or not at all; returns its path.

    Args:
        runs: Run folders: controlled studies, comparisons, emergence curves, trained adapters,
            calibrations, steering sweeps, dictionaries and what was measured of them; or folders
            that hold such folders.
        out: The folder to make.
        template: An edited copy of the paper's template; the package's own by default.
        overwrite: Replace an existing paper.

    Raises:
        InvalidInputError: no run was given, or the template holds a number that no record holds.
        RunFolderError: a folder that is no run, is damaged, of another version or another kind;
            or ``out`` exists or cannot be written.
    """
    records, source = read_records(runs), read_template(template)
    draft = make_draft(records, source)
    given: list[Any] = [{"folder": each.folder, "sha256": each.sha256} for each in records]
    given.append({"template": hashlib.sha256(source.source.encode()).hexdigest()})
    # Not resumable: a paper takes seconds, and half a paper cannot be continued.
    with RunFolder.open(out, {"paper": given}, overwrite=overwrite, resumable=False) as run:
        # Drawn once for both outputs, and only after an existing folder was refused.
        charts = [picture.chart for picture in draft.pictures()]
        stills = {chart.name: svg(chart, label=chart.title) for chart in charts}
        for name, still in stills.items():
            (run.folder / "figures").mkdir(exist_ok=True)
            write_text(run.folder / "figures" / f"{name}.svg", still)
        write_json(run.folder / "provenance.json", provenance(records, draft))
        write_text(run.folder / "paper.md", markdown(draft))
        write_text(run.folder / "paper.html", render(draft, stills))
    return run.path


def read_template(file: str | Path | None = None) -> Template:
    """A template, checked; the package's own by default."""
    path = TEMPLATE if file is None else Path(file).expanduser()
    try:
        return Template(path.read_text(encoding="utf-8"), path.name, FILTERS)
    except (OSError, UnicodeDecodeError) as error:
        reason = f"must be a Markdown file, got {path} ({error})"
        raise OptionError("template", reason) from error


def make_draft(records: Sequence[Record], template: Template) -> Draft:
    """The template over the records: every variable and function that it can use."""
    listed = {work.text for work in template.works.values()}
    return template.render(
        {
            **{name: [r.data for r in records if r.kind == kind] for name, kind in LISTS.items()},
            "records": records,
            "models": models(records),
            "methods": methods(records),
            # An estimator may be cited by the text already.
            "works": [work for work in works(records) if work.text not in listed],
            "unfinished": unfinished(records),
            "compared": COMPARED,
            "alpha": 1 - LEVEL,
            "higher": HIGHER,
        }
    )


def provenance(records: Sequence[Record], draft: Draft) -> dict[str, Any]:
    """Where every value of the paper stands, and the digests of the records."""
    fields = {"id": "id", "kind": "kind", "folder": "folder", "file": "main", "sha256": "sha256"}
    listed = [{key: getattr(r, field) for key, field in fields.items()} for r in records]
    values = [{**dataclasses.asdict(v), "path": list(v.path)} for v in draft.values()]
    return {"format": FORMAT, "version": VERSION, "records": listed, "values": values}
