"""Sequences packed into one row do not see each other's states."""

import pytest
import torch

from ed_interp.adapters.bias_injection.masks import plan
from ed_interp.adapters.bias_injection.nodes import arranged
from ed_interp.errors import InvalidInputError

LENGTHS = [5, 1, 7]


def pack(seed=0):
    ids = torch.randint(3, 101, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(seed))
    return ids, torch.cat([torch.arange(n) for n in LENGTHS])[None]


def separately(model, ids):
    return torch.cat([model(input_ids=one).logits for one in ids.split(LENGTHS, 1)], 1)


def additive(visible):
    return torch.zeros(visible.shape).masked_fill(~visible, -1e9)[None, None]


@pytest.mark.parametrize("feedback", ["input", "output"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_packed_equals_separate(adapted, family, feedback):
    model = adapted(family, feedback=feedback)
    ids, positions = pack()
    expected = separately(model, ids)
    found = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    blocks = torch.block_diag(*[torch.ones(n, n).tril() for n in LENGTHS]).bool()
    found = model(
        input_ids=ids, position_ids=positions, attention_mask=additive(blocks), use_cache=False
    ).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_gradients_do_not_cross(adapted):
    model = adapted("llama")
    ids, positions = pack()
    parameters = [p for p in model.parameters() if p.requires_grad]
    packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits.square().sum()
    separate = separately(model, ids).square().sum()
    for one, other in zip(
        torch.autograd.grad(packed, parameters),
        torch.autograd.grad(separate, parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4 * float(1 + other.abs().max()), rtol=1e-3)


def test_a_tree_of_sequences_is_refused(adapted):
    model = adapted("llama")
    ids, _ = pack()
    visible = torch.ones(13, 13).tril().bool()
    visible[8:, 5:8] = False
    with pytest.raises(InvalidInputError, match="makes a tree"):
        model(input_ids=ids, attention_mask=additive(visible), use_cache=False)


def test_shots_are_read_without_a_tree(adapted, random_prompts):
    # The packed path of shot counts is a tree; the adapter makes the reader take another one.
    import ed_interp

    hooked = ed_interp.load(adapted("gpt2"))
    assert not hooked.runner.takes_masks
    assert ed_interp.load(adapted("gpt2", n_nodes=0)).runner.takes_masks


@torch.no_grad()
def test_any_mask_with_any_restarts_is_the_loop():
    generator = torch.Generator().manual_seed(0)
    decay, time = torch.tensor([0.7, 0.95]), 40
    for _ in range(20):
        real = torch.rand(3, time, generator=generator) < 0.8
        restarts = (torch.rand(3, time, generator=generator) < 0.1) & real
        u = torch.randn(3, time, 2, generator=generator)
        start = torch.randn(3, 2, generator=generator)
        layout = plan(real, restarts, final=True)
        values, final = arranged(u, decay, start, layout)
        for row in range(3):
            state = start[row]
            for t in range(time):
                if restarts[row, t]:
                    state = torch.zeros(2)
                if real[row, t]:
                    torch.testing.assert_close(values[row, t], state, atol=1e-5, rtol=1e-4)
                    state = decay * state + u[row, t]
            torch.testing.assert_close(final[row], state, atol=1e-5, rtol=1e-4)
