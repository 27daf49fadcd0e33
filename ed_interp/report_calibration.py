"""The page of a calibration, self-contained like that of a curve, and its short form.

Cost: about a second; the page carries Plotly's script (5 MB).
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from ed_interp.figures.style import FONT, THEMES, translucent
from ed_interp.report import (
    calibration_figure_parts,
    flattened,
    page_figure,
    plotly_script,
    templates,
)


def render_calibration(calibration: Any) -> str:
    """One page that opens offline: the band in words, the figure, the tables, the settings."""
    settings = dict(calibration.settings)
    command = settings.pop("command", None)
    return (
        templates()
        .get_template("calibration.html.j2")
        .render(
            calibration=calibration,
            figure=page_figure("calibration", *calibration_figure_parts(calibration)),
            settings=flattened(settings),
            command=command,
            themes=THEMES,
            font=Markup(FONT),
            translucent=translucent,
            plotly=Markup(plotly_script()),
        )
    )


def calibration_summary(calibration: Any) -> str:
    """A table for notebooks; it loads nothing and has no script."""
    macros = templates().get_template("macros.html.j2").module
    return str(macros.calibration_table(calibration))  # type: ignore[attr-defined]
