"""``ed-interp calibrate``: how wrong an estimator is at one number of rows and one width."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ed_interp.cli import options
from ed_interp.cli.running import command_line, shown

if TYPE_CHECKING:
    from ed_interp.probes.emergence.calibration import Calibration

HELP = r"""How wrong is an estimator of mutual information, at your number of rows and width?

Draws populations that tell a known number of bits (Gaussian, Student, nonlinear maps, mixtures,
clusters, repeated rows), runs the estimator, and prints estimate against truth, the range in which
it is right (median within 0.25 bits or 10%), and self-consistency checks.

Writes run.json, a Parquet table, a PNG and one self-contained HTML page to a run folder.

- ed-interp calibrate --estimator gaussian --n 2000 --d 768
- ed-interp calibrate --estimator ksg --d 8 --bits 0,1,2,4 --seeds 5 --json
"""


def command(
    estimator: Annotated[str, typer.Option(help="Of mutual information.")] = "smoothed",
    n: Annotated[int, typer.Option("--n", help="Rows.", callback=options.two_or_more)] = 2000,
    d: Annotated[int, typer.Option("--d", help="Columns.", callback=options.one_or_more)] = 768,
    d_y: Annotated[
        int | None,
        typer.Option(help="Columns of y.", show_default="as --d", callback=options.one_or_more),
    ] = None,
    bits: Annotated[str, typer.Option(help="True values.")] = "0,1,2,4,8",
    families: Annotated[
        str | None, typer.Option(help="Of populations, such as gaussian,clusters.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Samples of every population.", callback=options.one_or_more)
    ] = 3,
    noise: Annotated[
        float | None,
        typer.Option(help="Of the smoothed estimator.", callback=options.above_zero),
    ] = None,
    checks: Annotated[bool, typer.Option(help="Also check self-consistency.", metavar="")] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; an interrupted run in it is resumed.",
            show_default="ed-interp-runs/calibrate-ESTIMATOR-001, ...",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.", metavar="")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.", metavar="")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr.", metavar="")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", metavar="")] = False,
) -> None:
    """Run ``ed-interp calibrate``; what it does is in :data:`HELP`."""
    values = options.parse_bits(bits)
    chosen = options.parse_names(families) or None
    asked = {
        "estimator": estimator,
        "n": n,
        "d": d,
        "d_y": d_y,
        "bits": values,
        "families": chosen,
        "seeds": seeds,
        "noise": noise,
        "checks": checks,
    }
    from ed_interp.probes.emergence.calibration import calibrate
    from ed_interp.probes.emergence.calibration.files import write_calibration
    from ed_interp.probes.emergence.estimators import get_estimator
    from ed_interp.records import RunFolder, next_run_path

    given = {} if noise is None else {"noise": noise}
    get_estimator(estimator, **given)
    target = out or next_run_path(Path("ed-interp-runs"), f"calibrate-{estimator}", asked)
    with RunFolder.open(target, asked, overwrite=overwrite) as run:
        cells = run.folder / "cells"
        found = calibrate(
            estimator,
            n=n,
            d=d,
            d_y=d_y,
            bits=values,
            families=chosen,
            seeds=seeds,
            options=given,
            checks=checks,
            folder=cells,
            progress=not quiet,
        )
        found.settings.update(command=command_line(), asked=asked)
        write_calibration(found, run.folder)
        shutil.rmtree(cells, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), allow_nan=False))
    else:
        print_calibration(found)
    print(f"written to {shown(run.path)}; open {shown(run.path / 'report.html')}", file=sys.stderr)


def print_calibration(found: Calibration) -> None:
    """The table of a calibration, and below it the band and the checks."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    noise = "" if found.noise is None else f", noise {found.noise:.3g}"
    console.print(
        f"[bold]Estimate against truth in bits: {found.estimator}{noise}[/] "
        f"({found.n:,} rows, {found.d_x} x {found.d_y} columns)"
    )
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("population", no_wrap=True)
    for name in ("truth", "estimate", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("right")
    table.add_column("flags")
    for row in found.rows:
        table.add_row(
            row.population,
            f"{row.truth:.2f}",
            f"{row.estimate:.2f}",
            f"{row.estimate - row.truth:+.2f}",
            "yes" if row.right else "[yellow]no[/]",
            ", ".join(row.flags),
        )
    console.print(table)
    console.print(f"{found.estimator} is {found.says()}")
    console.print(
        "[dim]right: median over seeds within 0.25 bits or 10%, from the least value up[/]"
    )
    if found.left_out:
        console.print(f"[dim]truth behind noise not known: {', '.join(found.left_out)}[/]")
    if found.checks:
        console.print("\n[bold]Self-consistency[/]")
    for check in found.checks:
        mark = "[green]holds[/]" if check.holds else "[yellow]fails[/]"
        console.print(
            f"{mark} {check.check}: {check.meaning} "
            f"[dim]({check.found:.2f}, expected {check.expected:.2f})[/]"
        )
