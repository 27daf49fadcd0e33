"""Emergence with estimators that train: all shot counts and places in two calls, flags kept."""

import numpy as np
import pytest
import torch

import ed_interp
from ed_interp.probes.emergence import measure
from ed_interp.probes.emergence.estimators import get_estimator
from ed_interp.probes.emergence.estimators.infonce import InfoNCE
from ed_interp.probes.emergence.measure import Chain, Estimates
from ed_interp.prompts.population import Population, Prompt
from ed_interp.prompts.tokens import ShotTokens, TokenPopulation

QUICK = {"steps": 10, "every": 5, "components": 4}


def windows(prompts: int, length: int) -> TokenPopulation:
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 40, size=(prompts, length))
    items = tuple(ShotTokens((), tuple((int(token),) for token in row)) for row in tokens)
    texts = tuple(Prompt(("",) * length) for _ in items)
    shots = tuple(range(1, length + 1))
    population = Population("windows", "text", texts, shots, None, None, None, {})
    return TokenPopulation(population, items, "whole")


@pytest.fixture
def read(build_model):
    return measure.read(
        ed_interp.load(build_model("llama")),
        windows(90, 3),
        normalisation="rms",
    )


def test_all_populations_in_two_calls_and_as_one_by_one(read, monkeypatch) -> None:
    estimator = get_estimator("infonce", **QUICK)
    calls = []
    chain = InfoNCE.chain

    def counted(self, states, **options):
        calls.append(tuple(states.shape[:1]))
        return chain(self, states, **options)

    monkeypatch.setattr(InfoNCE, "chain", counted)
    reported = []
    together = measure.estimate(
        read, estimator, seed=0, progress=lambda done, total, what: reported.append(what)
    )
    assert calls == [(3,), (3,)]  # three shot counts; three places of lone tokens
    assert set(reported) == {"training infonce"}
    monkeypatch.setattr(InfoNCE, "together", False)
    alone = measure.estimate(read, estimator, seed=0, progress=None)
    assert len(calls) == 8
    for shots, found in together.items():
        assert np.allclose(found.macro, alone[shots].macro, atol=5e-3)
        assert np.allclose(found.micro, alone[shots].micro, atol=5e-3)
        assert found.flags == alone[shots].flags
    # One token each: repeated rows, exact, the same at the level of tokens and of sequences.
    assert together[1].flags == (("discrete",),) * 3
    assert np.allclose(together[1].bits(), 0, atol=1e-6)
    assert together[1].macro_bits()[0] == pytest.approx(together[1].macro_limit, abs=1e-6)
    assert "discrete" not in together[3].flags[1]


def test_smoothed_runs_population_by_population(read) -> None:
    estimator = get_estimator("smoothed", noise=0.5)
    assert not estimator.together
    found = measure.estimate(read, estimator, seed=0, progress=None)
    assert found[2].flags == ((),) * 3
    sequences = read.sequences(2)
    states = torch.nn.functional.rms_norm(sequences.states, sequences.states.shape[-1:], eps=0.0)
    direct = estimator.chain(states, weights=torch.as_tensor(sequences.counts), seed=0)
    assert np.allclose(found[2].macro, direct.terms.numpy()[:, sequences.row_of], atol=1e-4)


def test_memory_cuts_calls(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    chains = {
        name: Chain(torch.randn(3, rows, 4, generator=generator), np.ones(rows, dtype=np.int64))
        for name, rows in (("a", 40), ("b", 60), ("c", 50))
    }
    estimator = get_estimator("infonce", **QUICK)

    def estimated() -> dict:
        estimates = Estimates(chains.__getitem__, estimator, 0)
        estimates.prepare(chains)
        return {name: estimates[name] for name in chains}

    whole = estimated()
    monkeypatch.setattr("ed_interp.probes.emergence.measure._BYTES", 1)
    cut = estimated()
    for name, chain in chains.items():
        assert whole[name].terms.shape == (2, len(chain.counts))
        assert np.allclose(whole[name].terms, cut[name].terms, atol=2e-3)
