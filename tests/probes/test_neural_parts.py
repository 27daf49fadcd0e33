"""The parts of the trained estimators: bounds, gradients, sampling, margins, reference, pairs."""

import math

import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.neural import reference, sampling, scoring, trained
from ed_interp.probes.emergence.estimators.neural.critics import (
    Separable,
    halving,
    mlp,
    mlp_gradients,
)
from ed_interp.probes.emergence.estimators.neural.reference import normal_scores, white
from ed_interp.probes.emergence.estimators.rows import check_finite


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def objective(scores: Tensor, bound: str) -> Tensor:
    """The definitions, pair by pair."""
    rows = scores.shape[-1]
    joint = scores.diagonal(dim1=1, dim2=2)
    apart = scores[:, ~torch.eye(rows, dtype=torch.bool)]
    if bound == "infonce":
        logs = torch.log_softmax(scores, 2) + torch.log_softmax(scores, 1)
        return logs.diagonal(dim1=1, dim2=2).mean(1) / 2 + math.log(rows)
    if bound == "dv":
        return joint.mean(1) - apart.exp().mean(1).log()
    if bound == "nwj":
        return joint.mean(1) + 1 - apart.exp().mean(1)
    return -(1 + (-joint).exp()).log().mean(1) - (1 + apart.exp()).log().mean(1)


@pytest.mark.parametrize("bound", ["infonce", "dv", "nwj", "smile"])
def test_slopes_are_the_derivatives_of_the_definitions(bound: str) -> None:
    scores = normal(3, 7, 7).double().requires_grad_()
    (expected,) = torch.autograd.grad(objective(scores, bound).sum(), scores)
    assert torch.allclose(scoring.slope(scores.detach(), bound), expected, atol=1e-12)


@pytest.mark.parametrize("bound", ["infonce", "dv", "nwj"])
def test_values_of_equal_weights_are_the_objectives(bound: str) -> None:
    scores = normal(2, 9, 9).double()
    weights = torch.full((2, 9), 1 / 9).double()
    terms = scoring.value_terms(scores, weights, bound, level=torch.zeros(2).double(), clip=0.0)
    assert torch.allclose((terms * weights).sum(1), objective(scores, bound), atol=1e-12)


@pytest.mark.parametrize("bound", ["infonce", "dv", "nwj", "smile"])
def test_terms_are_the_influence_of_the_rows(bound: str) -> None:
    """Row terms say how the value changes when a row's weight does, to first order."""
    scores = normal(1, 40, 40).double()
    weights = torch.full((1, 40), 1 / 40).double()

    def value(weights: Tensor) -> float:
        options = {"level": torch.full((1,), 0.3).double(), "clip": 1.0}
        return float((scoring.value_terms(scores, weights, bound, **options) * weights).sum())

    options = {"level": torch.full((1,), 0.3).double(), "clip": 1.0}
    terms = scoring.value_terms(scores, weights, bound, **options)[0]
    moved = weights.clone()
    moved[0, 3] += 1e-5
    moved[0, 11] -= 1e-5
    slope = (value(moved) - value(weights)) / 1e-5
    # Leaving out a row's pair with itself is of second order: 1 / 40.
    assert slope == pytest.approx(float(terms[3] - terms[11]), abs=0.2)
    assert abs(float(terms[3] - terms[11])) > 0.5


def test_rows_of_weight_zero_have_no_effect() -> None:
    scores = normal(1, 12, 12).double()
    weights = torch.cat([torch.full((1, 9), 1 / 9), torch.zeros(1, 3)], 1).double()
    for bound in ("infonce", "dv", "nwj", "smile"):
        options = {"level": torch.zeros(1).double(), "clip": 2.0}
        padded = scoring.value_terms(scores, weights, bound, **options)
        alone = scoring.value_terms(scores[:, :9, :9], weights[:, :9], bound, **options)
        assert torch.allclose(padded[:, :9], alone, atol=1e-12)


