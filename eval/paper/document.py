"""What a paper is made of: blocks of prose, tables and pictures, and the numbers in them.

A number, or any other text that comes from a record, is a :class:`Value`: it is made from a place
in a record only, and carries that place onto the page. Prose (``str``) has no digits. Cost: none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ed_interp.eval.paper.records import Record


@dataclasses.dataclass(frozen=True)
class Value:
    """A text of the page that stands in a record."""

    text: str
    """As it is shown: rounded, with its sign or as it is."""
    record: str
    """Id of the record."""
    file: str
    """File of the record's folder."""
    path: tuple[str | int, ...]
    """Keys and indices that lead to it."""
    missing: bool = False
    """The record has nothing there: ``none``, or no such place at all (no text)."""

    @property
    def key(self) -> str:
        """The path in one word: ``summary[3].mean``."""
        return key_of(self.path)


@dataclasses.dataclass(frozen=True)
class Code:
    """A command, a name or a formula of ed-interp itself: no result of a run."""

    text: str


@dataclasses.dataclass(frozen=True)
class Quote:
    """A definition that the package gives, in its words."""

    text: str
    source: str
    """``module:NAME`` of it."""


@dataclasses.dataclass(frozen=True)
class Citation:
    """A work of the list of references, by its key there."""

    work: str


Part: TypeAlias = "str | Value | Code | Quote | Citation"
Parts: TypeAlias = "tuple[Part, ...]"


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Sentences."""

    parts: Parts
    kind: str = "paragraph"


@dataclasses.dataclass(frozen=True)
class Gap:
    """What no record holds, in place of prose about it."""

    parts: Parts
    kind: str = "gap"


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[Parts, ...]
    kind: str = "bullets"


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading inside a section; what it is about is a value where a record names it."""

    parts: Parts
    kind: str = "heading"


@dataclasses.dataclass(frozen=True)
class Table:
    """Values in rows; the first column names the row."""

    caption: Parts
    heads: tuple[str, ...]
    rows: tuple[tuple[Parts, ...], ...]
    text: frozenset[int] = frozenset()
    """Columns, from 0, that hold words."""
    kind: str = "table"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: interactive on the screen, still on paper and in Markdown."""

    name: str
    caption: Parts
    figure: dict[str, Any]
    """From :func:`ed_interp.report.page_figure`."""
    still: str
    """The same as SVG."""
    kind: str = "picture"


Block: TypeAlias = "Paragraph | Gap | Bullets | Heading | Table | Picture"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the paper; ``letter`` marks an appendix."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    letter: str = ""

    @property
    def heading(self) -> str:
        """The title as it is shown."""
        return f"Appendix {self.letter}. {self.title}" if self.letter else self.title


@dataclasses.dataclass(frozen=True)
class Paper:
    """All of it."""

    title: Parts
    records: tuple[Record, ...]
    sections: tuple[Section, ...]

    def values(self) -> Iterator[Value]:
        """Every value, in the order of the page."""
        for part in self.parts():
            if isinstance(part, Value):
                yield part

    def parts(self) -> Iterator[Part]:
        """Every part of every sentence and cell, in the order of the page."""
        yield from self.title
        for section in self.sections:
            for block in section.blocks:
                yield from parts_of(block)


def parts_of(block: Block) -> Iterator[Part]:
    """The parts of a block, captions first."""
    if isinstance(block, (Paragraph, Gap, Heading)):
        yield from block.parts
    elif isinstance(block, Bullets):
        for item in block.items:
            yield from item
    elif isinstance(block, Picture):
        yield from block.caption
    else:
        yield from block.caption
        for row in block.rows:
            for cell in row:
                yield from cell


def paragraph(*parts: Part) -> Paragraph:
    """Sentences, from their parts."""
    return Paragraph(parts)


def heading(*parts: Part) -> Heading:
    """A heading, from its parts."""
    return Heading(parts)


def gap(what: str, command: str) -> Gap:
    """The line that stands where a record is missing."""
    return Gap((f"No record of {what} was given; ", Code(command), " makes one."))


def listed(items: Sequence[Parts], *, last: str = " and ") -> Parts:
    """Parts of an enumeration: commas, and a word before the last."""
    found: list[Part] = []
    for place, item in enumerate(items):
        if place:
            found.append(last if place == len(items) - 1 else ", ")
        found += item
    return tuple(found)


def key_of(path: Sequence[str | int]) -> str:
    """A path as one would write it: ``summary[3].mean``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text
