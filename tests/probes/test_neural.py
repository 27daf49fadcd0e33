"""Held-out neural estimators: what they recover, that batches do not matter, bad input."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.emergence.estimators import Estimator, get_estimator, mutual_information

HELD_OUT = ("infonce", "nwj", "smile", "mine-heldout")
QUICK = {"steps": 20, "every": 10, "components": 8}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gaussians(rows: int, d: int, nats: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Information spread evenly over all dimensions, y turned."""
    square = 1 - math.exp(-2 * nats / d)
    x, noise = normal(rows, d, seed=seed), normal(rows, d, seed=seed + 1)
    turned = torch.linalg.qr(normal(d, d, seed=seed + 2))[0]
    return x, (math.sqrt(square) * x + math.sqrt(1 - square) * noise) @ turned


def walk(*batch: int, sites: int, rows: int, d: int) -> Tensor:
    states = normal(*batch, sites, rows, d)
    for site in range(1, sites):
        states[..., site, :, :] += states[..., site - 1, :, :]
    return states


@pytest.mark.parametrize("name", HELD_OUT)
def test_two_nats_in_64_dimensions(name: str) -> None:
    x, y = gaussians(5000, 64, 2.0)
    found = mutual_information(x, y, estimator=name, steps=50, every=50)
    assert found.bits * math.log(2) == pytest.approx(2.0, abs=0.2)
    assert found.ci_low < found.bits < found.ci_high
    assert found.flags == ()
    # What is held out falls short by what the fit of 4,096 correlations missed.
    held_out = found.settings["held_out_bits"][0][0]
    assert held_out < found.bits - 0.2


def test_a_critic_alone_fails_there() -> None:
    x, y = gaussians(5000, 64, 2.0)
    found = mutual_information(x, y, estimator="infonce", steps=100, reference="none")
    assert found.bits < 0.5


def test_a_correction_is_learned_where_there_is_no_correlation() -> None:
    x = normal(1500, 1)
    y = x.square() + 0.1 * normal(1500, 1, seed=1)
    found = mutual_information(x, y, estimator="infonce", steps=200)
    assert found.settings["reference_bits"][0][0] < 0.1
    assert found.settings["best_step"][0][0] > 0
    assert found.bits > 1.0


@pytest.mark.parametrize("name", HELD_OUT)
def test_independence_gives_nothing(name: str) -> None:
    found = mutual_information(normal(600, 6), normal(600, 6, seed=1), estimator=name, **QUICK)
    assert abs(found.bits) < 0.15
    assert "lost" in found.flags


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_pair_alone_is_the_pair_in_a_batch(name: str) -> None:
    """Not even other lengths, or pairs that stop earlier, change a member."""
    states = walk(2, sites=3, rows=120, d=6)
    weights = torch.ones(2, 120)
    weights[1, 100:] = 0
    states[1, :, 100:] = torch.nan  # rows of weight 0 may hold anything
    estimator = get_estimator(name, **QUICK, patience=1)
    many = estimator.chain(states, weights=weights)
    for element, rows in ((0, 120), (1, 100)):
        for block in range(2):
            sides = states[element, block, :rows], states[element, block + 1, :rows]
            one = estimator.pair(*sides)
            assert torch.allclose(one.terms[0], many.terms[element, block, :rows], atol=2e-3)
    assert not bool(many.terms[1, :, 100:].any())
    little = estimator.chain(states, weights=weights, max_bytes=1)  # one at a time
    assert torch.allclose(little.terms, many.terms, atol=2e-3)


def test_seeds_and_repetition() -> None:
    x, y = gaussians(200, 4, 1.0)
    estimator = get_estimator("infonce", **QUICK)
    first = estimator.pair(x, y, seed=3)
    assert torch.equal(first.terms, estimator.pair(x, y, seed=3).terms)
    assert not torch.equal(first.terms, estimator.pair(x, y, seed=4).terms)
    # Rows that come twice are one row of weight 2: never both trained on and held out.
    twice = estimator.pair(x[:150].repeat(2, 1), y[:150].repeat(2, 1), weights=torch.rand(300) + 1)
    assert bool(torch.isfinite(twice.terms).all())
    assert torch.allclose(twice.terms[0, :150], twice.terms[0, 150:])


