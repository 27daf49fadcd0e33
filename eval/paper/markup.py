"""Parts of sentences as HTML and as Markdown; whatever a record holds is escaped in both.

Cost: none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from ed_interp.eval.paper.document import (
    Bullets,
    Citation,
    Code,
    Gap,
    Heading,
    Paper,
    Paragraph,
    Part,
    Picture,
    Quote,
    Section,
    Table,
    Value,
    key_of,
    parts_of,
)
from ed_interp.eval.paper.references import WORKS

NOTHING = "not recorded"


def html_of(parts: Sequence[Part]) -> Markup:
    """Parts as HTML: a value carries its record and key, and shows them on hover."""
    return Markup("").join(_html(part) for part in parts)


def _html(part: Part) -> Markup:
    if isinstance(part, str):
        return escape(part)
    if isinstance(part, Code):
        return Markup("<code>{}</code>").format(part.text)
    if isinstance(part, Quote):
        return Markup('<q data-source="{}">{}</q>').format(part.source, part.text)
    if isinstance(part, Citation):
        return Markup('<cite id="work-{}">{}</cite>').format(part.work, work_text(part.work))
    where = f"{part.record} {part.file} {part.key}"
    text = part.text or NOTHING
    return Markup(
        '<data value="{}" data-record="{}" data-file="{}" data-key="{}" title="{}"{}>{}</data>'
    ).format(
        part.text,
        part.record,
        part.file,
        part.key,
        where,
        Markup(' class="missing"') if part.missing else "",
        text,
    )


def work_text(key: str) -> str:
    """A work as it is listed."""
    work = WORKS[key]
    end = "" if work.title.endswith("?") else "."
    return f"{f'{work.authors}: ' if work.authors else ''}{work.title}{end} {work.where}."


def markdown_of(paper: Paper, pictures: Mapping[str, str], head: str) -> str:
    """The paper as Markdown; values in sentences have footnotes, tables a column of sources.

    Args:
        paper: What to write.
        pictures: Name of each picture -> its file beside the Markdown.
        head: The lines on top, already Markdown.
    """
    notes: dict[str, int] = {}
    lines = [f"# {_inline(paper.title, notes)}", "", head, ""]
    for section in paper.sections:
        lines += _section(section, pictures, notes)
    lines += ["## Sources of the numbers", ""]
    lines += [f"[^{number}]: {where}" for where, number in notes.items()]
    return "\n".join(lines) + "\n"


def _section(section: Section, pictures: Mapping[str, str], notes: dict[str, int]) -> list[str]:
    lines = [f"## {section.heading}", ""]
    for block in section.blocks:
        if isinstance(block, Heading):
            lines += [f"### {_inline(block.parts, notes)}", ""]
        elif isinstance(block, Paragraph):
            lines += [_inline(block.parts, notes), ""]
        elif isinstance(block, Gap):
            lines += [f"> **Missing.** {_inline(block.parts, notes)}", ""]
        elif isinstance(block, Bullets):
            lines += [f"- {_inline(item, notes)}" for item in block.items] + [""]
        elif isinstance(block, Picture):
            file = pictures[block.name]
            lines += [f"![{plain(block.figure['heading'])}]({file})", ""]
            lines += [f"*{_inline(block.caption, notes)}*", ""]
        else:
            lines += [*_table(block, notes), ""]
    return lines


def _table(block: Table, notes: dict[str, int]) -> list[str]:
    sourced = any(isinstance(part, Value) for part in parts_of(block))
    heads = [plain(head) for head in block.heads] + (["source"] if sourced else [])
    lines = [f"**{_inline(block.caption, notes)}**", "", f"| {' | '.join(heads)} |"]
    lines.append(f"|{'---|' * len(heads)}")
    for row in block.rows:
        cells = [_inline(cell, None) for cell in row]
        if sourced:
            cells.append(source([part for cell in row for part in cell if isinstance(part, Value)]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def source(values: Sequence[Value]) -> str:
    """Where the values of a row stand: the place that is common to them, or their places."""
    found: dict[tuple[str, str], list[tuple[str | int, ...]]] = {}
    for value in values:
        found.setdefault((value.record, value.file), []).append(value.path)
    texts = []
    for (record, file), paths in found.items():
        rows = list(dict.fromkeys(path[:2] for path in paths))
        keys = [key_of(row) for row in rows]
        if len(rows) == 1:
            same = [len(set(steps)) == 1 for steps in zip(*paths, strict=False)]
            keys = [key_of(paths[0][: (*same, False).index(False)])]
        texts.append(f"{record} {file} {', '.join(keys)}".strip())
    return plain("; ".join(texts))


def _inline(parts: Sequence[Part], notes: dict[str, int] | None) -> str:
    return "".join(_markdown(part, notes) for part in parts)


def _markdown(part: Part, notes: dict[str, int] | None) -> str:
    if isinstance(part, str):
        return plain(part)
    if isinstance(part, Code):
        if re.search(r"[`|<>&]", part.text):  # what a code span, or a table, would not survive
            return f"<code>{plain(part.text)}</code>"
        return f"`{_one_line(part.text)}`"
    if isinstance(part, Quote):
        return f"“{plain(part.text)}” ({plain(part.source)})"
    if isinstance(part, Citation):
        return plain(work_text(part.work))
    text = f"*{part.text or NOTHING}*" if part.missing else plain(part.text.strip())
    if notes is None:
        return text
    where = plain(f"{part.record} {part.file} {part.key}")
    return f"{text}[^{notes.setdefault(where, len(notes) + 1)}]"


def plain(text: str) -> str:
    """Text that Markdown, and the HTML inside it, takes as it is."""
    found = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", re.sub(r"\s+", " ", text))
    return found.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_line(text: str) -> str:
    return " ".join(text.split())
