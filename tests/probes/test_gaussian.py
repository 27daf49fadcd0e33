"""The Gaussian estimator: bias, shrinkage, invariances, weights, intervals."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators import mutual_information
from ed_interp.probes.emergence.estimators.gaussian import (
    Gaussian,
    chance_nats,
    largest_by_chance,
    shrunk_correlations,
)
from ed_interp.probes.emergence.estimators.tables import normal_ranks
from ed_interp.probes.emergence.truth.laws import Canonical


def rows(correlations: tuple[float, ...], d: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    x, y = Canonical(correlations, d, d).draw(n, np.random.default_rng(seed))
    return torch.from_numpy(x), torch.from_numpy(y)


def bits(estimator: Gaussian, x: Tensor, y: Tensor, weights: Tensor | None = None) -> float:
    return float(estimator.pair(x, y, weights=weights).bits[0])


def test_the_analytic_correction_is_unbiased_where_the_plain_value_is_not() -> None:
    law = (0.8, 0.5)
    truth = Canonical(law, 20, 20).exact_bits()
    plain, right = Gaussian(correction="none"), Gaussian(correction="analytic")
    found = [
        (bits(plain, *rows(law, 20, 100, s)), bits(right, *rows(law, 20, 100, s)))
        for s in range(40)
    ]
    means, errors = np.mean(found, 0), np.std(found, 0) / math.sqrt(len(found))
    assert means[0] > truth + 20 * errors[0]
    assert abs(means[1] - truth) < 4 * errors[1]


def test_chance_agrees_with_its_first_order() -> None:
    assert chance_nats(10, 10, 1e5) == pytest.approx(100 / 200_000, rel=0.01)


def test_shrinkage_inverts_the_limit_of_large_tables() -> None:
    d, n = 100, 1000
    x, y = rows((0.9, 0.8), d, n, 0)
    squared = (
        np.linalg.svd(
            np.linalg.qr(x - x.mean(0))[0].T @ np.linalg.qr(y - y.mean(0))[0], compute_uv=False
        )
        ** 2
    )
    kept = shrunk_correlations(list(squared), d, d, n - 1.0)
    assert squared[1] > 0.64 + 0.02  # what is to be undone
    assert kept[0] == pytest.approx(0.81, abs=0.04)
    assert kept[1] == pytest.approx(0.64, abs=0.06)
    assert sum(kept[2:]) == 0


def test_chance_correlations_rarely_pass_the_threshold() -> None:
    d, n = 10, 200
    above = 0
    for seed in range(200):
        x, y = rows((), d, n, seed)
        left, right = np.linalg.qr(x - x.mean(0))[0], np.linalg.qr(y - y.mean(0))[0]
        above += np.linalg.norm(left.T @ right, 2) ** 2 > largest_by_chance(d, d, n - 1.0)
    assert 2 <= above <= 22  # 5% of 200 are 10


def test_few_rows_are_flagged_and_do_not_explode() -> None:
    x, y = rows((0.9,), 60, 50, 0)
    found = Gaussian().pair(x, y)
    assert found.flags_at(0) == ("projected", "shrunk")
    assert 0 <= float(found.bits[0]) < 5
    assert bits(Gaussian(correction="none"), x, y) > 100


def test_linear_maps_and_order_of_sides_change_nothing() -> None:
    x, y = rows((0.8, 0.5), 5, 400, 1)
    mixed = x @ torch.from_numpy(np.random.default_rng(0).standard_normal((5, 5))) * 1e3 + 7
    value = bits(Gaussian(), x, y)
    assert bits(Gaussian(), mixed, y) == pytest.approx(value, abs=1e-6)
    assert bits(Gaussian(), y, x) == pytest.approx(value, abs=1e-9)


def test_ranks_undo_monotone_maps() -> None:
    x, y = rows((0.8,), 3, 2000, 2)
    value = bits(Gaussian(margins="rank"), x, y)
    assert bits(Gaussian(margins="rank"), torch.exp(3 * x), y**3) == pytest.approx(value, abs=1e-9)
    assert value == pytest.approx(0.737, abs=0.08)
    assert bits(Gaussian(), torch.exp(3 * x), y**3) < 0.3


def test_ranks_of_ties_are_equal_and_weights_are_repeats() -> None:
    x = torch.tensor([[1.0], [2.0], [2.0], [5.0]]).double()
    found = normal_ranks(x, torch.full((4,), 0.25).double())[:, 0]
    assert found[1] == found[2] == 0
    assert found[0] == -found[3]
    once = normal_ranks(x[[0, 1, 3]], torch.tensor([0.25, 0.5, 0.25]).double())[:, 0]
    assert torch.allclose(once, found[[0, 1, 3]])


def test_weights_are_repeated_rows() -> None:
    x, y = rows((0.8,), 3, 300, 3)
    counts = torch.from_numpy(np.random.default_rng(1).integers(0, 4, 300))
    plain = Gaussian(correction="none")
    repeated = bits(plain, x.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0))
    assert bits(plain, x, y, counts.double()) == pytest.approx(repeated, abs=1e-9)


def test_terms_average_to_the_estimate_and_intervals_cover() -> None:
    truth = Canonical((0.7,), 2, 2).exact_bits()
    hits = 0
    for seed in range(60):
        x, y = rows((0.7,), 2, 300, seed)
        found = mutual_information(x, y, estimator="gaussian", seed=seed)
        assert float(found.terms.mean()) == pytest.approx(found.bits)
        hits += found.ci_low <= truth <= found.ci_high
    assert hits >= 51  # of 60 at 95%


def test_chain_equals_pairs() -> None:
    x, y = rows((0.8,), 3, 200, 4)
    states = torch.stack([torch.stack([x, y, y + x]), torch.stack([y, x, x])])
    found = Gaussian().chain(states)
    assert found.terms.shape == (2, 2, 200)
    assert float(found.bits[0, 0]) == pytest.approx(bits(Gaussian(), x, y))
    assert found.flags_at(1, 1) == ("ill-conditioned",)
    assert found.flags_at(0, 0) == ()


def test_the_choices_of_an_option_are_named() -> None:
    with pytest.raises(InvalidInputError, match="analytic, spectral or none, got 'analytical'"):
        Gaussian(correction="analytical")