def test_written_out_gradients_equal_automatic_ones() -> None:
    critic = Separable((6, 5), embedding=3)
    weights = critic.start(4, 4, [0, 1], seed=0, neutral=False)
    weights = {name: one + 0.1 for name, one in weights.items()}
    x, change = normal(2, 8, 4), normal(2, 8, 4, seed=1)
    leaves = {name: one.clone().requires_grad_() for name, one in weights.items()}
    (mlp(leaves, "x", x)[-1] * change).sum().backward()
    found = mlp_gradients(weights, "x", mlp(weights, "x", x), change)
    assert len(found) == 6
    for name, one in found.items():
        assert torch.allclose(one, leaves[name].grad, atol=1e-5), name


def test_critics_start_at_the_reference_and_alike_for_alike_streams() -> None:
    weights = Separable().start(4, 4, [0, 1, 0], seed=0, neutral=True)
    first = mlp(weights, "x", normal(3, 8, 4))[-1]
    second = mlp(weights, "y", normal(3, 8, 4, seed=1))[-1]
    # Bit for bit no correction: phi may be anything, psi, u and v are 0.
    assert bool((first[..., :-1] != 0).any())
    assert not bool(first[..., -1].any())
    assert not bool(second.any())
    assert torch.equal(weights["x.0.weight"][0], weights["x.0.weight"][2])
    assert not torch.equal(weights["x.0.weight"][0], weights["x.0.weight"][1])
    assert halving(128) == (64, 32, 16, 8, 4)
    assert halving(2) == (3,)


# --- sampling ------------------------------------------------------------------------------------


def test_as_many_draws_as_rows_are_a_permutation() -> None:
    weights = torch.zeros(3, 50)
    for member, rows in enumerate((50, 37, 2)):
        weights[member, :rows] = 1 / rows
    for member, rows in enumerate((50, 37, 2)):
        found = sampling.draw(weights[member : member + 1, :50], rows, 0, 5)
        assert sorted(found[0].tolist()) == list(range(rows))
    # Whoever else is drawn for, and however long the padding: the same.
    together = sampling.draw(weights, 16, 0, 5)
    alone = sampling.draw(weights[1:2, :40], 16, 0, 5)
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(alone, sampling.draw(weights[1:2, :40], 16, 0, 6))


def test_draws_follow_the_weights() -> None:
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.125, 0.0]])
    counts = torch.zeros(5)
    for step in range(50):
        counts += torch.bincount(sampling.draw(weights, 8, step)[0], minlength=5)
    assert counts.tolist() == [200, 100, 50, 50, 0]


def test_folds_cut_the_rows_into_parts() -> None:
    for rows in (30, 31, 47):
        held = torch.cat([sampling.fold_places(rows, 3, fold)[2] for fold in range(3)])
        assert sorted(held.tolist()) == list(range(rows))
        for fold in range(3):
            parts = sampling.fold_places(rows, 3, fold)
            assert sorted(torch.cat(parts).tolist()) == list(range(rows))
            assert min(map(len, parts)) >= 3


# --- margins and reference -----------------------------------------------------------------------


def test_white_coordinates() -> None:
    x = normal(400, 3) @ normal(3, 6, seed=1) * 100 + 50
    weights = torch.rand(400, generator=torch.Generator().manual_seed(2)).double() + 0.1
    weights /= weights.sum()
    found = white(x, weights, components=8, marginals="raw")
    assert found.shape == (400, 8)
    # Rank 3: three white columns, the rest is padding.
    assert torch.allclose(
        (found[:, :3] * weights[:, None]).mT @ found[:, :3], torch.eye(3).double(), atol=1e-8
    )
    assert not bool(found[:, 3:].any())
    wide = white(
        normal(24, 200), torch.full((24,), 1 / 24).double(), components=64, marginals="raw"
    )
    assert int((wide != 0).any(0).sum()) == 3  # one for every eight rows
    flat = white(
        torch.ones(50, 3), torch.full((50,), 0.02).double(), components=2, marginals="normal"
    )
    assert not bool(flat.any())


