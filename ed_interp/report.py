"""The report of a curve: one HTML page that opens offline, and a short form for notebooks.

Every sentence in it is made from the numbers. The page carries Plotly's script (5 MB) and a rule
that forbids the browser to load anything. Cost: about a second.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ed_interp import figures
from ed_interp.figures.common import plural
from ed_interp.figures.shapes import Behaviour, Curve, Row, behaviour_of, flag_meanings, rows_of
from ed_interp.figures.style import FONT, THEMES, ThemeName, translucent
from ed_interp.records import environment as this_environment

_ESTIMATION = ("noise", "beta", "estimator", "bootstrap", "monte", "confidence", "interval")


def render_report(
    curve: Curve,
    flags: Mapping[str, str] | None = None,
    *,
    environment: Mapping[str, Any] | None = None,
) -> str:
    """One self-contained page: the main sentence, interactive figures, tables, settings.

    Args:
        flags: what each flag means; by default what the curve's module says.
        environment: what the run ran on; by default what the curve's settings say, or this
            process's own.
    """
    meanings = flag_meanings(curve) if flags is None else flags
    found = environment or curve.settings.get("environment") or this_environment()
    settings = flattened(
        {k: v for k, v in curve.settings.items() if k not in ("environment", "command")}
    )
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            curve=curve,
            comparison=getattr(curve, "comparison", None),
            calibration=getattr(curve, "calibration", None),
            headline=headline(curve),
            cautions=cautions(curve),
            figures=_figures(curve, meanings),
            rows=sorted(curve.rows, key=lambda row: (row.layer, row.shots)),
            behaviour=behaviour_of(curve),
            profile=sorted(curve.profile, key=lambda row: (row.layer, row.shots, row.noise)),
            flags={name: meanings.get(name, "") for name in occurring_flags(curve)},
            counts={
                name: sum(name in row.flags for row in curve.rows)
                for name in occurring_flags(curve)
            },
            command=command_of(curve),
            estimation=[pair for pair in settings if _is_estimation(pair[0])],
            settings=[pair for pair in settings if not _is_estimation(pair[0])],
            environment=flattened(found),
            still=Markup(figures.emergence_svg(curve, label=headline(curve))),
            themes=THEMES,
            font=Markup(FONT),
            translucent=translucent,
            spans=spans,
            plotly=Markup(plotly_script()),
        )
    )


def curve_summary(curve: Curve) -> str:
    """A short HTML form for notebooks: the main sentence, a small picture, E per block and shots.

    It loads nothing and has no script.
    """
    rows = rows_of(curve)
    return (
        templates()
        .get_template("summary.html.j2")
        .render(
            curve=curve,
            headline=headline(curve),
            cautions=cautions(curve),
            shots=list(curve.shots),
            table={layer: {row.shots: row for row in found} for layer, found in rows.items()},
            behaviour={row.shots: row for row in behaviour_of(curve)},
            flags={name: flag_meanings(curve).get(name, "") for name in occurring_flags(curve)},
            picture=Markup(figures.emergence_svg(curve, label=headline(curve))),
        )
    )


# Sentences ----------------------------------------------------------------------------------


def headline(curve: Curve) -> str:
    """The main finding in one sentence: the block with the highest E at the most shots.

    It says "rises" or "falls" only where the intervals support it: those of E at the ends do not
    overlap; that of the paired gain in accuracy excludes 0.
    """
    if not curve.rows:
        return "No row was measured."
    top = max(curve.shots)
    best = max((row for row in curve.rows if row.shots == top), key=lambda row: row.emergence)
    first = rows_of(curve)[best.layer][0]
    parts = [_emergence_clause(curve, first, best)]
    if best.untrained is not None:
        parts.append(f"the untrained twin has {best.untrained:.2f}")
    behaviour = behaviour_of(curve)
    if behaviour:
        parts.append(_accuracy_clause(behaviour[0], behaviour[-1]))
    return "; ".join(parts) + "."


def _emergence_clause(curve: Curve, first: Row, last: Row) -> str:
    unit = curve.unit
    if first.shots == last.shots:
        return f"Block {last.layer}: E is {last.emergence:.2f} {unit} at {_shots(last.shots)}"
    if last.ci_low > first.ci_high:
        verb = "rises"
    elif last.ci_high < first.ci_low:
        verb = "falls"
    else:
        verb = "does not clearly change:"
    return (
        f"Block {last.layer}: E {verb} from {first.emergence:.2f} {unit} at "
        f"{_shots(first.shots)} to {last.emergence:.2f} {unit} at {_shots(last.shots)}"
    )


def _accuracy_clause(first: Behaviour, last: Behaviour) -> str:
    chance = f"(chance {last.chance:.2f})"
    if first.shots == last.shots:
        return f"accuracy is {last.accuracy:.2f} {chance}"
    if last.gain_ci_low > 0:
        verb = "rises"
    elif last.gain_ci_high < 0:
        verb = "falls"
    else:
        verb = "does not clearly change:"
    return f"accuracy {verb} from {first.accuracy:.2f} to {last.accuracy:.2f} {chance}"


def cautions(curve: Curve) -> str:
    """How many rows are flagged, and where the estimator is right; empty without either."""
    flagged = sum(bool(row.flags) for row in curve.rows)
    found = []
    if flagged:
        names = ", ".join(occurring_flags(curve))
        found.append(f"{flagged} of {plural(len(curve.rows), 'value')} carry a flag ({names}).")
    calibration = getattr(curve, "calibration", None)
    if calibration is not None:
        found.append(f"At this size the estimator is {calibration.says()}.")
    return " ".join(found)


def occurring_flags(curve: Curve) -> list[str]:
    """The names of the flags that some row carries, in order of appearance."""
    return list(dict.fromkeys(flag for row in curve.rows for flag in row.flags))


def command_of(curve: Curve) -> str | None:
    """The command line that made the curve, if its settings hold one."""
    command = curve.settings.get("command")
    if isinstance(command, str) and command.strip():
        return command
    if isinstance(command, Sequence) and command and not isinstance(command, str):
        return shlex.join(str(word) for word in command)
    return None


def spans(counts: Sequence[int]) -> str:
    """Counts in short: ``0-8``, or ``0, 1, 2, 4-6``."""
    runs: list[list[int]] = []
    for count in sorted(set(counts)):
        if runs and count == runs[-1][-1] + 1:
            runs[-1].append(count)
        else:
            runs.append([count])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def _shots(count: int) -> str:
    return plural(count, "shot")


# Parts of the page --------------------------------------------------------------------------


def flattened(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (``outer.inner``, text) pairs, in their order."""
    pairs: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += flattened(value, f"{name}.")
        elif isinstance(value, str):
            pairs.append((name, value))
        elif value is None:
            pairs.append((name, "none"))
        else:
            pairs.append((name, json.dumps(value, default=str, ensure_ascii=False)))
    return pairs


