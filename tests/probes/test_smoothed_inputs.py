"""The noise rule, normalisation, and what the smoothed estimator refuses."""

import math

import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.probes.emergence.estimators import (
    Estimate,
    mutual_information,
    noise_scale,
    normalise,
)
from ed_interp.probes.emergence.estimators.base import check_chain
from ed_interp.probes.emergence.estimators.noise import noise_rows
from ed_interp.probes.emergence.estimators.rows import population_weights
from ed_interp.probes.emergence.estimators.smoothed import Smoothed, default_samples


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the noise rule and normalisation ------------------------------------------------------------


def test_noise_rule() -> None:
    assert noise_scale(64, 2000, beta=1.0) == pytest.approx(math.sqrt(64 / math.log(2000)))
    for beta in (0.2, 1 / 3, 0.5):
        scale = noise_scale(4096, 1000, beta)
        capacity = 2048 * math.log1p(1 / scale**2)
        # The channel's capacity over the entropy of the population: beta says it, whatever d, n.
        assert capacity / math.log(1000) == pytest.approx(1 / (2 * beta**2), rel=0.03)
    assert Smoothed(beta=0.5).chain(normal(2, 3, 30, 5)).settings["noise"] == noise_scale(
        5, 30, 0.5
    )
    for d, n, beta in ((0, 10, 1.0), (5, 1, 1.0), (5, 10, 0.0), (5, 10, math.nan)):
        with pytest.raises(InvalidInputError):
            noise_scale(d, n, beta)


def test_default_samples() -> None:
    found = [default_samples(n) for n in (2, 100, 500, 1000, 4000, 10**6)]
    assert found == [64, 40, 8, 4, 2, 2]


@pytest.mark.parametrize("how", ["layernorm", "rms"])
def test_normalised_vectors_have_unit_scale(how: str) -> None:
    x = normal(3, 5, 16) * 1e3 + 50
    found = normalise(x, how)
    assert torch.allclose(found.square().mean(-1), torch.ones(3, 5), atol=1e-5)
    assert torch.allclose(found, normalise(x * 7, how), atol=1e-4)
    if how == "layernorm":
        expected = torch.nn.functional.layer_norm(x, (16,), eps=0.0)
        assert torch.allclose(found, expected, atol=1e-4)


def test_normalise_edges() -> None:
    flat = torch.full((2, 8), 3.0)
    assert torch.equal(normalise(flat), torch.zeros(2, 8))
    assert torch.equal(normalise(torch.zeros(2, 8), "rms"), torch.zeros(2, 8))
    assert torch.allclose(normalise(flat, "rms"), torch.ones(2, 8))
    assert normalise(flat, "none") is flat
    assert bool(normalise(normal(2, 8) * 1e30).isfinite().all())
    assert normalise(normal(2, 8).bfloat16()).dtype == torch.float32
    with pytest.raises(UnknownNameError, match="layernorm"):
        normalise(flat, "layer_norm")


def test_noise_rows_do_not_depend_on_how_many_are_drawn() -> None:
    def draw(rows: int, seed: int = 0, stream: tuple[int, ...] = (0, 0)) -> Tensor:
        return noise_rows(rows, 7, seed=seed, stream=stream, device=torch.device("cpu"))

    many = draw(700)
    assert torch.equal(many[:300], draw(300))
    assert many.mean().abs() < 0.05
    assert abs(float(many.std()) - 1) < 0.05
    for other in (draw(700, seed=1), draw(700, stream=(1, 0)), draw(700, stream=(0, 1))):
        correlation = torch.corrcoef(torch.stack([many.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.06
    assert not torch.equal(many[:256], many[256:512])
    draw(3, seed=-1)


# --- bad input -----------------------------------------------------------------------------------


def estimate(x: object = None, y: object = None, **options: object) -> Estimate:
    x = normal(5, 2) if x is None else x
    y = normal(5, 2, seed=1) if y is None else y
    return mutual_information(x, y, **options)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"x": torch.tensor([[1.0, torch.nan]] + [[0.0, 0.0]] * 4)}, "1 of 5 rows .* row 0"),
        ({"y": torch.full((5, 2), torch.inf)}, "5 of 5 rows .* site 1"),
        ({"y": normal(4, 2)}, "same rows, got 5 and 4"),
        ({"x": normal(1, 2), "y": normal(1, 2)}, "2 rows"),
        ({"x": torch.ones(5, 2, dtype=torch.int64)}, "floating point"),
        ({"x": normal(5)}, "'row d'"),
        ({"x": normal(5, 0)}, "1 column"),
        ({"x": "text"}, "must be a table of numbers"),
        ({"x": torch.full((5, 1), 3e38)}, "overflow"),
        ({"weights": [1.0, 1, 1, 1, torch.nan]}, "NaN"),
        ({"weights": [1.0, 1, 1, 1, -1]}, "negative"),
        ({"weights": [0.0] * 5}, "zero"),
        ({"weights": [1.0] * 4}, "5 rows"),
        ({"noise": -1.0}, "noise"),
        ({"noise": math.nan}, "noise"),
        ({"noise": (0.5, -1.0)}, "noise"),
        ({"noise": True}, "noise"),
        ({"noise": 0.5, "beta": 0.5}, "must not both be given"),
        ({"samples": 0}, "samples"),
        ({"dtype": "bfloat16"}, "float32 or float64"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        estimate(**arguments)
    assert "\n" not in str(caught.value)


def test_bad_chains() -> None:
    for states in (normal(5, 2), normal(1, 5, 2), normal(0, 3, 5, 2), torch.ones(2, 5, 2).int()):
        with pytest.raises(InvalidInputError, match=r"must have|floating point"):
            check_chain(states)
    with pytest.raises(InvalidInputError, match="batch shape"):
        population_weights(torch.ones(3, 5), (2,), 5)
    with pytest.raises(InvalidInputError, match="5 rows"):
        population_weights(torch.ones(4), (2,), 5)


def test_arrays_half_precision_and_few_rows() -> None:
    x = normal(120, 4)
    from_array = mutual_information(x.numpy(), x.double().numpy(), noise=0.5)
    assert from_array.bits == pytest.approx(mutual_information(x, x, noise=0.5).bits, abs=1e-5)
    assert mutual_information(x.half(), x, noise=0.5).flags == ("half-precision",)
    assert "few-rows" in mutual_information(x[:99], x[:99], noise=0.5).flags
