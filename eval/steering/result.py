"""`SweepResult`: what steering did on samples it was not tuned on, beside its controls."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclasses.dataclass(frozen=True, slots=True)
class SweepCell:
    """One place and strength, on the half of the samples that the choice is made on."""

    site: str
    coefficient: float
    change: float
    """Mean change of the score against no steering, in nats."""
    ci_low: float
    ci_high: float
    wrong_way: float
    """Share of samples whose score fell."""
    perplexity_ratio: float | None
    """Perplexity of the neutral text, steered at every token, over unsteered; None if infinite."""
    within_budget: bool


@dataclasses.dataclass(frozen=True, slots=True)
class SweepComparison:
    """Steering against one control, on the other half, paired by sample. Scores in nats."""

    control: str
    """``no steering``, ``random direction`` or ``prompt only``."""
    score: float
    """Mean score under the control."""
    difference: float
    """Mean score under steering minus under the control."""
    ci_low: float
    ci_high: float
    p_value: float
    """Two-sided, sign flips over samples."""
    p_holm: float
    """Adjusted for the three comparisons."""

    @property
    def beaten(self) -> bool:
        """Whether steering is better: the interval is above 0, and the adjusted p below 0.05."""
        return self.ci_low > 0 and self.p_holm < 0.05


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """A grid of strengths and places, the cell chosen, and how it did. Made by ``sweep``."""

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

    @property
    def verdict(self) -> str:
        """One line: whether steering beats each control on samples it was not tuned on."""
        if self.chosen is None:
            return (
                f"no strength keeps perplexity within {self.budget:g} times the unsteered: nothing "
                "was chosen; try smaller coefficients"
            )
        cell = self.chosen
        beaten = [row.control for row in self.comparisons if row.beaten]
        rest = [row.control for row in self.comparisons if not row.beaten]
        where = f"coefficient {cell.coefficient:g} at {cell.site}"
        parts = []
        if beaten:
            parts.append(f"beats {', '.join(beaten)}")
        if rest:
            parts.append(f"does not beat {', '.join(rest)}")
        change = self.comparisons[0]
        return (
            f"{where} {' and '.join(parts)} on {self.samples[1]} held-out samples: score "
            f"{change.difference:+.2f} nats ({change.ci_low:+.2f} to {change.ci_high:+.2f}), "
            f"{self.wrong_way:.0%} steered the wrong way, perplexity x "
            f"{cell.perplexity_ratio or float('inf'):.2f}"
        )

    def to_frame(self) -> pd.DataFrame:
        """The grid: one row per cell, columns as in :class:`SweepCell`."""
        return _frame(self.cells, SweepCell)

    def comparison_frame(self) -> pd.DataFrame:
        """One row per control, columns as in :class:`SweepComparison`."""
        return _frame(self.comparisons, SweepComparison)

    def plot(self) -> go.Figure:
        """The dose-response: change of the score over the coefficient, perplexity below it."""
        from ed_interp.eval.steering.figure import dose_response_figure

        return dose_response_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the command line's ``--json``."""
        return {**dataclasses.asdict(self), "samples": list(self.samples), "verdict": self.verdict}

    def to_json(self) -> str:
        """:meth:`to_dict` as strict JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SweepResult:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: ``data`` is something else.
        """
        try:
            fields = {field.name: data[field.name] for field in dataclasses.fields(cls)}
            chosen = fields["chosen"]
            fields |= {
                "cells": tuple(SweepCell(**row) for row in fields["cells"]),
                "chosen": None if chosen is None else SweepCell(**chosen),
                "comparisons": tuple(SweepComparison(**row) for row in fields["comparisons"]),
                "samples": tuple(fields["samples"]),
            }
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"not a steering sweep: {error}") from error

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``run.json``, ``cells.parquet`` and ``dose-response.png`` to ``folder``.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        from ed_interp.eval.steering.files import save_sweep

        return save_sweep(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> SweepResult:
        """Read back what :meth:`save` or the command line wrote.

        Raises:
            RunFolderError: no complete sweep is there.
        """
        from ed_interp.eval.steering.files import load_sweep

        return load_sweep(Path(folder))

    def _repr_html_(self) -> str:
        tables = [frame.to_html(index=False, float_format=lambda value: f"{value:.3g}")
                  for frame in (self.comparison_frame(), self.to_frame())]  # fmt: skip
        return f"<p>{html.escape(self.verdict)}</p>{''.join(tables)}"


def _frame(rows: tuple[Any, ...], kind: type[Any]) -> pd.DataFrame:
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(kind)]
    return pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=columns)
