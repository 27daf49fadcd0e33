"""Nearest neighbours: against a plain loop, with ties and weights, and at its ceiling."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.ksg import KSG
from ed_interp.probes.emergence.truth.laws import Canonical


def rows(rho: tuple[float, ...], d: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x, y = Canonical(rho, d, d).draw(n, np.random.default_rng(seed))
    return torch.from_numpy(x), torch.from_numpy(y)


def plain(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """The formula of Kraskov and others by loops over rows, in bits."""
    x, y = ((z - z.mean(0)) / z.std(0) for z in (x, y))
    total = 0.0
    for i in range(len(x)):
        far_x, far_y = (np.abs(z - z[i]).max(1) for z in (x, y))
        far_x[i] = far_y[i] = np.inf
        eps = np.sort(np.maximum(far_x, far_y))[k - 1]
        total += digamma((far_x < eps).sum() + 1) + digamma((far_y < eps).sum() + 1)
    return float((digamma(k) + digamma(len(x)) - total / len(x)) / math.log(2))


@pytest.mark.parametrize(("d", "k"), [(1, 3), (2, 1), (3, 4), (5, 3)])
def test_equals_the_formula_by_loops(d: int, k: int) -> None:
    x, y = rows((0.8,), d, 150)
    found = KSG(neighbours=k, norm="max").pair(x, y)
    assert float(found.bits[0]) == pytest.approx(plain(x.numpy(), y.numpy(), k), abs=1e-9)


def test_trees_and_distances_agree_and_the_chunks_do_not_matter() -> None:
    x, y = rows((0.6,), 2, 300, 1)
    tree = KSG().pair(x, y).terms
    even = torch.ones(300).double()
    even[0] += 1e-6  # not quite even: all distances
    slow = KSG(norm="max").pair(x, y, weights=even, max_bytes=50_000).terms
    assert torch.allclose(tree, slow, atol=1e-3)


def test_right_in_few_columns() -> None:
    for rho in (0.0, 0.6, 0.9):
        x, y = rows((rho,), 1, 2000, 2)
        truth = Canonical((rho,), 1, 1).exact_bits()
        assert float(KSG().pair(x, y).bits[0]) == pytest.approx(truth, abs=0.08)
        assert float(KSG(norm="euclidean").pair(x, y).bits[0]) == pytest.approx(truth, abs=0.08)


def test_repeated_rows_give_the_information_of_their_table() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 8, 800))
    codes = torch.eye(8).double()
    found = KSG().pair(codes[labels], codes[(3 * labels + 1) % 8])
    assert float(found.bits[0]) == pytest.approx(3.0, abs=0.02)
    assert found.flags_at(0) == ("ties",)
    halves = KSG().pair(codes[labels], codes[labels // 2])
    assert float(halves.bits[0]) == pytest.approx(2.0, abs=0.02)


def test_weights_of_repeats_agree_with_the_repeats() -> None:
    labels = torch.arange(8).repeat_interleave(torch.tensor([10, 20, 30, 40, 50, 60, 70, 20]))
    codes = torch.eye(8).double()
    many = float(KSG().pair(codes[labels], codes[labels]).bits[0])
    share = torch.bincount(labels).double() / len(labels)
    entropy = float(-(share * share.log2()).sum())
    assert many == pytest.approx(entropy, abs=0.03)


def test_its_ceiling_is_flagged() -> None:
    x, _ = rows((), 2, 200, 3)
    found = KSG().pair(x, x * 2 + 1)
    assert float(found.bits[0]) <= (digamma(200) - digamma(3)) / math.log(2) + 0.3
    assert "at-log-n" in found.flags_at(0)


def test_fewer_rows_than_neighbours_still_answer() -> None:
    x, y = rows((0.5,), 1, 3, 4)
    assert math.isfinite(float(KSG(neighbours=5).pair(x, y).bits[0]))


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="neighbours must be 1 or greater, got 0"):
        KSG(neighbours=0)
    with pytest.raises(InvalidInputError, match="auto, max or euclidean, got 'euclid'"):
        KSG(norm="euclid")
