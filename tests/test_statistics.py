"""Intervals and tests against scipy and closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.statistics import (
    bootstrap_interval,
    chance_level,
    holm,
    mcnemar,
    paired_difference,
    smallest_p,
    wilson_interval,
)


def test_bootstrap_of_a_mean_matches_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values, resamples=4000)
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert (float(low), float(high)) == pytest.approx(expected, abs=0.02)


def test_bootstrap_keeps_trailing_axes_and_treats_each_alone() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3, 2))
    low, high = bootstrap_interval(values, seed=5)
    assert low.shape == high.shape == (3, 2)
    alone = bootstrap_interval(values[:, 2, 1], seed=5)
    assert (low[2, 1], high[2, 1]) == pytest.approx((float(alone.low), float(alone.high)))


def test_bootstrap_is_seeded() -> None:
    values = np.random.default_rng(2).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_bootstrap_weights() -> None:
    values = np.random.default_rng(3).normal(size=(40, 2))
    plain = bootstrap_interval(values)
    for ones in (np.full(40, 7.0), np.full((40, 1), 7.0), np.full((40, 2), 7.0)):
        weighted = bootstrap_interval(values, weights=ones)
        assert np.allclose(plain.low, weighted.low)
        assert np.allclose(plain.high, weighted.high)
    weights = np.zeros(40)
    weights[7] = 1.0
    low, high = bootstrap_interval(values, weights=weights)
    assert np.allclose(low, values[7])
    assert np.allclose(high, values[7])


def test_bootstrap_weighted_mean_has_its_standard_error() -> None:
    rng = np.random.default_rng(4)
    values, weights = rng.normal(size=600), rng.uniform(0.1, 3.0, size=600)
    low, high = bootstrap_interval(values, weights=weights, resamples=4000)
    share = weights / weights.sum()
    error = np.sqrt((share**2 * (values - share @ values) ** 2).sum())
    assert float(high - low) == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_bootstrap_median() -> None:
    values = np.random.default_rng(5).normal(size=(101, 2))
    low, high = bootstrap_interval(values, statistic="median", resamples=500)
    assert np.all(low <= np.median(values, axis=0))
    assert np.all(np.median(values, axis=0) <= high)


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ([], {}, "at least one row"),
        ([1.0, np.nan], {}, "NaN"),
        ([1.0, 2.0], {"level": 1.0}, "level"),
        ([1.0, 2.0], {"resamples": 0}, "resamples"),
        ([1.0, 2.0], {"weights": [1.0]}, "2 rows"),
        ([1.0, 2.0], {"weights": [1.0, -1.0]}, "0 or greater"),
        ([1.0, 2.0], {"weights": [0.0, 0.0]}, "zero"),
        ([1.0, 2.0], {"weights": [1.0, np.nan]}, "finite"),
        ([[1.0], [2.0]], {"weights": np.ones((2, 3))}, "must broadcast"),
        ([1.0, 2.0], {"weights": [1.0, 2.0], "statistic": "median"}, "mean"),
    ],
)
def test_bootstrap_refuses(values: list[float], options: dict, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        bootstrap_interval(values, **options)


def test_bootstrap_names_the_statistics() -> None:
    with pytest.raises(UnknownNameError, match="median"):
        bootstrap_interval([1.0, 2.0], statistic="medain")


def test_paired_difference_of_few_rows_is_exact() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.7, 1.0, size=(2, 9))
    found = paired_difference(a, b)
    expected = stats.permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert float(found.p_value) == pytest.approx(expected.pvalue)
    assert float(found.difference) == pytest.approx(float(np.mean(a - b)))


def test_paired_difference_of_many_rows_agrees_with_the_t_test() -> None:
    rng = np.random.default_rng(7)
    a = rng.normal(size=(300, 2))
    b = a + rng.normal([0.1, 0.0], 1.0, size=(300, 2))
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b).pvalue
    assert np.allclose(found.p_value, expected, atol=0.02)
    assert np.all((found.low <= found.difference) & (found.difference <= found.high))


@pytest.mark.parametrize("rows", [1, 5, 7, 13])
def test_the_smallest_p_is_that_of_one_sign_throughout(rows: int) -> None:
    result = paired_difference(np.arange(1.0, rows + 1), np.zeros(rows), resamples=1)
    assert float(result.p_value) == smallest_p(rows) == 2 / 2**rows
    assert smallest_p(14) == smallest_p(10**6) == 1e-4


def test_paired_difference_of_equals_is_nothing() -> None:
    a = np.random.default_rng(8).normal(size=20)
    found = paired_difference(a, a)
    assert (float(found.difference), float(found.p_value)) == (0.0, 1.0)
    assert float(found.low) == float(found.high) == 0.0


def test_paired_difference_is_antisymmetric() -> None:
    a, b = np.random.default_rng(9).normal(size=(2, 25))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert float(one.difference) == -float(other.difference)
    assert float(one.p_value) == float(other.p_value)
    with pytest.raises(InvalidInputError, match="equal shapes"):
        paired_difference(a, b[:-1])


def test_paired_difference_weights_equal_repetition() -> None:
    rng = np.random.default_rng(10)
    a, b, times = rng.normal(size=8), rng.normal(size=8), np.arange(1, 9)
    weighted = paired_difference(a, b, weights=times)
    repeated = paired_difference(np.repeat(a, times), np.repeat(b, times))
    assert float(weighted.difference) == pytest.approx(float(repeated.difference))


def test_wilson_matches_its_formula() -> None:
    k, n, z = 37, 50, stats.norm.ppf(0.975)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    assert wilson_interval(k, n) == pytest.approx((centre - half, centre + half))
    assert wilson_interval(0, 10)[0] == 0.0
    for successes, total in ((3, 0), (5, 4), (-1, 4)):
        with pytest.raises(InvalidInputError, match="from 0 to n"):
            wilson_interval(successes, total)


def test_chance_level_is_the_share_of_the_commonest_answer() -> None:
    assert chance_level(["a", "b", "a", "c"]) == 0.5
    assert chance_level(["a", "b", "a", "c"], weights=[1, 6, 2, 1]) == pytest.approx(0.6)
    with pytest.raises(InvalidInputError, match="got none"):
        chance_level([])
    with pytest.raises(InvalidInputError, match="weights"):
        chance_level(["a", "b"], weights=[1.0])


def test_mcnemar_counts_disagreements_only() -> None:
    a = np.array([1] * 50 + [1] * 9 + [0] * 2 + [0] * 30, dtype=bool)
    b = np.array([1] * 50 + [0] * 9 + [1] * 2 + [0] * 30, dtype=bool)
    assert mcnemar(a, b) == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert mcnemar(a, b) == mcnemar(b, a) == mcnemar(a[50:61], b[50:61])
    assert mcnemar(a, a) == 1.0
    with pytest.raises(InvalidInputError, match="boolean"):
        mcnemar([1, 0], [0, 1])
    with pytest.raises(InvalidInputError, match="one length"):
        mcnemar(a, b[:-1])


def test_holm_by_hand() -> None:
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert holm([]).shape == (0,)
    with pytest.raises(InvalidInputError, match="from 0 to 1"):
        holm([0.5, np.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(raw: list[float]) -> None:
    adjusted = holm(raw)
    assert np.all(adjusted >= np.array(raw) - 1e-15)
    assert np.all(adjusted <= np.minimum(1, np.array(raw) * len(raw)) + 1e-12)
    for one, other in itertools.combinations(range(len(raw)), 2):
        if raw[one] < raw[other]:
            assert adjusted[one] <= adjusted[other]
