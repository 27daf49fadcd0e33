"""One HTML page for any result, and a short form for notebooks.

The page opens offline: it carries Plotly's script (5 MB) and a rule that forbids the browser to
load anything. Every sentence in it is made by the result from its numbers. Cost: about a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ed_interp.charts.spec import Chart
from ed_interp.charts.theme import FONT, PAGE_THEMES, THEMES, translucent
from ed_interp.tables import Shown


def render(result: Shown, environment: Mapping[str, Any] | None = None) -> str:
    """The whole page; ``environment`` is what the run ran on."""
    from ed_interp.charts.still import svg

    charts = list(result.charts())
    hidden = ("environment", "command")
    settings = {name: value for name, value in result._settings.items() if name not in hidden}
    return page(
        "page.html.j2",
        **_words(result),
        facts=result.facts(),
        figures=[page_figure(chart) for chart in charts],
        # Where scripts are off, the main picture still shows.
        still=Markup(svg(charts[0], label=result.headline(), panels=1)) if charts else "",
        tables=[table for table in result.tables() if table.page],
        how=result.how(),
        command=result._settings.get("command"),
        settings=flattened(settings),
        environment=flattened(environment or {}),
    )


def summary(result: Shown) -> str:
    """A short form for notebooks: the finding, a small picture, the tables that a terminal shows.

    It loads nothing and has no script.
    """
    from ed_interp.charts.still import svg

    charts = list(result.charts())[:1]
    return page(
        "summary.html.j2",
        **_words(result),
        picture=Markup("".join(svg(chart, label=result.headline(), panels=1) for chart in charts)),
        tables=[table for table in result.tables() if table.terminal],
    )


def _words(result: Shown) -> dict[str, Any]:
    names = ("title", "headline", "cautions", "glossary")
    return {name: getattr(result, name)() for name in names}


def page(template: str, **content: Any) -> str:
    """A template of the house, with the style of the house."""
    style = {"themes": THEMES, "font": Markup(FONT), "translucent": translucent}
    return templates().get_template(template).render(plotly=plotly_script, **style, **content)


def page_figure(chart: Chart) -> dict[str, Any]:
    """A chart as a page takes it: data of the figure for both themes, heading and caption."""
    from ed_interp.charts.plotly import figure

    return {
        "id": chart.name,
        "heading": chart.heading or chart.title,
        "caption": chart.caption,
        "themes": {theme: embedded(figure(chart, theme)) for theme in PAGE_THEMES},
    }


def embedded(figure: Any) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    # The page has a heading and a caption of its own; the legend stays, below the tool bar.
    top = 30
    if figure.layout.showlegend:
        names = sum(t.type == "scatter" and t.showlegend is not False for t in figure.data)
        top = 90 if names > 4 else 60
    if any(note.yanchor == "bottom" and note.xref == "paper" for note in figure.layout.annotations):
        top += 26
    figure.update_layout(
        title=None, height=figure.layout.height - figure.layout.margin.t + top, margin={"t": top}
    )
    text: str = figure.to_json()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def flattened(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (``outer.inner``, text) pairs, in their order."""
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += flattened(value, f"{name}.")
        elif value is None or isinstance(value, str):
            pairs.append((name, "none" if value is None else value))
        else:
            pairs.append((name, json.dumps(value, default=str, ensure_ascii=False)))
    return pairs


@cache
def plotly_script() -> Markup:
    """Plotly's script, to be put into a page."""
    import plotly.offline

    return Markup(plotly.offline.get_plotlyjs())


@cache
def templates() -> jinja2.Environment:
    """The pages of the house, by file name."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
