"""Sentences and tables about a calibration, made from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ed_interp.probes.emergence.calibration.rows import (
    ABSOLUTE_BITS,
    RELATIVE,
    CalibrationRow,
    CheckRow,
)
from ed_interp.probes.emergence.tables import table_of
from ed_interp.tables import Table

RULE = f"the median over seeds is within {ABSOLUTE_BITS:g} bits or {RELATIVE:.0%} of the truth"


def band_text(bands: Mapping[str, float | None]) -> str:
    """Up to which true value the estimator is right, per family."""
    good = [f"{family} to {top:.2g} bits" for family, top in bands.items() if top is not None]
    bad = [family for family, top in bands.items() if top is None]
    if not good:
        return "right nowhere"
    return "right on " + ", ".join([*good, *([f"nowhere on {', '.join(bad)}"] if bad else [])])


def how(noise: float | None, left_out: Sequence[str]) -> str:
    """What was measured, and what counts as right."""
    parts = [
        "The estimator was run on samples of populations whose mutual information is known. Right "
        f"means: {RULE}, whichever is more, at every true value up to the one given."
    ]
    if noise is not None:
        parts.append(
            f"The truth is that of the populations behind noise of scale {noise:.4g} per "
            "coordinate, which is what this estimator estimates."
        )
    if left_out:
        parts.append(f"Left out, as their truth behind noise is not known: {', '.join(left_out)}.")
    return " ".join(parts)


def calibration_tables(rows: Sequence[CalibrationRow], checks: Sequence[CheckRow]) -> list[Table]:
    """Estimate against truth, every number of it, and the checks if they were run."""
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
            for row in rows
        ],
        text=frozenset({4, 5}),
        notes=[f"right: {RULE}, from the least value up"],
    )
    heads = {"truth_error": "error of truth", "low": "over seeds"}
    caption = "Every number of the calibration"
    tables = [
        short,
        table_of(
            rows, heads=heads, name="calibration", caption=caption, folded=True, terminal=False
        ),
    ]
    if checks:
        tables.append(table_of(checks, name="checks", caption="Self-consistency, in bits"))
    return tables
