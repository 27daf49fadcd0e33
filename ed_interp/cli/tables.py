"""Rich tables of an emergence curve, for the terminal.

A table that is wider than the terminal (or the 80 columns of a pipe) continues below itself, so
that no number is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ed_interp.probes.emergence.curve import EmergenceCurve

_SYMBOLS = "*'\"~=h^spitndxmw"
"""Marks of the flags, in the order in which the curve's module explains them."""

Line = tuple[str, list[str]]
"""A label and its cells."""


def print_curve(curve: EmergenceCurve) -> None:
    """Emergence per block and shot count, then behaviour, then what the marks mean."""
    console = Console()
    noise = "" if curve.noise is None else f", noise {curve.noise:.3g}"
    everywhere = set.intersection(*(set(row.flags) for row in curve.rows)) if curve.rows else set()
    cells = {(row.layer, row.shots): row for row in curve.rows}
    lines: list[Line] = []
    for layer in curve.layers:
        rows = [cells[layer, shots] for shots in curve.shots]
        marks = (
            "".join(_mark(flag) for flag in row.flags if flag not in everywhere) for row in rows
        )
        lines.append(
            (
                str(layer),
                [f"{_bits(row.emergence)}{mark}" for row, mark in zip(rows, marks, strict=True)],
            )
        )
    deepest = [cells[curve.layers[-1], shots] for shots in curve.shots]
    controls: list[Line] = [("limit", [_bits(row.limit) for row in deepest])]
    twin = [row.untrained for row in deepest if row.untrained is not None]
    if twin:
        controls.append(("untrained", [_bits(value) for value in twin]))
    console.print(
        f"[bold]Emergence in bits: {escape(curve.model)}, {escape(curve.task)}[/] "
        f"({escape(curve.estimator)}{noise})"
    )
    heads = [str(shots) for shots in curve.shots]
    _print_table(console, ["block", "shots"], heads, lines, controls)
    about = "limit: any noiseless network, no bound"
    if twin:
        about += "; untrained: last block of a twin with fresh weights"
    console.print(f"[dim]{about}[/]")
    console.print(f"[dim]{_sample(curve)}[/]")
    _print_flags(curve, everywhere, console)
    if curve.behaviour:
        _print_behaviour(curve, console)
    if curve.comparison is not None:
        console.print("\n[bold]Agreement of estimators[/] (rank correlation over blocks and shots)")
        agreement: list[Line] = [
            (
                f"{row.first}, {row.second}: {row.quantity}",
                [_rank(row.spearman), _rank(row.kendall)],
            )
            for row in curve.comparison.agreement
        ]
        _print_table(console, ["", "estimators"], ["Spearman", "Kendall"], agreement, [])
    if curve.calibration is not None:
        console.print(
            f"\n[bold]Calibration[/] at {curve.calibration.n:,} rows, {curve.calibration.d_x} "
            f"columns: {escape(curve.calibration.says())}"
        )


def _rank(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _bits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _sample(curve: EmergenceCurve) -> str:
    """How many prompts were drawn, and of how many where that is known."""
    drawn = curve.settings.get("population", {})
    text = f"{drawn.get('prompts', '?')} prompts, seed {curve.settings.get('seed', '?')}"
    if (size := drawn.get("exact_size")) is not None:
        text += f", of {size:,} that there are at {curve.shots[-1]} shots"
    return text


def _mark(flag: str) -> str:
    from ed_interp.probes.emergence.curve import FLAGS

    return dict(zip(FLAGS, _SYMBOLS, strict=False)).get(flag, "?")


def _print_flags(curve: EmergenceCurve, everywhere: set[str], console: Console) -> None:
    from ed_interp.probes.emergence.curve import FLAGS

    for flag in dict.fromkeys(flag for row in curve.rows for flag in row.flags):
        where = "everywhere" if flag in everywhere else _mark(flag)
        console.print(f"[yellow]{where}[/] [dim]{escape(flag)}: {FLAGS.get(flag, '')}[/]")


def _print_behaviour(curve: EmergenceCurve, console: Console) -> None:
    found = curve.behaviour
    console.print(f"\n[bold]Answers[/] (chance {found[0].chance:.3f})")
    lines: list[Line] = [
        ("accuracy", [f"{row.accuracy:.3f}" for row in found]),
        ("logprob, nats", [f"{row.logprob:.2f}" for row in found]),
        ("median rank", [f"{row.rank:.0f}" for row in found]),
    ]
    _print_table(console, ["", "shots"], [str(row.shots) for row in found], lines, [])


def _print_table(
    console: Console,
    corner: Sequence[str],
    heads: Sequence[str],
    lines: Sequence[Line],
    controls: Sequence[Line],
) -> None:
    label, over = corner
    first = max(len(text) for text in (label, over, *(name for name, _ in (*lines, *controls))))
    widths = [
        max(len(head), *(len(cells[column]) for _, cells in (*lines, *controls)))
        for column, head in enumerate(heads)
    ]
    # Two spaces between columns, or one where that spares a second part.
    gap = 2 if first + sum(width + 2 for width in widths) + 1 <= console.width else 1
    for number, part in enumerate(_parts(widths, console.width - first - 1, gap)):
        if number:
            console.print()
        table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, gap - 1), show_edge=False)
        table.add_column(f"[not bold]{over}[/]\n{label}" if label else over, min_width=first)
        for column in part:
            head = f"\n{heads[column]}" if label else heads[column]
            table.add_column(head, justify="right", no_wrap=True, min_width=widths[column])
        for name, cells in lines:
            table.add_row(name, *(cells[column] for column in part))
        if controls:
            table.add_section()
        for name, cells in controls:
            table.add_row(name, *(cells[column] for column in part), style="dim")
        console.print(table)


def _parts(widths: Sequence[int], room: int, gap: int) -> Iterator[list[int]]:
    """Columns in runs that fit into ``room`` characters, each behind a gap; at least one each."""
    part: list[int] = []
    taken = 0
    for column, width in enumerate(widths):
        if part and taken + width + gap > room:
            yield part
            part, taken = [], 0
        part.append(column)
        taken += width + gap
    yield part
