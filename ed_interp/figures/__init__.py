"""Figures of an emergence curve, in one house style.

Interactive ones are Plotly figures, ``theme="light"`` or ``"dark"``; :func:`emergence_png` draws
the same picture without a browser. Cost: importing Plotly takes half a second, a figure
milliseconds; the PNG imports matplotlib and takes a second or two.
"""

from ed_interp.figures.calibration import (
    calibration_figure,
    calibration_png,
    comparison_figure,
)
from ed_interp.figures.interactive import emergence_figure
from ed_interp.figures.panels import emergence_heatmap, macro_micro_figure, profile_figure
from ed_interp.figures.still import emergence_png, emergence_svg

__all__ = [
    "calibration_figure",
    "calibration_png",
    "comparison_figure",
    "emergence_figure",
    "emergence_heatmap",
    "emergence_png",
    "emergence_svg",
    "macro_micro_figure",
    "profile_figure",
]
