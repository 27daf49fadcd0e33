"""The paper as one HTML page and as Markdown, from its rendered template.

On the page, the Markdown is the template's own; what the records hold is put into the finished
HTML, escaped, so that it cannot become markup. In Markdown, the values of sentences have footnotes,
and tables a column of sources. Cost: a second, and 5 MB for Plotly's script if there is a picture.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from ed_interp.eval.paper.template import MARK, TABLE, Draft
from ed_interp.eval.paper.values import Code, Part, Picture, Quote, Value, Work, key_of
from ed_interp.report import page, page_figure, templates

NOTHING = "not recorded"
# No HTML: whatever the template's text holds is text, and links to scripts are refused.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_SECTION = re.compile(r"^## (.*)\n", re.M)
# What the renderer makes of a table and of a picture, each with its caption. The HTML still holds
# marks and the template's own words only, so that no record can be met by these patterns.
_TABLE = re.compile(r"(?:<p><strong>([^\n]*)</strong></p>\n)?<table>\n(.*?)</table>", re.S)
_PICTURE = re.compile(rf"<p>{MARK.pattern}</p>\n(?:<p><em>(.*?)</em></p>\n)?", re.S)
_FIGURE = Markup("""<div id="{id}" class="plot" role="group" \
aria-label="{heading}: interactive figure; its numbers are in the tables of appendix D"></div>
<div class="still">{still}</div>
""")
_VALUE = Markup(
    '<data value="{}" data-record="{}" data-file="{}" data-key="{}" title="{}"{}>{}</data>'
)
_DATA = Markup('<script type="application/json" id="{}-{}">{}</script>\n')


def render(draft: Draft, stills: Mapping[str, str]) -> str:
    """The page: one HTML file that loads nothing; ``stills`` has the SVG of each picture."""
    # One by one, so that each section is an element of its own, named by its heading.
    head, *rest = _SECTION.split(draft.text.strip())
    title, _, intro = head.removeprefix("# ").partition("\n")
    sections = []
    for heading, body in zip(rest[::2], rest[1::2], strict=True):
        name = re.sub(r"\W+", "-", heading.lower())
        sections.append({"name": name, "heading": heading, "body": html(draft, stills, body, name)})
    return page(
        "paper.html.j2",
        title=draft.filled(title, lambda part: getattr(part, "text", "")),
        heading=Markup(draft.filled(str(escape(title)), html_of)),
        intro=html(draft, stills, intro, "intro"),
        sections=sections,
        pictures=draft.pictures(),
    )


def html(draft: Draft, stills: Mapping[str, str], text: str, name: str) -> Markup:
    """Markdown as HTML; ``name`` makes the ids of its tables unique on the page."""
    macros, ids = templates().get_template("macros.html.j2").module, itertools.count(1)

    def table(match: re.Match[str]) -> str:
        body = re.sub(r'<(t[hd]) style="text-align:left">', r'<\1 class="text">', match[2])
        body = body.replace(' style="text-align:right"', "")
        body = re.sub("<th(?=[ >])", '<th scope="col"', body)  # and not <thead>
        # The first cell of a row names it.
        first = r'<tr>\n<th scope="row" class="text">\1</th>'
        body = re.sub(r"<tr>\n<td[^>]*>(.*)</td>", first, body)
        caption = Markup(match[1] or "")
        made = macros.table(f"{name}-table-{next(ids)}", caption, caller=lambda: Markup(body))  # type: ignore[attr-defined]
        return str(made)

    def figure(match: re.Match[str]) -> str:
        part = draft.parts[int(match[1])]
        if not isinstance(part, Picture):
            return match[0]
        data, still = page_figure(part.chart), Markup(stills[part.chart.name])
        scripts = [_DATA.format(data["id"], *item) for item in data["themes"].items()]
        figure = _FIGURE.format(id=data["id"], heading=data["heading"], still=still)
        # A name that is drawn must not pass for a mark; the caption has marks of its own.
        drawn = "".join([figure, *scripts]).replace("\ue000", "")
        return f"<figure>\n{drawn}<figcaption>{match[2] or ''}</figcaption>\n</figure>\n"

    # Marks are filled last: nothing that reads markup ever sees what a record holds.
    made = _PICTURE.sub(figure, _TABLE.sub(table, _MARKDOWN.render(text)))
    return Markup(draft.filled(made, html_of))


def html_of(part: Part) -> str:
    """A part as HTML: a value carries its record and key, and shows them on hover."""
    if isinstance(part, Code):
        return Markup("<code>{}</code>").format(part.text)
    if isinstance(part, Quote):
        return Markup('<q data-source="{}">{}</q>').format(part.source, part.text)
    if isinstance(part, Work):
        if part.listed:
            return Markup('<cite id="work-{}">{}</cite>').format(part.key, part.text)
        return Markup('<cite><a href="#work-{}">{}</a></cite>').format(part.key, part.label)
    if isinstance(part, Picture):
        raise TypeError(f"picture {part.chart.name} must be a paragraph of its own")
    kind = Markup(' class="missing"') if part.missing else ""
    places = (part.text, part.record, part.file, part.key, part.source, kind)
    return _VALUE.format(*places, part.text or NOTHING)


# Markdown -----------------------------------------------------------------------------------


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
