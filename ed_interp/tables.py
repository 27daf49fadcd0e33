"""Numbers as people read them: one table for a page, a notebook and a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ed_interp.charts.spec import Chart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Cells that are formatted already; the first column or columns (``keys``) name the row."""

    name: str
    """Unique within a result; letters, digits and hyphens."""
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: frozenset[int] = frozenset()
    """Columns that hold words: aligned to the left and allowed to wrap."""
    keys: int = 1
    """Leading columns that together name a row: a wide table repeats them in each of its parts."""
    notes: Sequence[str] = ()
    """Lines below the table."""
    folded: bool = False
    """On a page, closed until the reader opens it."""
    page: bool = True
    """Shown on the page."""
    terminal: bool = True
    """Printed in the terminal and shown in notebooks."""


@runtime_checkable
class Shown(Protocol):
    """What a page and the terminal ask of a result; see :class:`ed_interp.results.Result`."""

    @property
    def _settings(self) -> Mapping[str, Any]: ...
    def title(self) -> str: ...
    def headline(self) -> str: ...
    def cautions(self) -> str: ...
    def facts(self) -> Mapping[str, str]: ...
    def how(self) -> str: ...
    def glossary(self) -> Mapping[str, str]: ...
    def tables(self) -> Sequence[Table]: ...
    def charts(self) -> Sequence[Chart]: ...


def plain_table(
    name: str,
    caption: str,
    rows: Sequence[Any],
    *notes: str,
    heads: Mapping[str, str] | None = None,
    formats: Mapping[str, str] | None = None,
    number: str = ".3g",
    keys: int = 1,
    folded: bool = True,
    terminal: bool = False,
) -> Table:
    """Rows as they are, one column per field with a value in any row and one per interval.

    ``heads`` and ``formats`` are those of fields, where names and ``number`` do not suit. What a
    terminal shows is not folded.
    """
    heads, columns, words = dict(heads or {}), dict[str, list[str]](), set[int]()
    for field in [field.name for field in dataclasses.fields(rows[0])] if rows else []:
        values = [getattr(row, field) for row in rows]
        cells = [_plain_cell(value, (formats or {}).get(field, number)) for value in values]
        low = field.removesuffix("high") + "low"
        if low in columns:  # the other end of an interval
            ends = zip(columns[low], cells, strict=True)
            columns[low] = [least and f"{least} to {most}" for least, most in ends]
        elif any(value not in (None, "") for value in values):
            if any(isinstance(value, (str, tuple, bool)) for value in values):
                words.add(len(columns))
            columns[field] = cells
            plain = "interval" if field.endswith("low") else field.replace("_", " ")
            heads.setdefault(field, plain)
    return Table(
        name=name,
        caption=caption,
        heads=[heads[field] for field in columns],
        rows=[list(line) for line in zip(*columns.values(), strict=True)],
        text=frozenset(words),
        keys=keys,
        notes=notes,
        terminal=terminal,
        folded=folded and not terminal,
    )


def _plain_cell(value: Any, number: str) -> str:
    if isinstance(value, tuple):
        return ", ".join(_plain_cell(one, number) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, number)
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
