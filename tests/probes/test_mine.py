"""The paper's estimator against a second derivation of it, in numpy."""

import itertools
import math

import numpy as np
import pytest
import torch

from ed_interp.probes.emergence.estimators import get_estimator, mutual_information
from ed_interp.probes.emergence.estimators.mine import learning_rate, paper_value
from ed_interp.probes.emergence.estimators.neural.critics import Concat


def by_hand(weights, x, y, other) -> float:
    """The loss of the paper for one pair: an MLP, a mean, and the log of a mean of exponentials."""

    def critic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = np.concatenate([first, second], axis=1)
        layers = len(weights) // 2
        for layer in range(layers):
            found = found @ weights[f"xy.{layer}.weight"] + weights[f"xy.{layer}.bias"]
            if layer < layers - 1:
                found = np.maximum(found, 0) + 0.01 * np.minimum(found, 0)
        return found[:, 0]

    return float(critic(x, y).mean() - np.log(np.exp(critic(x, other)).mean()))


def test_the_loss_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    critic = Concat()
    weights = critic.start(12, 12, [0, 1], seed=0, neutral=False)
    assert [one.shape[2] for name, one in weights.items() if "weight" in name] == [12, 6, 3, 1]
    weights = {name: one.double() + 0.05 for name, one in weights.items()}
    x, y = rng.normal(size=(2, 50, 12)), rng.normal(size=(2, 50, 12))
    order = rng.permutation(50)
    share = torch.full((2, 50), 1 / 50).double()
    tables = [torch.tensor(table) for table in (x, y, y[:, order])]
    found, joint, _ = paper_value(critic, weights, *tables, share)
    for pair in range(2):
        own = {name: one[pair].numpy() for name, one in weights.items()}
        expected = by_hand(own, x[pair], y[pair], y[pair][order])
        assert float(found[pair]) == pytest.approx(expected, abs=1e-6)
        single = {name: one.float() for name, one in weights.items()}
        rounded = paper_value(critic, single, *(t.float() for t in tables), share.float())[0]
        assert float(rounded[pair]) == pytest.approx(expected, abs=1e-6)
    assert joint.shape == (2, 50)
    # Rows of weight 2 are rows that come twice.
    twice = (
        torch.cat([tables[0], tables[0][:, :10]], 1),
        torch.cat([tables[1], tables[1][:, :10]], 1),
    )
    other = torch.cat([tables[2], tables[2][:, :10]], 1)
    even = paper_value(critic, weights, *twice, other, torch.full((2, 60), 1 / 60).double())[0]
    uneven = torch.full((2, 50), 1 / 60).double()
    uneven[:, :10] *= 2
    assert torch.allclose(paper_value(critic, weights, *tables, uneven)[0], even, atol=1e-12)


def test_initial_weights_and_learning_rate_are_those_of_the_paper() -> None:
    weights = Concat().start(768, 768, [0], seed=0, neutral=False)
    shapes = [tuple(one.shape[1:]) for name, one in weights.items() if "weight" in name]
    widths = [1536, 768, 384, 192, 96, 48, 24, 12, 6, 3, 1]
    assert shapes == list(itertools.pairwise(widths))
    first = weights["xy.0.weight"]
    assert float(first.std()) == pytest.approx(math.sqrt(2 / (1536 + 768)), rel=0.01)
    assert not any(bool(one.any()) for name, one in weights.items() if "bias" in name)
    rates = [learning_rate(step, steps=10_000, highest=1e-4) for step in range(10_001)]
    assert rates[:6] == pytest.approx([0, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    middle = (1e-4 - 1e-8) * (1 - 4995 / 9995) ** 3 + 1e-8
    assert rates[5000] == pytest.approx(middle)
    assert rates[-1] == 1e-8


def test_the_estimate_is_the_training_maximum_and_overfits() -> None:
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    y = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    short = mutual_information(x, y, estimator="mine", steps=5, lr=3e-3)
    long = mutual_information(x, y, estimator="mine", steps=200, lr=3e-3, hidden=(64, 32))
    assert "training-maximum" in long.flags
    # Independent data: the truth is 0, and the training value of the critic is not.
    assert short.bits < 0.5
    assert long.bits > 1.0
    assert long.settings["best_step"][0][0] > 100
    held_out = mutual_information(x, y, estimator="mine-heldout", steps=100, reference="none")
    assert held_out.bits < 0.5


def test_a_pair_alone_is_the_pair_in_a_batch() -> None:
    states = torch.randn(2, 3, 50, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.ones(2, 50)
    weights[1, 40:] = 0
    estimator = get_estimator("mine", steps=20, lr=1e-3)
    many = estimator.chain(states, weights=weights)
    assert many.flags["training-maximum"].all()
    one = estimator.pair(states[1, 1, :40], states[1, 2, :40])
    assert torch.allclose(one.terms[0], many.terms[1, 1, :40], atol=1e-4)
    assert torch.equal(many.terms[1, :, 40:], torch.zeros(2, 10))


def test_nan_stops_the_training_and_keeps_the_maximum() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    found = mutual_information(x, x + 0.5 * torch.randn(60, 4), estimator="mine", steps=60, lr=1e30)
    assert "diverged" in found.flags
    assert math.isfinite(found.bits)
