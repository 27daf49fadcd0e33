"""The result of a calibration: estimate against truth, and the band within which it is right.

The band of a family of populations is the range of true values, from the least up, in which the
rule (:mod:`~.rows`) holds without a gap; that of the whole calibration is the range in which it
holds for every family. Beyond the band an estimate is a number without a meaning in bits.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.probes.emergence.calibration.charts import calibration_chart
from ed_interp.probes.emergence.calibration.rows import RULE, CalibrationRow, CheckRow
from ed_interp.probes.emergence.words import glossary
from ed_interp.results import Result
from ed_interp.tables import Table, plain_table


@dataclasses.dataclass(frozen=True, repr=False)
class Calibration(Result):
    """Estimate against truth at one number of rows and one width. Made by ``calibrate``."""

    KIND: ClassVar[str] = "calibration"
    VERSION: ClassVar[int] = 2

    estimator: str
    n: int
    d_x: int
    d_y: int
    rows: tuple[CalibrationRow, ...]
    bands: dict[str, float | None]
    """Per family the largest true value up to which the estimator is right; None for none."""
    checks: tuple[CheckRow, ...] = ()
    """Self-consistency of the estimator at the same size; empty without `checks`."""
    noise: float | None = None
    """Noise per coordinate, for estimators that add some: the truth is that of the noisy rows."""
    left_out: tuple[str, ...] = ()
    """Families whose truth through that noise is not known."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Calibration({self.estimator!r}, n={self.n}, {self._width()}, {self.says()})"

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 recorded the rule and the band of all families, which follow from the rows."""
        if version > 1:
            return data
        checks = [
            {"estimate" if name == "found" else name: value for name, value in check.items()}
            for check in data.get("checks", [])
        ]
        kept = {name: value for name, value in data.items() if name not in ("rule", "band")}
        return {**kept, "checks": checks}

    def band(self) -> float | None:
        """The true value up to which the estimator is right on every family; None for none."""
        tops = [top for top in self.bands.values() if top is not None]
        return min(tops) if tops and len(tops) == len(self.bands) else None

    def says(self) -> str:
        """Up to which true value the estimator is right, per family."""
        good = [f"{name} to {top:.2g} bits" for name, top in self.bands.items() if top is not None]
        bad = [name for name, top in self.bands.items() if top is None]
        if not good:
            return "right nowhere"
        return "right on " + ", ".join([*good, *([f"nowhere on {', '.join(bad)}"] if bad else [])])

    def title(self) -> str:
        return f"Calibration of {self.estimator}"

    def headline(self) -> str:
        return f"At {self.n:,} rows and {self._width()} columns, {self.estimator} is {self.says()}."

    def facts(self) -> dict[str, str]:
        facts = {"Estimator": self.estimator, "Rows": f"{self.n:,}", "Columns": self._width()}
        if self.noise is not None:
            facts["Noise per coordinate"] = f"{self.noise:.4g}"
        return facts

    def how(self) -> str:
        parts = [
            "The estimator was run on samples of populations whose mutual information is known. "
            f"Right means: {RULE}, whichever is more, at every true value up to the one given."
        ]
        if self.noise is not None:
            parts.append(
                f"The truth is that of the populations behind noise of scale {self.noise:.4g} per "
                "coordinate, which is what this estimator estimates."
            )
        if self.left_out:
            left = ", ".join(self.left_out)
            parts.append(f"Left out, as their truth behind noise is not known: {left}.")
        return " ".join(parts)

    def glossary(self) -> dict[str, str]:
        # Imported here, as it imports torch, which loading a calibration does not need.
        from ed_interp.probes.emergence.estimators.registry import flag_meanings

        return glossary(self.rows, flag_meanings(self.estimator))

    def tables(self) -> list[Table]:
        short = Table(
            name="estimates",
            caption="Estimate against truth, in bits",
            heads=["population", "truth", "estimate", "error", "right", "flags"],
            rows=[
                [
                    row.population,
                    f"{row.truth:.3f}",
                    f"{row.estimate:.3f}",
                    f"{row.estimate - row.truth:+.3f}",
                    "yes" if row.right else "no",
                    ", ".join(row.flags),
                ]
                for row in self.rows
            ],
            text=frozenset({4, 5}),
            notes=[f"right: {RULE}, from the least value up"],
        )
        shown = functools.partial(plain_table, number=".3f")
        heads = {"truth_error": "error of truth", "low": "over seeds"}
        tables = [
            short,
            shown("calibration", "Every number of the calibration", self.rows, heads=heads),
        ]
        if self.checks:
            tables.append(shown("checks", "Self-consistency, in bits", self.checks, terminal=True))
        return tables

    def charts(self) -> list[Chart]:
        noise = "" if self.noise is None else f", noise {self.noise:.3g}"
        title = f"{self.estimator}{noise} · {self.n:,} rows, {self._width()} columns"
        return [calibration_chart(self.rows, title=title, below=self.says())]

    def _width(self) -> str:
        return f"{self.d_x} x {self.d_y}"
