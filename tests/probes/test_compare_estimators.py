"""Estimators side by side: rank correlations, round trip, the figure."""

import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.compare import EstimatorComparison, side_by_side
from ed_interp.probes.emergence.curve import EmergenceRow


def rows(values: list[float]) -> list[EmergenceRow]:
    return [
        EmergenceRow(place // 2, place % 2, one, one - 1, one + 1, one + 2, 2.0, 5.0, 7.0, None)
        for place, one in enumerate(values)
    ]


def test_rank_correlations_see_order_alone() -> None:
    found = side_by_side(
        {
            "a": rows([1.0, 2.0, 3.0, 4.0]),
            "b": rows([1.0, 20.0, 300.0, 4000.0]),
            "c": rows([4.0, 3.0, 1.0, 2.0]),
            "d": rows([1.0, 1.0, 1.0, 1.0]),
        }
    )
    by = {(row.first, row.second, row.quantity): row for row in found.agreement}
    assert len(by) == 12
    assert by["a", "b", "emergence"].spearman == pytest.approx(1)
    assert by["a", "b", "emergence"].kendall == pytest.approx(1)
    assert by["a", "c", "macro"].spearman == pytest.approx(-0.8)
    assert by["a", "c", "macro"].kendall == pytest.approx(-4 / 6)
    assert by["a", "d", "emergence"].spearman is None
    assert found.estimators == ["a", "b", "c", "d"]
    assert EstimatorComparison.from_dict(found.to_dict()) == found
    assert len(found.to_frame()) == 16
    assert len(found.agreement_frame()) == 12
    assert len(found.plot().data) == 4 * 2
    with pytest.raises(InvalidInputError, match="not a comparison"):
        EstimatorComparison.from_dict({"rows": []})
