"""Paired timing: what stands in the numerator and the denominator is run in turns, in one process.

A shared machine changes speed from minute to minute, so a ratio of two totals says little. Here
every round runs A and B one right after the other (and B first in every second round), and the
median over rounds of A/B is reported with its least and greatest value. Ratios are of CPU time
(``time.process_time``, all threads of the process), which does not count the time in which others
had the processor; wall time stands beside it. One thread by default, as CPU time of waiting
threads counts too.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.table import Table

Work = Callable[[], Any]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    quick: bool = False
    rounds: int | None = None
    seed: int = 0

    def rounds_or(self, usual: int, quick: int) -> int:
        """Rounds to run: as asked, or the benchmark's own number."""
        return self.rounds or (quick if self.quick else usual)


@dataclasses.dataclass(frozen=True)
class Taken:
    """Time of one call, in seconds."""

    cpu: float
    wall: float

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.cpu + other.cpu, self.wall + other.wall)

    def __sub__(self, other: Taken) -> Taken:
        return Taken(self.cpu - other.cpu, self.wall - other.wall)


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound on the median ratio."""

    kind: Literal["at most", "at least"]
    value: float

    def met(self, ratio: float) -> bool:
        """Whether the ratio keeps the bound."""
        return ratio <= self.value if self.kind == "at most" else ratio >= self.value

    def __str__(self) -> str:
        return f"{'<=' if self.kind == 'at most' else '>='} {self.value:g}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a ratio with its range, or a note why there is none."""

    name: str
    ratios: tuple[float, ...] = ()
    cpu_seconds: float | None = None
    """Median CPU time of one call of what the row names."""
    wall_seconds: float | None = None
    target: Target | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        """Median ratio; None for a row that is only a note."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None where there is none, or nothing was measured."""
        median = self.median
        return None if self.target is None or median is None else self.target.met(median)

    def cells(self) -> list[str]:
        """The row as text."""
        median = self.median
        verdict = {True: "[green]met[/]", False: "[bold red]NOT met[/]", None: ""}[self.met]
        return [
            self.name,
            "" if median is None else f"[bold]{number(median)}[/]",
            "" if median is None else f"{number(min(self.ratios))} - {number(max(self.ratios))}",
            str(len(self.ratios) or ""),
            "" if self.cpu_seconds is None else number(self.cpu_seconds),
            "" if self.wall_seconds is None else number(self.wall_seconds),
            "" if self.target is None else str(self.target),
            verdict,
            self.note,
        ]


@dataclasses.dataclass(frozen=True)
class Result:
    """One table."""

    title: str
    ratio: str
    """What is divided by what."""
    rows: tuple[Row, ...]
    setting: str = ""

    def print(self, console: Console) -> None:
        """The table, on stdout."""
        table = Table(title=self.title, caption=self.setting, title_justify="left")
        heads = (self.ratio, "min - max", "rounds", "CPU s", "wall s", "target", "", "note")
        table.add_column("", overflow="fold")
        for head in heads:
            numeric = head not in ("", "note")
            table.add_column(head, justify="right" if numeric else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row.cells())
        console.print(table)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rows = [
            dataclasses.asdict(row)
            | {"median": row.median, "met": row.met, "target": str(row.target or "") or None}
            for row in self.rows
        ]
        return {"title": self.title, "ratio": self.ratio, "setting": self.setting, "rows": rows}


def timed(work: Callable[[], T]) -> tuple[Taken, T]:
    """Run once, without a garbage collection in the middle: its time and what it gave."""
    gc.collect()
    gc.disable()
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        given = work()
        return Taken(time.process_time() - cpu, time.perf_counter() - wall), given
    finally:
        gc.enable()


def paired(
    base: Work,
    others: Mapping[str, Work],
    *,
    rounds: int,
    label: str = "",
    warm: bool = False,
) -> dict[str, list[tuple[Taken, Taken]]]:
    """(other, base) of every round, for every other.

    Before anything counts all are run once, unless they are ``warm``: a check has run them.
    """
    for name, work in {} if warm else {"": base, **others}.items():
        say(f"{label} warm-up {name}")
        work()
    taken: dict[str, list[tuple[Taken, Taken]]] = {name: [] for name in others}
    for turn in range(rounds):
        for name, work in others.items():
            say(f"{label} round {turn + 1}/{rounds} {name}")
            if turn % 2:
                other, reference = timed(work)[0], timed(base)[0]
            else:
                reference, other = timed(base)[0], timed(work)[0]
            taken[name].append((other, reference))
    say("")
    return taken


def row_of(
    name: str,
    pairs: Sequence[tuple[Taken, Taken]],
    *,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """A row of ratios of CPU time, other/base; the seconds shown are the other's."""
    ratios = [other.cpu / base.cpu for other, base in pairs]
    return Row(
        name,
        tuple(ratios),
        statistics.median(other.cpu for other, _ in pairs),
        statistics.median(other.wall for other, _ in pairs),
        target,
        note,
    )


def base_row(name: str, taken: Mapping[str, Sequence[tuple[Taken, Taken]]], note: str = "") -> Row:
    """The line of what everything was divided by."""
    bases = [base for pairs in taken.values() for _, base in pairs]
    return Row(
        name,
        (),
        statistics.median(base.cpu for base in bases),
        statistics.median(base.wall for base in bases),
        None,
        note or "the base of the ratios",
    )


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log time over log size by least squares."""
    x = [math.log(size) for size in sizes]
    y = [math.log(max(second, 1e-9)) for second in seconds]
    slope, _ = statistics.linear_regression(x, y)
    return slope


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def missing(name: str, package: str) -> Row:
    """The line of a peer that is not here."""
    return Row(name, note=f"not installed: pip install {package}")


def say(text: str) -> None:
    """Progress on stderr: one line that replaces itself on a terminal, else one line each."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    elif text:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
