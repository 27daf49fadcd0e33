"""Choices, checks and tables of ``ed-interp steer``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ed_interp.errors import InvalidInputError, RunFolderError, unknown

if TYPE_CHECKING:
    from ed_interp.eval.steering.generation import SideBySide
    from ed_interp.eval.steering.result import SweepResult
    from ed_interp.streams.direction import Direction
    from ed_interp.streams.injection import Where

Tokens = Literal["all", "prompt", "last", "generation"]

# The library's own names, repeated because asking it would import torch for --help.
FROM_PAIRS = ("mean_difference", "pca", "logistic", "lda", "whitened")


def check_source(method: str, pairs: Path | None, task: str | None, **given: Any) -> None:
    """Refuse what does not go together, before anything is loaded.

    Raises:
        UnknownNameError: no such method.
        InvalidInputError: no source, two, or an option that the method does not have.
    """
    if method not in (*FROM_PAIRS, "function_vector"):
        raise unknown("method", method, [*FROM_PAIRS, "function_vector"])
    vector = method == "function_vector"
    wanted, other = ("--task", "--pairs") if vector else ("--pairs", "--task")
    named = {"--task": task, "--pairs": pairs}
    if named[wanted] is None or named[other] is not None:
        raise InvalidInputError(f"--method {method} takes {wanted} and no {other}")
    for name in ("site", "read") if vector else ("heads", "shots"):
        if given[name] is not None:
            raise InvalidInputError(f"--{name} does not apply to --method {method}")


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there, before any work.

    Raises:
        RunFolderError: it exists, or its folder does not.
    """
    if out.exists() and not overwrite:
        raise RunFolderError(f"{out} exists; pass another --out, or --overwrite to replace it")
    if not out.resolve().parent.is_dir():
        raise RunFolderError(f"there is no folder {out.resolve().parent}; make it, or pass --out")


def parse_read(text: str | None) -> int | str:
    """An index, or else a part of the text; the last token where nothing is given."""
    if text is None:
        return -1
    try:
        return int(text)
    except ValueError:
        return text


def parse_numbers(text: str, option: str) -> list[float]:
    """Numbers from a comma-separated list.

    >>> parse_numbers("-1,0.5", "--coefficients")
    [-1.0, 0.5]

    Raises:
        InvalidInputError: anything else.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise InvalidInputError(f"{option} {text!r}: numbers such as -1,0.5,2 are expected")
    return found


def selector(name: Tokens) -> Where:
    """The tokens of that name."""
    from ed_interp.streams.injection import Where

    if name == "last":
        return Where(positions=-1)
    return Where() if name == "all" else Where(phase=name)


def described(direction: Direction) -> dict[str, Any]:
    """A direction without its numbers, as plain data."""
    return {
        "method": direction.provenance.method,
        "d_model": direction.d_model,
        "norms": direction.norm(),
        "provenance": direction.provenance.to_dict(),
    }


def print_direction(direction: Direction) -> None:
    """Sites and lengths, and where the direction comes from."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    origin = direction.provenance
    console = Console()
    console.print(
        f"[bold]{escape(origin.method)}[/] in {escape(origin.model.name)} (d_model "
        f"{direction.d_model}, {origin.model.basis}, {origin.stream})"
    )
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("site", no_wrap=True)
    table.add_column("length", justify="right")
    for site, length in direction.norm().items():
        table.add_row(site, f"{length:.3g}")
    console.print(table)
    told = {"model": origin.model.fingerprint, "data": origin.data, **origin.settings}
    console.print(escape(", ".join(f"{name} {value}" for name, value in told.items())), style="dim")


def print_side_by_side(found: Sequence[SideBySide]) -> None:
    """Each prompt with both continuations."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, expand=True)
    for name in ("prompt", "unsteered", "steered"):
        table.add_column(name, ratio=1, overflow="fold")
    for item in found:
        # Text, not markup: a model may well write square brackets.
        table.add_row(Text(item.prompt), Text(item.unsteered.text), Text(item.steered.text))
    Console().print(table)


def print_sweep(result: SweepResult) -> None:
    """The grid, the comparison with controls, and the verdict."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    grid = Table(box=SIMPLE_HEAD, show_edge=False, title="to choose on", title_justify="left")
    grid.add_column("site", no_wrap=True)
    for name in ("strength", "nats", "wrong", "ppl x", "budget"):
        grid.add_column(name, justify="right")
    for cell in result.cells:
        ratio = "inf" if cell.perplexity_ratio is None else f"{cell.perplexity_ratio:.3f}"
        marks = "chosen" if cell == result.chosen else "yes" if cell.within_budget else "no"
        grid.add_row(
            cell.site, f"{cell.coefficient:g}", f"{cell.change:+.2f}", f"{cell.wrong_way:.0%}",
            ratio, marks,
        )  # fmt: skip
    console.print(grid)
    if result.comparisons:
        table = Table(box=SIMPLE_HEAD, show_edge=False, title="held out", title_justify="left")
        for name in ("control", "its score", "steered minus it", "interval", "p (Holm)"):
            table.add_column(name, justify="left" if name == "control" else "right")
        for row in result.comparisons:
            table.add_row(
                row.control, f"{row.score:+.2f}", f"{row.difference:+.2f}",
                f"{row.ci_low:+.2f} to {row.ci_high:+.2f}", f"{row.p_holm:.2g}",
            )  # fmt: skip
        console.print(table)
    console.print(escape(result.verdict))
