"""The house style of every chart: colours for light and dark, fonts, ticks, short texts.

Depth is a sequential scale whose lightness grows (dark theme) or falls off (light theme) evenly,
so that it survives colour blindness and grey printing, and which keeps a contrast of at least 3
to the background at both ends, which viridis and plasma do not (their yellow vanishes on white).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

ThemeName = Literal["light", "dark", "either"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

MANY_BLOCKS = 8
"""With more blocks than this, a colour bar takes the place of one label per block."""

FONT_COLOUR = "#010203"
"""Text of the theme ``either``, which the SVG replaces by the colour of the page around it."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """The colours of one figure, as ``#rrggbb``."""

    background: str
    text: str
    muted: str
    grid: str
    depth: tuple[str, ...]
    """Colours of the first to the last block; between them by linear interpolation."""
    accent: str
    caution: str
    heat: tuple[str, str, str]
    """Colours of negative, zero and positive cells; `text` can be read on all of them."""


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(
        background="#ffffff",
        text="#1b1f27",
        muted="#5b6472",
        grid="#e4e7ec",
        depth=("#14115c", "#4c1d95", "#93278f", "#cf3a63", "#dd6a1f"),
        accent="#0b62c4",
        caution="#a14a00",
        heat=("#e79a52", "#f6f8fc", "#549cdf"),
    ),
    "dark": Theme(
        background="#14171d",
        text="#e8eaee",
        muted="#a3acb9",
        grid="#2b303a",
        depth=("#8672f0", "#c268d8", "#f2779a", "#ffa766", "#ffe57a"),
        accent="#69b1ff",
        caution="#ffb066",
        heat=("#97520f", "#1a202b", "#2c68ad"),
    ),
    # For pictures inside somebody else's page, which may be white or dark.
    "either": Theme(
        background="none",
        text=FONT_COLOUR,
        muted="#7b8391",
        grid="#8a93a24d",
        depth=("#5b6ee8", "#9a55dc", "#cc4aa6", "#d9525c", "#bf7420"),
        accent="#3b86d8",
        caution="#c07a2c",
        heat=("#d98f4a", "#8a93a2", "#549cdf"),
    ),
}
ROLES = ("text", "muted", "accent", "caution")
PAGE_THEMES: tuple[ThemeName, ThemeName] = ("light", "dark")
"""What a page holds; ``either`` is for pictures without a page of their own."""


def colour_of(theme: Theme, colour: str | int | float) -> str:
    """The colour of a mark in a theme: a role, a place on the scale of depth, or ``#rrggbb``."""
    if isinstance(colour, (int, float)):
        return mix(theme.depth, colour)
    return str(getattr(theme, colour)) if colour in ROLES else colour


def depth(layer: int, layers: Sequence[int]) -> float:
    """The place of block ``layer`` on the scale of depth, from 0 to 1."""
    first, last = min(layers), max(layers)
    return (layer - first) / (last - first) if last > first else 0.5


def plural(count: int, noun: str) -> str:
    """``count`` and ``noun``: 1 shot, 2 shots."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def mix(scale: Sequence[str], t: int | float) -> str:
    """The colour at ``t`` in [0, 1] along ``scale``, interpolated in sRGB."""
    place = min(max(t, 0.0), 1.0) * (len(scale) - 1)
    i = min(int(place), len(scale) - 2)
    low, high, part = _rgb(scale[i]), _rgb(scale[i + 1]), place - i
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(low, high, strict=True))


def translucent(colour: str, alpha: float) -> str:
    """``rgba(...)`` of a ``#rrggbb`` colour."""
    red, green, blue = _rgb(colour)
    return f"rgba({red},{green},{blue},{alpha})"


def ticks(values: Sequence[Any], *, at_most: int = 20) -> list[Any]:
    """Those of ``values`` to label on an axis: none so near to the last that labels would touch."""
    ordered = sorted(set(values))
    if len(ordered) < 2:
        return ordered
    apart = (ordered[-1] - ordered[0]) / at_most
    kept = [ordered[0]]
    for value in ordered[1:-1]:
        if value - kept[-1] >= apart and ordered[-1] - value >= apart:
            kept.append(value)
    return [*kept, ordered[-1]]


def shortened(text: str, length: int = 70) -> str:
    """``text`` in one line, with its middle left out where it is longer than ``length``."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return text[:head] + "…" + text[-(length - 1 - head) :]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
