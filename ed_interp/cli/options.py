"""Choices and checks of options: what is wrong is refused before anything is loaded."""

from __future__ import annotations

import math
import re
from typing import Literal

import typer

from ed_interp.errors import InvalidInputError

# The library's own names, repeated because asking it would import torch for --help.
Normalisation = Literal["auto", "layernorm", "rms", "none"]
LonePosition = Literal["zero", "original"]
Dtype = Literal["float32", "bfloat16", "float16", "auto"]
ReadingPath = Literal["auto", "packed", "prefix", "separate"]

_DIGITS = re.compile("[0-9]+")


def above_zero(value: float | None) -> float | None:
    """A finite number above 0, or nothing given."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a finite number above 0")
    return value


def one_or_more(value: int | None) -> int | None:
    """A count of at least 1, or nothing given."""
    return _at_least(1, value)


def two_or_more(value: int | None) -> int | None:
    """A count of at least 2, or nothing given."""
    return _at_least(2, value)


def _at_least(least: int, value: int | None) -> int | None:
    if value is not None and value < least:
        raise typer.BadParameter(f"{value} is below {least}")
    return value


def share(value: float) -> float:
    """A number between 0 and 1, without the ends."""
    if not 0 < value < 1:
        raise typer.BadParameter(f"{value} does not lie between 0 and 1")
    return value


def seed(value: int) -> int:
    """A number that every random generator takes as its seed."""
    if not 0 <= value < 2**63:
        raise typer.BadParameter(f"{value} is no seed; use 0 or above")
    return value


def parse_shots(text: str) -> list[int]:
    """Shot counts from ``0-8``, ``0,1,2,4`` or a mixture.

    >>> parse_shots("0-2,8")
    [0, 1, 2, 8]

    Raises:
        InvalidInputError: anything else.
    """
    counts: list[int] = []
    for part in text.replace(" ", "").split(","):
        low, dash, high = part.partition("-")
        if not _DIGITS.fullmatch(low) or (dash and not _DIGITS.fullmatch(high)):
            raise InvalidInputError(
                f"--shots {text!r}: counts such as 0-8 or 0,1,2,4,8 are expected"
            )
        last = int(high) if dash else int(low)
        if last < int(low) or last > 10_000:
            raise InvalidInputError(f"--shots {text!r}: {part} is no ascending range up to 10,000")
        counts += range(int(low), last + 1)
    return counts


def parse_names(text: str | None) -> list[str]:
    """Names from a comma-separated list; none from nothing.

    >>> parse_names("gaussian, ksg,gaussian")
    ['gaussian', 'ksg']
    """
    names = (name.strip() for name in (text or "").split(","))
    return list(dict.fromkeys(name for name in names if name))


def parse_bits(text: str) -> list[float]:
    """True values from a comma-separated list of numbers.

    >>> parse_bits("0,1,2.5")
    [0.0, 1.0, 2.5]

    Raises:
        InvalidInputError: anything else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"--bits {text!r}: numbers such as 0,1,2,4 are expected") from None