def test_normal_scores_are_blind_to_monotone_maps() -> None:
    x = normal(300, 2).double()
    weights = torch.full((300,), 1 / 300).double()
    found = normal_scores(x, weights)
    assert torch.allclose(
        found, normal_scores(torch.stack([x[:, 0].exp(), x[:, 1] ** 3], 1), weights)
    )
    assert torch.allclose(found.std(0), torch.ones(2).double(), atol=0.02)
    ties = normal_scores(torch.tensor([[1.0], [1.0], [2.0]]).double(), weights[:3] * 100)
    assert ties[0] == ties[1] < ties[2]
    # A row of weight 2 is two rows.
    twice = normal_scores(torch.tensor([[1.0], [2.0], [2.0]]).double(), torch.ones(3).double() / 3)
    once = normal_scores(torch.tensor([[1.0], [2.0]]).double(), torch.tensor([1, 2]).double() / 3)
    assert torch.allclose(twice[:2], once)


def test_the_bias_of_the_gaussian_is_gone() -> None:
    found, plain = [], []
    for seed in range(20):
        x, y = normal(20, 100, 8, seed=seed), normal(20, 100, 8, seed=100 + seed)
        weights = torch.full((20, 100), 0.01).double()
        sides = [
            torch.stack([white(t, weights[0], components=8, marginals="raw") for t in side])
            for side in (x, y)
        ]
        found.append(reference.gaussian_nats(*sides, weights).mean())
        cross = (sides[0].mT @ sides[1]) / 100
        plain.append(-0.5 * torch.log1p(-(torch.linalg.svdvals(cross) ** 2)).sum(1).mean())
    assert abs(float(torch.stack(found).mean())) < 0.02
    assert float(torch.stack(plain).mean()) > 0.3


def test_the_reference_is_the_log_ratio_of_the_densities() -> None:
    rho, rows = 0.8, 4000
    x = normal(1, rows, 1).double()
    y = rho * x + math.sqrt(1 - rho**2) * normal(1, rows, 1, seed=1).double()
    share = torch.full((1, rows), 1 / rows).double()
    x, y = ((t - t.mean()) / t.std(correction=0) for t in (x, y))
    found = reference.fit_reference(x, y, share, share)
    s = float((x * y).mean())
    joint = torch.distributions.MultivariateNormal(
        torch.zeros(2).double(), torch.tensor([[1, s], [s, 1]]).double()
    )
    one = torch.distributions.Normal(0.0, 1.0)
    expected = (
        joint.log_prob(torch.cat([x[0], y[0]], 1))
        - one.log_prob(x[0, :, 0])
        - one.log_prob(y[0, :, 0])
    )
    assert torch.allclose(found.joint()[0], expected, atol=0.01)
    with torch.no_grad():
        assert not bool(reference.no_reference(x, y).joint().any())


# --- atoms ---------------------------------------------------------------------------------------


def test_what_counts_as_discrete() -> None:
    x, few = normal(400, 3), normal(40, 3)
    labels = torch.arange(400) % 40
    assert trained.is_discrete(few[labels], few[labels], None)
    assert not trained.is_discrete(x, x, None)
    assert not trained.is_discrete(few[labels], x, None)  # y tells more than x: a real question
    assert trained.is_discrete(few, few, torch.full((40,), 10.0))
    assert not trained.is_discrete(few, few, torch.ones(40))
    assert trained.is_discrete(x[:29], x[:29], None)
    assert trained.counts_of(torch.tensor([0.5, 0.5])) is None
    assert trained.counts_of(torch.tensor([2.0, 3.0])).tolist() == [2.0, 3.0]


def test_discrete_information_is_that_of_the_labels() -> None:
    x = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
    y = torch.tensor([0.0, 1.0, 2.0, 2.0])[:, None]
    weights = torch.tensor([0.25, 0.25, 0.25, 0.25]).double()
    assert float(trained.discrete_terms(x, y, weights) @ weights) == pytest.approx(1.0)
    uneven = torch.tensor([0.5, 0.25, 0.125, 0.125]).double()
    same = torch.arange(4.0)[:, None]
    assert float(trained.discrete_terms(same, -same, uneven) @ uneven) == pytest.approx(1.75)
    with pytest.raises(InvalidInputError, match="NaN"):
        check_finite(torch.tensor([[torch.nan]]), 0)
