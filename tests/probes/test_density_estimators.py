"""What ``gaussian``, ``ksg``, ``latent`` and ``auto`` share: bad input, and what they must do."""

import math
from typing import Any

import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators import get_estimator, mutual_information
from ed_interp.probes.emergence.truth import calibration_tasks, ground_truth_tasks

NAMES = ("gaussian", "ksg", "latent", "auto")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def table(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_wrong_tables_are_refused(name: str) -> None:
    x, bad = table(50, 3), table(50, 3)
    bad[7, 1] = math.nan
    cases: list[tuple[Any, Any, Any, str]] = [
        (bad, x, None, "NaN or infinite"),
        (x, torch.full((50, 1), math.inf), None, "NaN or infinite"),
        (x, x[:20], None, "same rows, got 50 and 20"),
        (x.long(), x, None, "floating point"),
        (x[:1], x[:1], None, "at least 2"),
        (x, x, torch.zeros(50), "sum to zero"),
        (x, x, -torch.ones(50), "negative"),
    ]
    for first, second, weights, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            mutual_information(first, second, weights=weights, estimator=name)


def test_constant_columns_tell_nothing(name: str) -> None:
    x, still = table(120, 3), torch.full((120, 2), 1 / 3)
    found = mutual_information(x, still, estimator=name)
    assert found.bits == 0
    assert "constant" in found.flags
    mixed = mutual_information(
        torch.cat([x, still], 1), x[:, :1] + table(120, 1, 1), estimator=name
    )
    alone = mutual_information(x, x[:, :1] + table(120, 1, 1), estimator=name)
    assert mixed.bits == pytest.approx(alone.bits, abs=1e-6)


def test_fewer_rows_than_columns_answer_with_flags(name: str) -> None:
    x = table(40, 90)
    found = mutual_information(x, x + table(40, 90, 1), estimator=name)
    assert math.isfinite(found.bits)
    assert "few-rows" in found.flags
    assert found.bits < 20


def test_rows_of_weight_zero_have_no_effect(name: str) -> None:
    x, y = table(300, 2), table(300, 2, 1)
    y[:, 0] += x[:, 0]
    weights = torch.ones(300)
    weights[200:] = 0
    found = get_estimator(name).pair(x, y, weights=weights)
    assert bool((found.terms[0, 200:] == 0).all())
    y[200:] = math.nan  # rows of weight 0 may hold anything
    again = get_estimator(name).pair(x, y, weights=weights)
    assert float(found.bits[0]) == pytest.approx(float(again.bits[0]), abs=1e-9)


def test_the_same_seed_gives_the_same(name: str) -> None:
    x, y = calibration_tasks(4, bits=(1.0,), families=("gaussian",))[0].sample(300, seed=0)
    one, two = (get_estimator(name).pair(x, y, seed=3) for _ in range(2))
    assert torch.equal(one.terms, two.terms)
    states = torch.stack([x, y, x])
    assert get_estimator(name).chain(states).terms.shape == (2, 300)


def test_independent_rows_tell_nothing(name: str) -> None:
    found = mutual_information(table(1500, 6), table(1500, 6, 1), estimator=name)
    assert abs(found.bits) < 0.1


@pytest.mark.parametrize(
    ("task", "error"),
    [("concentric-25x1-5", 0.12), ("normal-2pair-25x25", 0.08), ("x-1x1", 0.08)],
)
def test_auto_is_right_where_single_estimators_are_not(task: str, error: float) -> None:
    found = next(one for one in ground_truth_tasks() if one.name == task)
    x, y = found.sample(4000, seed=1)
    assert float(get_estimator("auto").pair(x, y).bits[0]) == pytest.approx(found.bits, abs=error)
    wrong = {"concentric-25x1-5": "ksg", "normal-2pair-25x25": "ksg", "x-1x1": "gaussian"}[task]
    bits = float(get_estimator(wrong).pair(x, y).bits[0])
    assert abs(bits - found.bits) > 3 * error


def test_auto_does_not_believe_a_gaussian_of_clusters() -> None:
    task = next(one for one in ground_truth_tasks(extended=True) if one.name == "merge-16x8")
    x, y = task.sample(1500, seed=0)
    assert float(get_estimator("gaussian").pair(x, y).bits[0]) > 10
    found = get_estimator("auto").pair(x, y)
    assert float(found.bits[0]) == pytest.approx(task.bits, abs=0.2)
    assert set(found.settings["tried"]) == {"gaussian-raw", "gaussian-rank", "latent"}
