"""A page of figures and tables, self-contained like that of a curve, for results of any kind.

Cost: about a second; the page carries Plotly's script (5 MB).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ed_interp.figures.style import FONT, THEMES, translucent
from ed_interp.report import flattened, plotly_script, templates


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers as they are shown; the first column names the row."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: frozenset[int] = frozenset()
    """Columns, from 0, that hold words rather than numbers."""


def render_tables(
    *,
    title: str,
    headline: str,
    how: str,
    figures: Sequence[Mapping[str, Any]],
    tables: Sequence[Table],
    settings: Mapping[str, Any],
) -> str:
    """One page that opens offline.

    Args:
        title: Of the page.
        headline: The main finding in one sentence.
        how: What was measured and how to read it.
        figures: From :func:`ed_interp.report.page_figure`.
        tables: Every number that the figures show.
        settings: Plain data, shown flattened.
    """
    return (
        templates()
        .get_template("tables.html.j2")
        .render(
            title=title,
            headline=headline,
            how=how,
            figures=figures,
            tables=tables,
            settings=flattened(settings),
            themes=THEMES,
            font=Markup(FONT),
            translucent=translucent,
            plotly=Markup(plotly_script()),
        )
    )
