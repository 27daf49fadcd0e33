"""The paper as one HTML page, from its rendered Markdown.

The Markdown is the template's own; what the records hold is put into the finished HTML, escaped, so
that it cannot become markup. Cost: a second, and 5 MB for Plotly's script if there is a picture.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from ed_interp.eval.paper.markdown import NOTHING
from ed_interp.eval.paper.template import MARK, Draft
from ed_interp.eval.paper.values import Code, Part, Picture, Quote, Work
from ed_interp.report import page, page_figure, templates

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
_DATA = Markup('<script type="application/json" id="{}-{}">{}</script>\n')


def render(draft: Draft, stills: Mapping[str, str]) -> str:
    """The page: one HTML file that loads nothing; ``stills`` has the SVG of each picture."""
    # One by one, so that each section is an element of its own, named by its heading.
    head, *rest = _SECTION.split(draft.text.strip())
    title, _, intro = head.removeprefix("# ").partition("\n")
    sections = [
        {
            "name": _name(heading),
            "heading": heading,
            "body": html(draft, stills, body, _name(heading)),
        }
        for heading, body in zip(rest[::2], rest[1::2], strict=True)
    ]
    return page(
        "paper.html.j2",
        title=draft.filled(title, lambda part: getattr(part, "text", "")),
        heading=Markup(draft.filled(str(escape(title)), html_of)),
        intro=html(draft, stills, intro, "intro"),
        sections=sections,
        pictures=draft.pictures(),
    )


def _name(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower())


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
    return Markup(
        '<data value="{}" data-record="{}" data-file="{}" data-key="{}" title="{}"{}>{}</data>'
    ).format(
        part.text,
        part.record,
        part.file,
        part.key,
        part.source,
        Markup(' class="missing"') if part.missing else "",
        part.text or NOTHING,
    )
