"""A fresh adapter changes nothing; the neutral relation holds under training."""

import copy

import pytest
import torch
from peft import get_peft_model

from ed_interp.adapters.bias_injection import BiasInjectionConfig, BiasInjectionLayer

OPTIONS = [
    {},
    {"feedback": "output"},
    {"feedback": "none"},
    {"neutral": True},
    {"neutral": True, "feedback": "none"},
    {"r": 0},
    {"n_nodes": 0},
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3", "llama"])
def test_logits_are_equal_to_the_last_bit(build_model, padded, family, dtype):
    ids, mask, _ = padded
    base = build_model(family).to(dtype).eval()
    with torch.no_grad():
        expected = base(input_ids=ids, attention_mask=mask).logits
    for options in OPTIONS if dtype == torch.float32 else OPTIONS[:2]:
        model = get_peft_model(copy.deepcopy(base), BiasInjectionConfig(**options)).eval()
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, expected), options


@pytest.mark.parametrize("options", OPTIONS)
def test_every_kind_of_adapter_learns(adapted, padded, options):
    ids, mask, _ = padded
    model = adapted("llama", trained=False, **options)

    def loss():
        return model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss

    before = loss().item()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(4):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < before - 0.1


def test_only_the_adapter_trains_and_its_whole(adapted, padded):
    ids, _, _ = padded
    model = adapted("gpt2")
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("bias_injection" in name), name
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_a_single_token_keeps_all_parameters_in_the_graph(adapted):
    # DistributedDataParallel waits for the gradient of each.
    model = adapted("llama")
    model(input_ids=torch.tensor([[5]]), use_cache=False).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("feedback", ["input", "none"])
def test_the_neutral_relation_is_kept_under_training(adapted, padded, feedback):
    ids, mask, _ = padded
    model = adapted("llama", trained=False, neutral=True, feedback=feedback)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        optimiser.step()
    layers = [layer for layer in model.modules() if isinstance(layer, BiasInjectionLayer)]
    for layer in layers:
        weights = layer.weights_of("default")
        assert "bias" not in weights
        assert weights["write"].abs().sum() > 0
        # The sum of the node weights is minus the bias: nodes at value 1 cancel it.
        constant = layer.static_bias("default") - (
            weights["write"] @ weights["value"] if "value" in weights else 0
        )
        torch.testing.assert_close(weights["write"].sum(1), -constant)


def test_fixed_time_constants_do_not_train(adapted):
    model = adapted("llama", learn_tau=False, tau=[2.0, 7.0, 30.0])
    taus = [p for n, p in model.named_parameters() if "log_tau" in n]
    assert taus
    assert not any(p.requires_grad for p in taus)
    model.set_adapter("default")
    assert not any(p.requires_grad for p in taus)
    torch.testing.assert_close(taus[0].exp(), torch.tensor([2.0, 7.0, 30.0]))
