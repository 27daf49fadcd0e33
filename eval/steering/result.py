"""`SweepResult`: what steering did on samples it was not tuned on, compared with its controls."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from ed_interp.charts.spec import Chart
from ed_interp.charts.theme import shortened
from ed_interp.eval.steering.charts import dose_response
from ed_interp.eval.steering.rows import SweepCell, SweepComparison
from ed_interp.results import Result
from ed_interp.statistics import smallest_p
from ed_interp.tables import Table


def too_few(held_out: int, *, controls: int = 3, alpha: float = 0.05) -> str:
    """Why no comparison on so many held-out samples can be significant; empty if one can."""
    # Holm multiplies the smallest p of a family by its size.
    if (least := controls * smallest_p(held_out)) < alpha:
        return ""
    enough = next(n for n in itertools.count() if controls * smallest_p(n) < alpha)
    return (
        f"With {held_out} held-out samples the smallest possible corrected p is {least:.2g}, so no "
        f"difference can be significant; use at least {2 * enough - 1} samples (half are held out)."
    )


@dataclasses.dataclass(frozen=True)
class SweepResult(Result):
    """A grid of strengths and places, the cell chosen, and how it did. Made by ``sweep``."""

    KIND = "steering-sweep"
    model: str
    method: str
    """How the direction was found."""
    cells: tuple[SweepCell, ...]
    chosen: SweepCell | None
    """Greatest mean change within the budget; None if no cell keeps it."""
    comparisons: tuple[SweepComparison, ...]
    """Empty if no cell was chosen."""
    score: float | None
    """Mean score under steering, on the half it is reported on."""
    wrong_way: float | None
    """Share of these samples steered the wrong way: whose score fell."""
    wrong_way_low: float | None
    wrong_way_high: float | None
    samples: tuple[int, int]
    """To choose on, and to report on."""
    budget: float
    """Perplexity ratio that a cell may reach to be chosen."""
    perplexity: float
    """Of the neutral text, without steering."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "verdict": self.verdict}

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        # The verdict is written for readers of the file, and made from the numbers again.
        return {name: value for name, value in data.items() if name != "verdict"}

    @property
    def verdict(self) -> str:
        """One line: whether steering beats each control on samples it was not tuned on."""
        if self.chosen is None:
            return (
                f"no strength keeps perplexity within {self.budget:g} times the unsteered: nothing "
                "was chosen; try smaller coefficients"
            )
        cell, change = self.chosen, self.comparisons[0]
        beaten = [row.control for row in self.comparisons if row.beaten]
        rest = [row.control for row in self.comparisons if not row.beaten]
        # Both kinds are named: a verdict that left out lost comparisons would flatter.
        parts = [f"beats {', '.join(beaten)}"] if beaten else []
        lost = "cannot be shown to beat" if self.cautions() else "does not beat"
        parts += [f"{lost} {', '.join(rest)}"] if rest else []
        return (
            f"coefficient {cell.coefficient:g} at {cell.site} {' and '.join(parts)} on "
            f"{self.samples[1]} held-out samples: score {change.difference:+.2f} nats "
            f"({change.ci_low:+.2f} to {change.ci_high:+.2f}), {self.wrong_way:.0%} steered the "
            f"wrong way, perplexity x {cell.perplexity_ratio or float('inf'):.2f}"
        )

    def title(self) -> str:
        return f"Steering of {shortened(self.model, 50)} by {shortened(self.method, 34)}"

    def headline(self) -> str:
        return self.verdict

    def cautions(self) -> str:
        return too_few(self.samples[1])

    def how(self) -> str:
        return (
            f"The score of a sample is log p(wanted) - log p(unwanted). Strength and place were "
            f"chosen on {self.samples[0]} samples: the greatest mean change of the score whose "
            f"perplexity on neutral text, steered at every token, stays within {self.budget:g} "
            f"times the unsteered {self.perplexity:.3g}. On the other {self.samples[1]} samples "
            "steering was compared, sample by sample, with no steering, with random directions of "
            "the same length at the same place, and with an instruction in the prompt. p is that "
            "of sign flips, adjusted by Holm for the three comparisons."
        )

    def tables(self) -> list[Table]:
        grid = Table(
            name="cells",
            caption="To choose on",
            keys=2,
            heads=("site", "strength", "nats", "wrong", "ppl x", "budget"),
            rows=[
                (cell.site, f"{cell.coefficient:g}", f"{cell.change:+.2f}", f"{cell.wrong_way:.0%}",
                 "inf" if cell.perplexity_ratio is None else f"{cell.perplexity_ratio:.3f}",
                 "chosen" if cell == self.chosen else "yes" if cell.within_budget else "no")
                for cell in self.cells
            ],
        )  # fmt: skip
        held = Table(
            name="comparisons",
            caption="Held out",
            heads=("control", "its score", "steered minus it", "interval", "p (Holm)"),
            rows=[
                (row.control, f"{row.score:+.2f}", f"{row.difference:+.2f}",
                 f"{row.ci_low:+.2f} to {row.ci_high:+.2f}", f"{row.p_holm:.2g}")
                for row in self.comparisons
            ],
        )  # fmt: skip
        return [held, grid] if self.comparisons else [grid]

    def charts(self) -> list[Chart]:
        # A picture has room for the finding, not for its numbers.
        below = self.verdict.partition(":")[0]
        return [dose_response(self.cells, self.chosen, self.budget, self.title(), below)]
