"""Estimators side by side: rank correlations, round trip, the figure."""

import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.curve import EstimatorComparison
from ed_interp.probes.emergence.rows import EmergenceRow
from ed_interp.probes.emergence.tabulate import comparison_rows


def rows(values: list[float]) -> list[EmergenceRow]:
    return [
        EmergenceRow(place // 2, place % 2, one, one - 1, one + 1, one + 2, 2.0, 5.0, 7.0, None)
        for place, one in enumerate(values)
    ]


def test_rank_correlations_see_order_alone() -> None:
    estimates = {
        "a": rows([1.0, 2.0, 3.0, 4.0]),
        "b": rows([1.0, 20.0, 300.0, 4000.0]),
        "c": rows([4.0, 3.0, 1.0, 2.0]),
        "d": rows([1.0, 1.0, 1.0, 1.0]),
    }
    comparison = EstimatorComparison(*comparison_rows(estimates))
    by = {(row.first, row.second, row.quantity): row for row in comparison.agreement}
    assert len(by) == 12
    assert by["a", "b", "emergence"].spearman == pytest.approx(1)
    assert by["a", "b", "emergence"].kendall == pytest.approx(1)
    assert by["a", "c", "macro"].spearman == pytest.approx(-0.8)
    assert by["a", "c", "macro"].kendall == pytest.approx(-4 / 6)
    assert by["a", "d", "emergence"].spearman is None
    assert comparison.estimators == ["a", "b", "c", "d"]
    assert EstimatorComparison.from_dict(comparison.to_dict()) == comparison
    assert len(comparison.to_frame()) == 16
    assert len(comparison.to_frame("agreement")) == 12
    assert "1.00 between a and b" in comparison.headline()
    assert len(comparison.plot().data) == 4 * 2
    with pytest.raises(InvalidInputError, match="agreement"):
        EstimatorComparison.from_dict({"rows": []})
