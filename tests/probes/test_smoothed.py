"""The science of the smoothed estimator: limits, inequalities, closed forms, invariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators import (
    mutual_information,
    normalise,
)
from ed_interp.probes.emergence.estimators.rows import equal_rows
from ed_interp.probes.emergence.estimators.smoothed import NoiseTables, Smoothed


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def entropy(weights: Tensor) -> float:
    share = weights[weights > 0].double() / weights.double().sum()
    return float(-(share * share.log2()).sum())


def by_log_sum_exp(x: Tensor, y: Tensor, noise: float, weights: Tensor, samples: int) -> float:
    """The definition in float64: densities of the mixtures at noisy points, no shortcut."""
    generator = torch.Generator().manual_seed(99)
    x, y, share = x.double(), y.double(), weights.double() / weights.double().sum()
    total = 0.0
    for _ in range(samples):
        logs = []
        for points in (x, y):
            moved = points + noise * torch.randn(points.shape, generator=generator).double()
            logs.append(-torch.cdist(moved, points).square() / (2 * noise**2))
        both, one, other = (
            torch.logsumexp(part + share.log(), 1) for part in (logs[0] + logs[1], *logs)
        )
        total += float((share * (both - one - other)).sum())
    return total / samples / math.log(2)


# --- the definition ------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0, 3.0])
def test_agrees_with_the_definition(noise: float) -> None:
    x, y = normal(40, 3), normal(40, 5, seed=1)
    y[:, :3] += x
    weights = torch.rand(40, generator=torch.Generator().manual_seed(2)) + 0.05
    expected = by_log_sum_exp(x, y, noise, weights, samples=300)
    found = mutual_information(x, y, weights=weights, noise=noise, samples=300)
    assert found.bits == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("noise", [1e-9, 1e-4, 0.02, 0.5, 2.0, 50.0, 1e6])
def test_kernels_agree_with_log_sum_exp_on_the_same_noise(noise: float) -> None:
    x, y, weights = normal(30, 4), normal(30, 6, seed=1), torch.arange(1.0, 31.0)
    pairs = 2
    exact = Smoothed(noise=noise, samples=2 * pairs, dtype="float64")
    found = exact.pair(x, y, weights=weights)
    tables = NoiseTables(30, pairs, 0, torch.float64, x.device)
    logs = []
    for site, points in enumerate((x.double(), y.double())):
        draws = tables.piece(site, points.shape[1], 0, 30)
        draws = torch.cat([draws, -draws])
        gaps = points[:, None] - points[None]
        pushed = torch.einsum("sid,ijd->sij", draws, gaps)
        logs.append(-(gaps.square().sum(-1) / (2 * noise**2) + pushed / noise))
    share = (weights / weights.sum()).double().log()
    both, one, other = (torch.logsumexp(b + share, -1) for b in (logs[0] + logs[1], *logs))
    expected = (both - one - other).mean(0) / math.log(2)
    assert torch.allclose(found.terms[0], expected, atol=1e-8)
    single = Smoothed(noise=noise, samples=2 * pairs).pair(x, y, weights=weights)
    assert torch.allclose(single.terms[0].double(), expected, atol=2e-5)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1e-30, 1e-6, 1e-3])
@pytest.mark.parametrize("weighted", [False, True])
def test_noise_to_zero_gives_the_entropy_of_the_population(noise: float, weighted: bool) -> None:
    weights = torch.arange(1.0, 51.0) if weighted else torch.ones(50)
    found = mutual_information(normal(50, 6), normal(50, 4, seed=1), weights=weights, noise=noise)
    assert found.bits == pytest.approx(entropy(weights), abs=1e-4)
    assert found.limit == pytest.approx(entropy(weights))
    assert "saturated" in found.flags


def test_noise_to_infinity_gives_nothing() -> None:
    x = normal(80, 6)
    for noise in (1e3, 1e9, 1e30):
        found = mutual_information(x, x, noise=noise)
        assert found.bits == pytest.approx(0.0, abs=1e-3)
        assert "lost" in found.flags


def test_noiseless_information_counts_what_both_sides_tell_apart() -> None:
    x = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
    y = torch.tensor([0.0, 1.0, 2.0, 2.0])[:, None]
    for noise in (0.0, 1e-4):
        assert mutual_information(x, y, noise=noise).bits == pytest.approx(1.0)
    # Rows 2 and 3 are equal on both sides: one element of the population, of weight 1/2.
    assert mutual_information(x, y, noise=0.0).limit == pytest.approx(1.5)


def test_a_constant_side_carries_nothing() -> None:
    found = mutual_information(torch.ones(120, 3), normal(120, 3), noise=0.5)
    assert found.bits == pytest.approx(0.0, abs=1e-6)
    assert found.flags == ("constant",)
    same = mutual_information(torch.ones(120, 3), torch.ones(120, 2))
    assert (same.bits, same.limit) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert same.flags == ("constant",)


def test_constant_columns_change_nothing_but_the_noise_drawn() -> None:
    x, y = normal(60, 2), normal(60, 2, seed=1)
    y += 2 * x
    padded = torch.cat([y, torch.full((60, 3), 1e4)], 1)
    plain = mutual_information(x, y, noise=0.5, samples=400)
    assert mutual_information(x, padded, noise=0.5, samples=400).bits == pytest.approx(
        plain.bits, abs=0.05
    )


# --- closed form, inequalities, null -------------------------------------------------------------


def test_correlated_gaussians_reach_the_closed_form() -> None:
    noise, rows = 0.5, 4000
    rho = torch.tensor([0.95, 0.6])
    x = normal(rows, 2)
    y = rho * x + (1 - rho**2).sqrt() * normal(rows, 2, seed=1)
    noisy = rho / (1 + noise**2)
    expected = float(-0.5 * torch.log2(1 - noisy**2).sum())
    found = mutual_information(x, y, noise=noise)
    assert found.bits == pytest.approx(expected, abs=0.08)
    assert found.ci_low < found.bits < found.ci_high


def test_permuted_pairs_are_independent() -> None:
    x = normal(3000, 1)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    found = mutual_information(x, x[order], noise=1.0)
    assert found.ci_low <= 0.003
    assert abs(found.bits) < 0.02
    assert "lost" in found.flags
    assert mutual_information(x, x, noise=1.0).bits == pytest.approx(0.2075, abs=0.04)


def test_data_processing_inequality() -> None:
    x = normal(150, 6)
    y = x + 0.3 * normal(150, 6, seed=1)

    def bits(z: Tensor, *noise: float) -> float:
        return float(Smoothed(noise=noise, samples=100).pair(x, z).bits[0])

    for noise in (0.4, 1.0):
        # Dropping coordinates of the noisy y, and adding more noise to it, are channels after y.
        # (Adding a fixed draw to the rows of y would be none: it spreads the population.)
        projected = [bits(z, noise, noise) for z in (y, y[:, :3], y[:, :1])]
        blurred = [bits(y, noise, noise * factor) for factor in (1, 1.5, 3, 30)]
        for chain in (projected, blurred):
            assert chain == sorted(chain, reverse=True)
            assert chain[0] - chain[-1] > 0.5


def test_symmetry() -> None:
    x, y = normal(100, 3), normal(100, 5, seed=1)
    y[:, :3] += 2 * x
    one = mutual_information(x, y, noise=0.8, samples=300)
    other = mutual_information(y, x, noise=0.8, samples=300)
    assert one.bits == pytest.approx(other.bits, abs=0.05)


def test_a_rotation_or_shift_changes_nothing() -> None:
    x, y = normal(80, 4), normal(80, 4, seed=1)
    y += x
    turn, _ = torch.linalg.qr(normal(4, 4, seed=2))
    plain = mutual_information(x, y, noise=0.7, samples=300).bits
    moved = mutual_information(x @ turn + 100.0, y - 7.0, noise=0.7, samples=300).bits
    assert moved == pytest.approx(plain, abs=0.06)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(2, 12),
    width=st.integers(1, 4),
    noise=st.one_of(st.just(0.0), st.floats(1e-4, 1e3)),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_information_lies_between_zero_and_the_entropy(
    rows: int, width: int, noise: float, seed: int, data: st.DataObject
) -> None:
    cell = st.integers(-2, 2)
    table = st.lists(st.lists(cell, min_size=width, max_size=width), min_size=rows, max_size=rows)
    x, y = (torch.tensor(data.draw(table), dtype=torch.float32) for _ in range(2))
    weights = torch.tensor(
        data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows).filter(any))
    )
    found = Smoothed(noise=noise, samples=256).pair(x, y, weights=weights, seed=seed)
    bits, limit = float(found.bits[0]), float(found.limit)
    # The Monte Carlo error: terms that spread by 2 bits, averaged over 256 samples, at worst.
    error = 0.3 if noise > 0.05 else 1e-5
    assert -error <= bits <= limit + error
    assert limit <= entropy(weights) + 1e-9
    assert bool((found.terms[0, weights == 0] == 0).all())


# --- weights, equal rows -------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.6, 5.0])
def test_weights_equal_repetition(noise: float) -> None:
    x, y, times = normal(12, 3), normal(12, 4, seed=1), torch.tensor([1, 2, 3, 4] * 3)
    y[:, :3] += x
    smoothed = Smoothed(noise=noise, samples=16, dtype="float64")
    weighted = smoothed.pair(x, y, weights=times)
    many_x, many_y = x.repeat_interleave(times, 0), y.repeat_interleave(times, 0)
    repeated = smoothed.pair(many_x, many_y)
    assert torch.allclose(weighted.bits, repeated.bits, atol=1e-10)
    assert torch.allclose(weighted.terms.repeat_interleave(times, 1), repeated.terms, atol=1e-10)
    assert float(weighted.limit) == pytest.approx(float(repeated.limit))


def test_rows_equal_on_one_side_only_are_merged_there() -> None:
    x = normal(10, 3).repeat_interleave(3, 0)
    y = normal(30, 3, seed=1)
    found = mutual_information(x, y, noise=1e-4)
    assert found.bits == pytest.approx(math.log2(10), abs=1e-5)
    assert found.limit == pytest.approx(math.log2(30))


def test_rows_of_weight_zero_have_no_effect() -> None:
    x, y, weights = normal(40, 3), normal(40, 3, seed=1), torch.ones(40)
    weights[::4] = 0
    kept = weights > 0
    whole = mutual_information(x, y, weights=weights)
    part = mutual_information(x[kept], y[kept])
    assert whole.bits == pytest.approx(part.bits)
    assert whole.flags == part.flags
    assert whole.limit == pytest.approx(part.limit)
    assert torch.equal(whole.terms[kept], part.terms)
    assert bool((whole.terms[~kept] == 0).all())
    x[0], y[4] = torch.nan, torch.inf
    assert mutual_information(x, y, weights=weights).bits == whole.bits


def test_equal_rows_are_found_bit_by_bit() -> None:
    x = normal(50, 40)
    x[7], x[9], x[30] = x[3], x[3], x[12]
    x[5], x[6] = 0.0, -0.0
    x[8] = x[3]
    x[8, 17] += 1e-6
    found = equal_rows(x)
    expected = torch.arange(50)
    expected[7], expected[9], expected[30], expected[6] = 3, 3, 12, 5
    assert torch.equal(found, expected)
    assert torch.equal(equal_rows(x.double()), expected)


def test_a_hash_collision_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ed_interp.probes.emergence.estimators import rows

    monkeypatch.setattr(rows, "_hash", lambda x: torch.zeros(len(x), dtype=torch.int64))
    x = torch.tensor([[1.0], [2.0], [1.0]])
    assert rows.equal_rows(x).tolist() == [0, 1, 0]


# --- chains, batches, chunks, seeds --------------------------------------------------------------


def chain_of(batch: int = 2, sites: int = 4, rows: int = 30, width: int = 5) -> Tensor:
    steps = normal(batch, sites, rows, width)
    return normalise(steps.cumsum(1))


def test_chain_shapes_and_its_first_pair() -> None:
    states = chain_of()
    found = Smoothed().chain(states)
    assert found.terms.shape == (2, 3, 30)
    assert found.bits.shape == (2, 3)
    assert found.limit.shape == (2,)
    assert found.intervals().low.shape == (2, 3)
    pair = Smoothed().pair(states[1, 0], states[1, 1])
    assert torch.allclose(pair.terms[0], found.terms[1, 0], atol=1e-5)
    assert Smoothed().chain(states[0]).bits.shape == (3,)


def test_an_identity_block_carries_what_its_input_does() -> None:
    x = normalise(normal(200, 8))
    states = torch.stack([x, x, x])
    first, second = Smoothed(noise=0.8, samples=100).chain(states).bits.tolist()
    assert first == pytest.approx(second, abs=0.05)
    assert 0.5 < first < math.log2(200)


def test_batch_grouping_changes_nothing() -> None:
    states = chain_of(batch=4).reshape(2, 2, 4, 30, 5)
    weights = torch.rand(2, 2, 30, generator=torch.Generator().manual_seed(3))
    weights[1, 0, :5] = 0
    whole = Smoothed(noise=0.5).chain(states, weights=weights)
    assert whole.bits.shape == (2, 2, 3)
    for row in range(2):
        for column in range(2):
            part = Smoothed(noise=0.5, samples=whole.settings["samples"]).chain(
                states[row, column], weights=weights[row, column]
            )
            assert torch.allclose(part.bits, whole.bits[row, column], atol=1e-5)
    shared = Smoothed(noise=0.5).chain(states, weights=weights[0, 0])
    assert torch.allclose(shared.bits[0, 0], whole.bits[0, 0], atol=1e-5)
    one_by_one = whole.intervals().low[1, 0]
    alone = Smoothed(noise=0.5).chain(states[1, 0], weights=weights[1, 0])
    assert np.allclose(alone.intervals().low, one_by_one, atol=0.2)


@pytest.mark.parametrize("max_bytes", [1, 20_000, 100_000])
def test_chunks_change_nothing(max_bytes: int) -> None:
    states = chain_of(rows=70)
    states[0, 1, 5] = states[0, 1, 9]
    exact = Smoothed(dtype="float64")
    whole, cut = exact.chain(states), exact.chain(states, max_bytes=max_bytes)
    assert torch.allclose(whole.terms, cut.terms, atol=1e-10)


def test_row_order_changes_only_the_noise() -> None:
    states = chain_of(batch=1, rows=60)[0]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(4))
    smoothed = Smoothed(samples=400, noise=0.9, dtype="float64")
    one, other = smoothed.chain(states), smoothed.chain(states[:, order])
    assert torch.allclose(one.bits, other.bits, atol=0.05)
    assert torch.allclose(one.terms[:, order], other.terms, atol=1.0)


def test_seeds_reproduce_exactly() -> None:
    states = chain_of()
    one, two, other = (Smoothed().chain(states, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.terms, two.terms)
    assert not torch.equal(one.terms, other.terms)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    Smoothed().chain(states)
    assert torch.equal(before, torch.random.get_rng_state())


def test_inputs_are_left_alone_and_gradients_do_not_flow() -> None:
    states = chain_of().requires_grad_()
    before = states.detach().clone()
    found = Smoothed().chain(states)
    assert torch.equal(states.detach(), before)
    assert not found.terms.requires_grad


def test_one_noise_per_site() -> None:
    states = chain_of(batch=1)[0]
    found = Smoothed(noise=[0.0, 1e9, 0.0, 0.0]).chain(states)
    assert found.bits.tolist() == pytest.approx([0.0, 0.0, math.log2(30)], abs=1e-4)
    with pytest.raises(InvalidInputError, match="one for each of 4 sites, got 3"):
        Smoothed(noise=[1.0, 1.0, 1.0]).chain(states)


# --- intervals -----------------------------------------------------------------------------------


def test_intervals_cover_the_mean_estimate() -> None:
    generator = torch.Generator().manual_seed(5)
    draws, rows, noise = 200, 120, 1.0
    x = torch.randn(draws, rows, 2, generator=generator)
    y = 0.8 * x + 0.6 * torch.randn(draws, rows, 2, generator=generator)
    bits, covered = [], []
    found = [
        Smoothed(noise=noise, samples=6).pair(one, other, seed=index)
        for index, (one, other) in enumerate(zip(x, y, strict=True))
    ]
    bits = np.array([float(one.bits[0]) for one in found])
    for one in found:
        low, high = one.intervals(resamples=300)
        covered.append(bool(low[0] <= bits.mean() <= high[0]))
    assert 0.88 <= np.mean(covered) <= 0.99


def test_estimating_on_resamples_would_lose_most_of_a_bit() -> None:
    """Why intervals resample the row terms: a resample repeats rows."""
    x, y = normal(1000, 20), normal(1000, 20, seed=1)
    y += x
    drawn = np.random.default_rng(0).integers(1000, size=1000)
    whole = mutual_information(x, y, noise=0.05)
    again = mutual_information(x[drawn], y[drawn], noise=0.05)
    assert whole.bits - again.bits == pytest.approx(0.8, abs=0.1)
    assert whole.ci_low > whole.bits - 0.05
