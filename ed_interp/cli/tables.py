"""Rich tables of an emergence curve, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ed_interp.probes.emergence.curve import EmergenceCurve


def print_curve(curve: EmergenceCurve) -> None:
    """Emergence per block and shot count, then behaviour, then what the marks mean."""
    console = Console()
    noise = "" if curve.noise is None else f", noise {curve.noise:.3g}"
    title = f"Emergence in bits: {curve.model}, {curve.task} ({curve.estimator}{noise})"
    table = Table(title=title, title_justify="left")
    table.add_column("block", justify="right")
    for shots in curve.shots:
        table.add_column(f"{shots}", justify="right")
    cells = {(row.layer, row.shots): row for row in curve.rows}
    marks: dict[str, str] = {}
    for layer in curve.layers:
        line = [str(layer)]
        for shots in curve.shots:
            row = cells[layer, shots]
            for flag in row.flags:
                marks.setdefault(flag, _MARKS.get(flag, "?"))
            line.append(f"{row.emergence:.2f}" + "".join(marks[flag] for flag in row.flags))
        table.add_row(*line)
    deepest = [cells[curve.layers[-1], shots] for shots in curve.shots]
    table.add_section()
    table.add_row("limit", *(f"{row.limit:.2f}" for row in deepest), style="dim")
    if deepest[0].untrained is not None:
        values = [f"{row.untrained:.2f}" for row in deepest if row.untrained is not None]
        table.add_row("untrained", *values, style="dim")
    console.print(table)
    console.print(
        "[dim]columns: shots; limit: any noiseless network; untrained: last block of the twin[/]"
    )
    if curve.behaviour:
        _print_behaviour(curve, console)
    from ed_interp.probes.emergence.curve import FLAGS

    for flag, mark in marks.items():
        console.print(f"[dim]{mark} {flag}: {FLAGS.get(flag, '')}[/]")


_MARKS = {
    "saturated": "*",
    "few-prompts": "'",
    "fewer-prompts-than-answers": '"',
    "lost": "~",
    "constant": "=",
    "half-precision": "h",
    "processed-weights": "w",
}


def _print_behaviour(curve: EmergenceCurve, console: Console) -> None:
    table = Table(title=f"Answers (chance {curve.behaviour[0].chance:.3f})", title_justify="left")
    table.add_column("shots")
    for row in curve.behaviour:
        table.add_column(str(row.shots), justify="right")
    table.add_row("accuracy", *(f"{row.accuracy:.3f}" for row in curve.behaviour))
    table.add_row("log-probability, nats", *(f"{row.logprob:.2f}" for row in curve.behaviour))
    table.add_row("median rank", *(f"{row.rank:.0f}" for row in curve.behaviour))
    console.print(table)