@pytest.mark.parametrize("name", [*HELD_OUT, "mine"])
def test_a_killed_run_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle and resumed: the numbers of an uninterrupted run."""
    x, y = gaussians(120, 4, 1.0)
    options = {"steps": 30} if name == "mine" else {**QUICK, "steps": 30}
    whole = get_estimator(name, **options).pair(x, y)

    class KilledError(Exception):
        pass

    def resuming(name: str, options: dict) -> Estimator:
        return get_estimator(name, **options).resuming(tmp_path)

    def kill(done: int, total: int, what: str) -> None:
        if done > 15:
            raise KilledError

    monkeypatch.setattr("ed_interp.probes.emergence.estimators.neural.training._SECONDS", 0.0)
    with pytest.raises(KilledError):
        resuming(name, options).reporting(kill).pair(x, y)
    (file,) = tmp_path.iterdir()
    done = []
    again = resuming(name, options).reporting(lambda a, b, c: done.append(a)).pair(x, y)
    assert torch.equal(again.terms, whole.terms)
    assert 10 <= done[0] <= 15
    assert done[-1] == 30
    # Other settings or data are another training.
    resuming(name, {**options, "lr": 1e-5}).pair(x, y)
    assert len(list(tmp_path.iterdir())) == 2
    file.write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match="remove it"):
        resuming(name, options).pair(x, y)


def test_divergence_is_flagged() -> None:
    x, y = gaussians(200, 4, 1.0)
    found = mutual_information(x, y, estimator="nwj", lr=1e6, steps=20, every=5)
    assert "diverged" in found.flags
    assert found.settings["diverged_folds"] == [[3]]
    assert math.isfinite(found.bits)  # the best state before
    assert found.bits * math.log(2) == pytest.approx(1.0, abs=0.5)


def test_few_rows_that_repeat_are_exact() -> None:
    """The token level: labels with frequencies."""
    tokens, counts = normal(3, 25, 8), torch.arange(1, 26) * 4
    share = counts / counts.sum()
    entropy = float(-(share * share.log2()).sum())
    for name in (*HELD_OUT, "mine"):
        estimator = get_estimator(name)
        assert isinstance(estimator, Estimator)
        found = estimator.chain(tokens, weights=counts)
        assert found.bits.tolist() == pytest.approx([entropy] * 2, abs=1e-5)
        assert found.flags_at(0) == ("discrete",)
    repeated = mutual_information(tokens[0].repeat(8, 1), tokens[1].repeat(8, 1), estimator="nwj")
    assert repeated.bits == pytest.approx(math.log2(25))
    assert {"discrete", "saturated"} <= set(repeated.flags)
    small = mutual_information(normal(10, 2), normal(10, 2, seed=1), estimator="infonce")
    assert {"discrete", "saturated", "few-rows"} <= set(small.flags)


def test_awkward_tables_give_finite_flagged_numbers() -> None:
    x = normal(60, 100)
    for y in (torch.ones(60, 3), x, torch.cat([x[:, :3], torch.zeros(60, 2)], 1)):
        found = mutual_information(x, y, estimator="infonce", **QUICK)
        assert math.isfinite(found.bits)
        assert "few-rows" in found.flags
    constant = mutual_information(x, torch.ones(60, 3), estimator="infonce", **QUICK)
    assert "constant" in constant.flags
    assert constant.bits == pytest.approx(0, abs=0.1)
    copy = mutual_information(normal(500, 4), normal(500, 4), estimator="infonce", **QUICK)
    assert {"at-log-n", "saturated"} & set(copy.flags)
    half = mutual_information(normal(150, 4).half(), normal(150, 4), estimator="smile", **QUICK)
    assert "half-precision" in half.flags


@pytest.mark.parametrize("name", [*HELD_OUT, "mine"])
@pytest.mark.parametrize(
    ("x", "y", "weights", "match"),
    [
        (torch.full((50, 2), torch.nan), normal(50, 2), None, "NaN"),
        (normal(50, 2), torch.full((50, 2), torch.inf), None, "NaN or infinite"),
        (normal(50, 2), normal(49, 2), None, "same rows, got 50 and 49"),
        (normal(1, 2), normal(1, 2), None, "2 rows"),
        (normal(50, 2), torch.ones(50, 2).int(), None, "floating"),
        (normal(50, 2), normal(50, 2), torch.zeros(50), "zero"),
        (normal(50, 2), normal(50, 2), torch.full((50,), -1.0), "negative"),
    ],
)
def test_bad_tables(name: str, x: Tensor, y: Tensor, weights: Tensor | None, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        mutual_information(x, y, weights=weights, estimator=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("infonce", {"steps": 0}, "steps"),
        ("infonce", {"lr": math.nan}, "lr"),
        ("infonce", {"folds": 1}, "folds"),
        ("infonce", {"reference": "student"}, "gaussian or none, got 'student'"),
        ("infonce", {"marginals": "norm"}, "normal or raw, got 'norm'"),
        ("mine-heldout", {"hidden": (8, 0)}, "hidden must be 1 or greater"),
        ("smile", {"tau": 0.0}, "tau"),
        ("mine", {"steps": 0}, "steps"),
        ("mine", {"lr": -1.0}, "lr"),
        ("nwj", {"temperature": 1}, "its options are"),
    ],
)
def test_bad_options(name: str, options: dict, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        get_estimator(name, **options)
