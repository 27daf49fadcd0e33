"""The paper as Markdown: footnotes for the values of sentences, a column of sources for tables.

Cost: none.
"""

from __future__ import annotations

import itertools
import re

from ed_interp.eval.paper.template import TABLE, Draft
from ed_interp.eval.paper.values import Code, Part, Quote, Value, Work, key_of

NOTHING = "not recorded"


def markdown(draft: Draft) -> str:
    """The whole file; pictures are beside it, in ``figures/``."""
    notes: dict[str, int] = {}

    def sentence(part: Part) -> str:
        if not isinstance(part, Value):
            return written(part)
        return f"{written(part)}[^{notes.setdefault(plain(part.source), len(notes) + 1)}]"

    pieces = TABLE.split(draft.text)  # words and tables by turns
    text = "".join(
        _table(piece, draft) if piece.startswith("|") else draft.filled(piece, sentence)
        for piece in pieces
    )
    lines = [f"[^{number}]: {source}" for source, number in notes.items()]
    return "\n".join([text.strip(), "", "## Sources of the numbers", "", *lines, ""])


def _table(text: str, draft: Draft) -> str:
    # A footnote per cell would bury the table: the last column says where a row is.
    rows = text.splitlines()
    sources = [source(draft.values(row)) for row in rows[2:]]
    if any(sources):
        ends = ["source", ":--", *sources]
        rows = [f"{row} {end} |" for row, end in zip(rows, ends, strict=True)]
    return draft.filled("\n".join([*rows, ""]), written)


def source(values: list[Value]) -> str:
    """Where the values of a row are: the place that is common to them, or their places."""
    files: dict[tuple[str, str], list[Value]] = {}
    for value in values:
        files.setdefault((value.record, value.file), []).append(value)
    texts = []
    for (record, file), group in files.items():
        # A row of a list is two steps deep, rows[3]; its values have their common path.
        rows = dict.fromkeys(value.path[:2] for value in group)
        steps = zip(*(value.path for value in group), strict=False)
        common = [same[0] for same in itertools.takewhile(lambda each: len({*each}) == 1, steps)]
        keys = [key_of(common)] if len(rows) == 1 else map(key_of, rows)
        texts.append(f"{record} {file} {', '.join(keys)}".strip())
    return plain("; ".join(texts))


def written(part: Part) -> str:
    """A part as Markdown, without its source."""
    if isinstance(part, Value):
        return f"*{part.text or NOTHING}*" if part.missing else plain(part.text)
    if isinstance(part, Code):
        if re.search(r"[`|<>&]", part.text):  # what a code span, or a table, would not survive
            return f"<code>{plain(part.text)}</code>"
        return f"`{' '.join(part.text.split())}`"
    if isinstance(part, Quote):
        return f"“{plain(part.text)}” ({plain(part.source)})"
    if isinstance(part, Work):
        return plain(part.text) if part.listed else f"[{plain(part.label)}](#references)"
    return f"![{plain(part.chart.title)}](figures/{part.chart.name}.svg)"


def plain(text: str) -> str:
    """Text that Markdown, and the HTML inside it, takes as it is."""
    # "!" and "[" as a picture would load something, "$" is mathematics and "~" strikes out in
    # many viewers, "#" heads a line, and a line break would end a row of a table.
    text = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", re.sub(r"\s+", " ", text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