def _is_estimation(name: str) -> bool:
    return any(word in name.lower() for word in _ESTIMATION)


def _figures(curve: Curve, meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each figure of the page: its id, heading, caption, and data for both themes."""
    behaviour = (
        " Below it, accuracy with its interval and chance, and the log-probability of the answer:"
        " where one jumps and the other climbs, the jump lies in the metric."
        if curve.behaviour
        else ""
    )
    made: list[tuple[str, str, str, Callable[[ThemeName], Any]]] = [
        (
            "emergence",
            "Emergence over shots",
            "E = macro - micro per block. Bands are bootstrap intervals over prompts. The dashed "
            "line is what any noiseless network that keeps distinct inputs distinct would have: "
            "a constant of the data, no finding and no bound (noise takes from the lone tokens "
            "too). Dotted lines or the grey band are an untrained twin." + behaviour,
            lambda theme: figures.emergence_figure(curve, theme=theme, flags=meanings),
        ),
        (
            "heatmap",
            "Block by shots",
            "The same E at a glance, first block at the bottom. A star marks a flagged value.",
            lambda theme: figures.emergence_heatmap(curve, theme=theme),
        ),
        (
            "terms",
            "The two terms",
            "Macro is the information a block passes on at the last token of the whole sequence; "
            "micro the same for each token fed alone, averaged. Macro near the dashed entropy of "
            "the sequences says only that they stay distinct.",
            lambda theme: figures.macro_micro_figure(curve, theme=theme),
        ),
    ]
    if curve.profile:
        made.append(
            (
                "profile",
                "Over the noise",
                "E depends on the noise scale: little noise leaves every sequence distinct, much "
                "noise hides everything. A finding should hold over a range of it.",
                lambda theme: figures.profile_figure(curve, theme=theme),
            )
        )
    if (comparison := getattr(curve, "comparison", None)) is not None:
        made.append(
            (
                "comparison",
                "Estimators side by side",
                "The same activations, other estimators of information. Their bits differ in "
                "meaning: compare shape and order. What rests on an order on which their rank "
                "correlations in the table do not agree rests on the choice of the estimator.",
                lambda theme: figures.comparison_figure(comparison, theme=theme),
            )
        )
    if (calibration := getattr(curve, "calibration", None)) is not None:
        made.append(("calibration", *calibration_figure_parts(calibration)))
    return [page_figure(*parts) for parts in made]


def calibration_figure_parts(calibration: Any) -> tuple[str, str, Callable[[ThemeName], Any]]:
    """Heading, caption and drawing of a calibration's figure."""
    return (
        "Estimate against truth",
        "The same estimator on populations of known information, of as many rows and columns as "
        "here. Grey: where it counts as right, within 0.25 bits or 10% of the truth. Bars reach "
        "from the least to the most over seeds. What lies beyond twice the largest truth is not "
        "in the picture, but in the table.",
        lambda theme: figures.calibration_figure(calibration, theme=theme),
    )


def page_figure(
    name: str, heading: str, caption: str, draw: Callable[[ThemeName], Any]
) -> dict[str, Any]:
    """A figure as a page's template takes it, for both themes."""
    return {
        "id": name,
        "heading": heading,
        "caption": caption,
        "themes": {theme: embedded(draw(theme)) for theme in THEMES},
    }


def embedded(figure: Any) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    # The page has a heading and a caption of its own.
    top = 30
    if figure.layout.legend.orientation == "h":  # above the axes, and below the tool bar
        shown = sum(
            trace.type == "scatter" and trace.showlegend is not False for trace in figure.data
        )
        top = 90 if shown > 4 else 60
    figure.update_layout(
        title=None, height=figure.layout.height - figure.layout.margin.t + top, margin={"t": top}
    )
    text: str = figure.to_json()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def plotly_script() -> str:
    """Plotly's script, to be put into a page."""
    import plotly.offline

    script: str = plotly.offline.get_plotlyjs()
    return script


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
