"""Estimators side by side on the same activations, and how far they agree."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.probes.emergence.charts import comparison_chart
from ed_interp.probes.emergence.rows import AgreementRow, ComparisonRow
from ed_interp.probes.emergence.tables import agreement_table, comparison_table
from ed_interp.probes.emergence.words import agreement_text
from ed_interp.results import Result
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True, repr=False)
class EstimatorComparison(Result):
    """Several estimators on the same activations; `emergence(compare_estimators=...)` makes it."""

    KIND: ClassVar[str] = "estimator-comparison"

    rows: tuple[ComparisonRow, ...]
    agreement: tuple[AgreementRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"EstimatorComparison({', '.join(self.estimators)})"

    @property
    def estimators(self) -> list[str]:
        """The estimators, that of the curve first."""
        return list(dict.fromkeys(row.estimator for row in self.rows))

    def of(self, estimator: str) -> list[ComparisonRow]:
        """The rows of one estimator."""
        return [row for row in self.rows if row.estimator == estimator]

    def title(self) -> str:
        return f"Estimators side by side: {', '.join(self.estimators)}"

    def headline(self) -> str:
        return agreement_text(self.agreement)

    def tables(self) -> list[Table]:
        return [agreement_table(self.agreement), comparison_table(self.rows)]

    def charts(self) -> list[Chart]:
        return [comparison_chart(self.rows, title=self.title())]
