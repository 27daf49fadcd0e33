"""What a sentence or a cell can hold besides the template's own words, each with its source.

A number reaches the page as a :class:`Value`, which is made from a place in a record only
(:class:`~ed_interp.eval.paper.records.Place`) and carries that place onto the page. Cost: none.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from ed_interp.charts.spec import Chart

Step: TypeAlias = "str | int"


@dataclasses.dataclass(frozen=True)
class Value:
    """A text of the page that comes from a record."""

    text: str
    """As it is shown: rounded, with its sign or as it is."""
    record: str
    """Id of the record."""
    file: str
    """File of the record's folder."""
    path: tuple[Step, ...]
    """Keys and indices that lead to it."""
    missing: bool = False
    """The record has nothing at this place: ``none``, or no such place at all (no text)."""

    @property
    def key(self) -> str:
        """The path in one word: ``summary[3].mean``."""
        return key_of(self.path)

    @property
    def source(self) -> str:
        """Record, file and key."""
        return f"{self.record} {self.file} {self.key}"


@dataclasses.dataclass(frozen=True)
class Code:
    """A name, a path or a command: text to copy, and not a result of a run."""

    text: str


@dataclasses.dataclass(frozen=True)
class Quote:
    """A definition in the package's own words."""

    text: str
    source: str
    """``module:NAME`` of it."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A work of the list of references."""

    key: str
    label: str
    """As sentences cite it: authors and year."""
    text: str
    """As it is listed."""
    listed: bool = False
    """Whether this is its entry in the list, and not a citation of it."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: interactive on the screen, still on paper and in Markdown."""

    chart: Chart


Part: TypeAlias = Value | Code | Quote | Work | Picture
"""Whatever an expression of the template puts on the page besides plain words."""


def shown(raw: Any, form: str = "") -> str:
    """Plain data as text: floats by the format ``form``; empty if there is nothing to show."""
    if raw is None:
        return ""
    if isinstance(raw, bool):  # before int, of which bool is a subclass
        return "yes" if raw else "no"
    if isinstance(raw, float):
        return format(raw, form or ".4g")
    if isinstance(raw, int):
        # A count stays whole where its column is formatted for fractions.
        return format(raw, form if form == "," or form.endswith("g") else "d")
    if isinstance(raw, (list, tuple)):
        return ", ".join(shown(item, form) or "none" for item in raw)
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


def key_of(path: Sequence[Step]) -> str:
    """A path as one would write it: ``summary[3].mean``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", step):
            text += f".{step}" if text else step
        else:  # a name with dots or spaces would read as several steps
            text += f"[{step!r}]"
    return text
