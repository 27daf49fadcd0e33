"""Spike and slab: the algebra of its posterior, and the architecture in SAELens's hands."""

from __future__ import annotations

import math

import pytest
import torch

from ed_interp.probes import dictionaries
from ed_interp.probes.dictionaries.spike_slab.architecture import (
    annealed,
    bernoulli_kl,
    kl_divergence,
    relaxed_spike,
)

ZERO = torch.zeros(1)


def test_the_kl_is_zero_where_posterior_and_prior_agree():
    alpha = torch.tensor([0.01, 0.3, 0.9])
    assert kl_divergence(alpha, torch.zeros(3), torch.zeros(3), alpha).abs().max() < 1e-6


def test_the_kl_is_positive_elsewhere():
    made = torch.Generator().manual_seed(0)
    gamma, alpha = torch.rand(2, 1000, generator=made)
    mu, log_sigma = torch.randn(2, 1000, generator=made)
    assert (kl_divergence(gamma, mu, log_sigma, alpha) >= -1e-5).all()


def test_without_a_spike_the_kl_is_that_of_gaussians():
    mu, log_sigma = torch.tensor([0.5, -2.0]), torch.tensor([0.3, -1.0])
    one = torch.ones(2)
    posterior = torch.distributions.Normal(mu, log_sigma.exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(
        kl_divergence(one, mu, log_sigma, one), expected, atol=1e-4, rtol=1e-4
    )


def test_without_a_slab_the_kl_is_that_of_coins():
    gamma, alpha = torch.tensor([0.2, 0.7]), torch.tensor([0.05, 0.9])
    coins = torch.distributions.Bernoulli
    expected = torch.distributions.kl_divergence(coins(gamma), coins(alpha))
    torch.testing.assert_close(bernoulli_kl(gamma, alpha), expected)
    # And for both together, with a density for the slab: by Monte Carlo.
    mu, log_sigma = torch.tensor([1.0, -0.5]), torch.tensor([-0.7, 0.2])
    slab, prior = torch.distributions.Normal(mu, log_sigma.exp()), torch.distributions.Normal(0, 1)
    z = slab.sample((200_000,))
    present = gamma.log() - alpha.log() + slab.log_prob(z) - prior.log_prob(z)
    absent = torch.log1p(-gamma) - torch.log1p(-alpha)
    estimate = (gamma * present + (1 - gamma) * absent).mean(0)
    found = kl_divergence(gamma, mu, log_sigma, alpha)
    torch.testing.assert_close(found, estimate, atol=0.02, rtol=0.02)


def test_certain_presence_and_absence_are_finite_and_have_gradients():
    gamma = torch.tensor([0.0, 1.0], requires_grad=True)
    kl = kl_divergence(gamma, torch.zeros(2), torch.zeros(2), torch.tensor([0.1, 0.1])).sum()
    kl.backward()
    assert math.isfinite(float(kl.detach()))
    assert gamma.grad is not None
    assert torch.isfinite(gamma.grad).all()


def test_the_relaxed_spike_becomes_a_coin():
    eta = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    for gamma in (0.1, 0.5, 0.9):
        hard = relaxed_spike(torch.full_like(eta, gamma), eta, 1e5)
        assert abs(float(hard.mean()) - gamma) < 0.01
        assert float(((hard > 0.01) & (hard < 0.99)).float().mean()) < 0.001
        soft = relaxed_spike(torch.full_like(eta, gamma), eta, 50.0)
        assert float(((soft > 0.01) & (soft < 0.99)).float().mean()) > 0.05


def test_annealing():
    values = [annealed(step, 10, start=50.0, end=200.0) for step in (0, 5, 10, 99)]
    assert values == [50.0, 125.0, 200.0, 200.0]
    assert annealed(0, 0, start=50.0, end=200.0) == 200.0


@pytest.fixture(scope="module")
def dictionary(hooked, small):
    return dictionaries.train(hooked, architecture="spike-slab", k=6, **{**small, "tokens": 12288})


def test_it_holds_the_l0_asked_for_and_learns(dictionary):
    history = dictionary.history
    assert 2 < sum(line.l0 for line in history[-10:]) / 10 < 18
    assert history[-1].fvu < 0.7


def test_encoding_is_the_expected_value_above_the_threshold(dictionary, states):
    found = dictionary.sae.posterior(states)
    there = found.gamma > 0.5
    activations = dictionary.encode(states)
    assert torch.equal(activations != 0, there)
    torch.testing.assert_close(activations[there], (found.gamma * found.mu)[there])
    assert torch.equal(dictionary.sae.presence(states), found.gamma)
    assert torch.equal(dictionary.encode(states), activations), "encoding is not deterministic"


def test_samples_have_the_posteriors_moments(dictionary, states):
    found = dictionary.sae.posterior(states)
    drawn = dictionary.sae.sample(states, samples=4000, seed=1)
    presence = (drawn != 0).float().mean(0)
    torch.testing.assert_close(presence, found.gamma, atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.mean(0), found.gamma * found.mu, atol=0.15, rtol=0.05)
    assert torch.equal(drawn, dictionary.sae.sample(states, samples=4000, seed=1))
    assert not torch.equal(drawn, dictionary.sae.sample(states, samples=4000, seed=2))


def test_it_is_an_architecture_of_sae_lens(dictionary, tmp_path, states):
    from sae_lens import SAE
    from sae_lens.registry import get_sae_class, get_sae_training_class

    assert get_sae_class("spike_slab")[0] is type(dictionary.sae)
    assert get_sae_training_class("spike_slab")[1].architecture() == "spike_slab"
    folder = dictionary.save(tmp_path / "sae")
    theirs = SAE.load_from_disk(folder)
    assert torch.equal(theirs.encode(states), dictionary.encode(states))
    assert torch.equal(theirs(states), dictionary.reconstruct(states))
    assert torch.equal(theirs.presence_rate, dictionary.sae.presence_rate)
    text = (folder / "README.md").read_text("utf-8")
    assert "import ed_interp.probes.dictionaries.spike_slab" in text


def test_registering_twice_changes_nothing():
    import importlib

    from sae_lens.registry import get_sae_class, get_sae_training_class

    from ed_interp.probes.dictionaries import spike_slab

    before = get_sae_class("spike_slab"), get_sae_training_class("spike_slab")
    importlib.reload(spike_slab)
    assert (get_sae_class("spike_slab"), get_sae_training_class("spike_slab")) == before


def training_sae(**options):
    from ed_interp.probes.dictionaries.spike_slab import (
        SpikeSlabTrainingSAE,
        SpikeSlabTrainingSAEConfig,
    )

    return SpikeSlabTrainingSAE(SpikeSlabTrainingSAEConfig(d_in=8, d_sae=12, **options))


def step(sae, states, dead=None):
    from sae_lens.saes.sae import TrainStepInput

    return sae.training_forward_pass(
        TrainStepInput(
            sae_in=states,
            coefficients={"kl": 1.0},
            dead_neuron_mask=dead,
            n_training_steps=3,
            is_logging_step=False,
        )
    )


def test_alpha_is_learned_only_if_asked():
    states = torch.randn(16, 8)
    for learned in (False, True):
        sae = training_sae(learn_alpha=learned, alpha=0.2)
        assert torch.allclose(torch.sigmoid(sae.alpha_logit), torch.tensor(0.2))
        step(sae, states).loss.backward()
        assert ("alpha_logit" in dict(sae.named_parameters())) == learned
        if learned:
            assert sae.alpha_logit.grad.abs().max() > 0


def test_every_parameter_is_trained_and_dead_latents_are_revived():
    sae, states = training_sae(), torch.randn(64, 8)
    dead = torch.zeros(12, dtype=torch.bool)
    without = step(sae, states, dead)
    assert set(without.losses) == {"mse_loss", "kl_loss"}
    dead[4] = True
    output = step(sae, states, dead)
    assert output.losses["auxiliary_reconstruction_loss"] > 0
    output.loss.backward()
    for name, parameter in sae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_weight_of_the_kl_follows_the_l0():
    states = torch.randn(64, 8)
    rises, falls = training_sae(target_l0=1.0), training_sae(target_l0=11.0)
    with torch.no_grad():
        for sae in (rises, falls):
            sae.b_gate.zero_()  # about half of the latents present
    for sae in (rises, falls):
        step(sae, states)
    assert rises.kl_weight > 1 > falls.kl_weight


def test_living_latents_are_tracked():
    sae = training_sae(living_decay=0.0)
    output = step(sae, torch.randn(64, 8))
    gamma = sae.presence_rate
    assert gamma.shape == (12,)
    assert bool(((gamma > 0) & (gamma < 1)).all())
    assert not output.feature_acts.requires_grad


def test_scaling_the_input_folds_into_both_encoders():
    sae, states = training_sae(), torch.randn(16, 8)
    expected = sae.encode(states * 3.0)
    decoded = sae.decode(expected) / 3.0
    sae.fold_activation_norm_scaling_factor(3.0)
    torch.testing.assert_close(sae.encode(states), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae.decode(expected), decoded, atol=1e-4, rtol=1e-4)
    with pytest.raises(NotImplementedError, match="softplus, which does not scale"):
        sae.fold_W_dec_norm()


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0.0}, {"target_l0": 12.0}, {"presence_threshold": 1.0}, {"sharpness_start": 0.0}],
)
def test_settings_that_cannot_be_trained(options):
    with pytest.raises(ValueError, match=r"must (lie|be) "):
        training_sae(**options)
