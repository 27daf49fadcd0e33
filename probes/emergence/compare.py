"""Estimators side by side on the same activations, and how far they agree.

Bits differ in meaning between estimators; what a finding needs is that the order of blocks and
shots does not depend on which one is asked. So beside the values stand rank correlations over all
blocks and shots, of E and of its macro term.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.curve import EmergenceRow

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclasses.dataclass(frozen=True, slots=True)
class ComparisonRow:
    """Emergence of one block at one shot count by one estimator, in bits."""

    estimator: str
    layer: int
    shots: int
    emergence: float
    ci_low: float
    ci_high: float
    macro: float
    micro: float
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class AgreementRow:
    """Rank correlation of two estimators over blocks and shots."""

    first: str
    second: str
    quantity: str
    """``emergence`` or ``macro``."""
    spearman: float | None
    """None where one of the two is constant, or fewer than 3 values were measured."""
    kendall: float | None
    values: int


@dataclasses.dataclass(frozen=True, repr=False)
class EstimatorComparison:
    """What several estimators say of the same activations. Made by ``emergence(compare=...)``."""

    rows: tuple[ComparisonRow, ...]
    agreement: tuple[AgreementRow, ...]

    def __repr__(self) -> str:
        return f"EstimatorComparison({', '.join(self.estimators)})"

    @property
    def estimators(self) -> list[str]:
        """The estimators, that of the curve first."""
        return list(dict.fromkeys(row.estimator for row in self.rows))

    @property
    def layers(self) -> list[int]:
        """The block indices, ascending."""
        return sorted({row.layer for row in self.rows})

    @property
    def shots(self) -> list[int]:
        """The shot counts, ascending."""
        return sorted({row.shots for row in self.rows})

    def of(self, estimator: str) -> list[ComparisonRow]:
        """The rows of one estimator."""
        return [row for row in self.rows if row.estimator == estimator]

    def to_frame(self) -> pd.DataFrame:
        """One line per (estimator, layer, shots), columns as in :class:`ComparisonRow`."""
        import pandas as pd

        return pd.DataFrame(self.to_dict()["rows"])

    def agreement_frame(self) -> pd.DataFrame:
        """One line per pair of estimators and quantity, columns as in :class:`AgreementRow`."""
        import pandas as pd

        return pd.DataFrame(self.to_dict()["agreement"])

    def plot(self) -> go.Figure:
        """One panel per estimator: E of every block over shots."""
        from ed_interp.figures import comparison_figure

        return comparison_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": [{**dataclasses.asdict(row), "flags": list(row.flags)} for row in self.rows],
            "agreement": [dataclasses.asdict(row) for row in self.agreement],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EstimatorComparison:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: ``data`` is not what :meth:`to_dict` gives.
        """
        try:
            return cls(
                rows=tuple(
                    ComparisonRow(**{**row, "flags": tuple(row["flags"])}) for row in data["rows"]
                ),
                agreement=tuple(AgreementRow(**row) for row in data["agreement"]),
            )
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"not a comparison of estimators: {error}") from error


def side_by_side(found: Mapping[str, Sequence[EmergenceRow]]) -> EstimatorComparison:
    """The comparison from the rows of each estimator, over the same blocks and shots."""
    rows = [
        ComparisonRow(
            name,
            row.layer,
            row.shots,
            row.emergence,
            row.ci_low,
            row.ci_high,
            row.macro,
            row.micro,
            row.flags,
        )
        for name, given in found.items()
        for row in sorted(given, key=lambda row: (row.layer, row.shots))
    ]
    agreement = [
        _agreement(first, second, quantity, rows)
        for first, second in itertools.combinations(found, 2)
        for quantity in ("emergence", "macro")
    ]
    return EstimatorComparison(tuple(rows), tuple(agreement))


def _agreement(
    first: str, second: str, quantity: str, rows: Sequence[ComparisonRow]
) -> AgreementRow:
    left, right = (
        np.array([getattr(row, quantity) for row in rows if row.estimator == name])
        for name in (first, second)
    )
    spearman = kendall = None
    if len(left) >= 3 and np.ptp(left) > 0 and np.ptp(right) > 0:
        spearman = float(stats.spearmanr(left, right).statistic)
        kendall = float(stats.kendalltau(left, right).statistic)
    return AgreementRow(first, second, quantity, spearman, kendall, len(left))
