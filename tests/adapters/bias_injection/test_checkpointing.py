"""Gradient checkpointing, of both kinds, gives the same gradients."""

import copy
import pickle

import pytest
import torch
from torch import nn

from ed_interp.errors import InvalidInputError


def gradients(model, padded):
    ids, mask, positions = padded
    model.zero_grad()
    model(
        input_ids=ids, attention_mask=mask, position_ids=positions, labels=ids, use_cache=False
    ).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def checkpoint_layers(model, *, reentrant):
    """Under the name that this version of transformers has for it."""
    base = model.get_base_model()
    name = "activation_checkpointing_enable"
    enable = getattr(base, name, None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})


def keep_layers(model):
    base = model.get_base_model()
    name = "activation_checkpointing_disable"
    (getattr(base, name, None) or base.gradient_checkpointing_disable)()


@pytest.fixture
def build(adapted):
    def one(family, **options):
        model = adapted(family, **options)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model.train()

    return one


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_gradients_are_equal(build, padded, family, reentrant):
    model = build(family)
    expected = gradients(model, padded)
    checkpoint_layers(model, reentrant=reentrant)
    model.enable_input_require_grads()
    found = gradients(model, padded)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name]), name
    keep_layers(model)
    again = gradients(model, padded)
    assert all(torch.equal(again[name], expected[name]) for name in again)


def test_dropout_is_the_same_in_both_runs(build, padded):
    model = build("llama", dropout=0.5)
    torch.manual_seed(0)
    expected = gradients(model, padded)
    checkpoint_layers(model, reentrant=False)
    torch.manual_seed(0)
    found = gradients(model, padded)
    # The layers' dropout is restored from the state of the generator, so the order of the draws
    # is the same.
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_foreign_checkpoint_is_refused_rather_than_wrong(build, padded):
    from torch.utils.checkpoint import checkpoint

    model = build("llama")
    block = model.get_base_model().model.layers[1]
    forward = block.forward

    def again(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = again
    with pytest.raises(InvalidInputError, match="runs again during the backward pass"):
        gradients(model, padded)


def test_a_model_with_hooks_can_be_copied_and_pickled(build, padded):
    model = build("llama")
    expected = gradients(model, padded)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found = gradients(copied, padded)
        assert all(torch.equal(found[name], expected[name]) for name in found)
        # The copy's hooks are its own.
        for parameter in copied.parameters():
            parameter.data.zero_()
    again = gradients(model, padded)
    assert all(torch.equal(again[name], expected[name]) for name in again)
