"""What ``ed-interp features measure`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement


def print_measurement(measured: DictionaryMeasurement) -> None:
    """The numbers of the whole dictionary, then sparse probing."""
    console = Console()
    kind = measured.dictionary.get("trained_as") or measured.dictionary.get("architecture")
    console.print(f"[bold]{kind} at {measured.site} of {measured.model}[/]", highlight=False)
    found = measured.recovered
    score, control, scored = measured.monosemanticity
    lines = [
        ("L0, active latents per token", f"{measured.l0:.1f}"),
        ("fraction of variance unexplained", f"{measured.fvu:.4f}"),
        (
            "cross-entropy recovered, of zero ablation",
            f"{found.against_zero:.4f} "
            f"({found.against_zero_low:.4f} to {found.against_zero_high:.4f})",
        ),
        (
            "cross-entropy recovered, of mean ablation",
            f"{found.against_mean:.4f} "
            f"({found.against_mean_low:.4f} to {found.against_mean_high:.4f})",
        ),
        ("living and dead latents", f"{measured.living} and {measured.dead}"),
        (
            f"monosemanticity of {scored} latents (shuffled)",
            f"{score:.3f} ({control:.3f})",
        ),
    ]
    if measured.concepts:
        absorbed = sum(row.absorbed for row in measured.concepts) / len(measured.concepts)
        features = sum(len(row.features) for row in measured.concepts) / len(measured.concepts)
        lines.append(("features per category", f"{features:.1f}"))
        lines.append(("tokens absorbed, per category", f"{absorbed:.3f}"))
    table = Table(box=None, show_header=False)
    for name, value in lines:
        table.add_row(name, value)
    console.print(table)
    if measured.probing:
        probes = Table(box=SIMPLE_HEAD, show_edge=False)
        counts = sorted({row.features for row in measured.probing})
        for head in ("accuracy with k features", *map(str, counts), "all channels", "chance"):
            probes.add_column(head, justify="left" if head.startswith("accuracy") else "right")
        for task in dict.fromkeys(row.task for row in measured.probing):
            rows = sorted(
                (row for row in measured.probing if row.task == task),
                key=lambda row: row.features,
            )
            ends = (rows[0].dense, rows[0].chance)
            values = [*(row.accuracy for row in rows), *ends]
            probes.add_row(task, *(f"{value:.2f}" for value in values))
        console.print(probes)
    console.print(f"[dim]{measured.tokens:,} held-out tokens; {found.tokens:,} predicted[/]")
