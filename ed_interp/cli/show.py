"""Results in the terminal: the headline, the tables, and what their words mean.

A table that is wider than the terminal (or the 80 columns of a pipe) continues below itself, so
that no number is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ed_interp.tables import Shown, Table

_WORDS = 16
"""A column of words may be folded down to this width."""


def print_result(result: Shown) -> None:
    """Title, headline, cautions, tables and the meaning of flags."""
    console = Console()
    console.print(f"[bold]{escape(result.title())}[/]")
    if headline := result.headline():
        console.print(escape(headline))
    # Before the numbers: they are to be read with it in mind.
    if cautions := result.cautions():
        console.print(f"[yellow]{escape(cautions)}[/]")
    print_tables([table for table in result.tables() if table.terminal], console=console)
    for word, meaning in result.glossary().items():
        console.print(f"[yellow]{escape(word)}[/][dim]: {escape(meaning)}[/]")


def print_tables(
    tables: Sequence[Table], *, headline: str = "", console: Console | None = None
) -> None:
    """Tables below one another, each under its caption."""
    console = console or Console()
    if headline:
        console.print(escape(headline))
    for table in tables:
        if table.caption:
            console.print(f"\n[bold]{escape(table.caption)}[/]")
        for number, columns in enumerate(_parts(table, console.width)):
            if number:
                console.print()
            console.print(_drawn(table, columns))
        for note in table.notes:
            console.print(f"[dim]{escape(note)}[/]")


def _drawn(table: Table, columns: Sequence[int]) -> RichTable:
    named = any(table.heads)
    drawn = RichTable(
        box=SIMPLE_HEAD if named else None, padding=(0, 1, 0, 0), show_edge=False, show_header=named
    )
    for column in columns:
        words = column in table.text
        drawn.add_column(
            escape(table.heads[column]),
            justify="left" if words or column == 0 else "right",
            no_wrap=not words,
            overflow="fold",
            min_width=None if words else _widths(table)[column],
        )
    for row in table.rows:
        drawn.add_row(*(escape(row[column]) for column in columns))
    return drawn


def _widths(table: Table) -> list[int]:
    return [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=False)]


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """Columns in runs that fit into ``width`` characters, each run led by those that name a row."""
    widths = _widths(table)
    for column in table.text.intersection(range(len(widths))):
        widths[column] = min(widths[column], _WORDS)
    # Rich puts two characters between columns with a head, one of them our padding.
    keys, lead = list(range(table.keys)), sum(widths[: table.keys]) + 2 * (table.keys - 1)
    part, taken = keys, lead
    for column in range(table.keys, len(widths)):
        if len(part) > len(keys) and taken + widths[column] + 2 > width:
            yield part
            part, taken = keys, lead
        part, taken = [*part, column], taken + widths[column] + 2
    yield part
