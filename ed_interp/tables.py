"""Numbers as people read them: one table for a page, a notebook and a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ed_interp.charts.spec import Chart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Cells that are formatted already; the first column names the row."""

    name: str
    """Unique within a result; letters, digits and hyphens."""
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: frozenset[int] = frozenset()
    """Columns that hold words: aligned to the left and allowed to wrap."""
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


def plain_table(name: str, caption: str, rows: Sequence[Any], *notes: str) -> Table:
    """Rows as they are, one column per field that has a value in any of them; for the page."""
    fields = [field.name for field in dataclasses.fields(rows[0])] if rows else []
    fields = [name for name in fields if any(getattr(row, name) not in (None, "") for row in rows)]
    words = {number for number, field in enumerate(fields)
             if any(isinstance(getattr(row, field), (str, tuple)) for row in rows)}  # fmt: skip
    return Table(
        name=name,
        caption=caption,
        heads=[field.replace("_", " ").replace("ci ", "interval ") for field in fields],
        rows=[[_plain_cell(getattr(row, field)) for field in fields] for row in rows],
        text=frozenset(words),
        notes=notes,
        terminal=False,
        folded=True,
    )


def _plain_cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain_cell, value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else f"{value:,}" if type(value) is int else str(value)
