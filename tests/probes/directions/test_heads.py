"""Heads: their parts add up to what attention writes, and replacing one changes it alone."""

import pytest
import torch

from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.probes.directions.function_vectors import (
    HeadEffects,
    Heads,
    attn_out,
    function_vector,
    head_effects,
)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3", "qwen3", "neox", "opt", "phi"])
def test_heads_add_up_to_what_attention_writes(build_model, family):
    hooked = HookedModel.wrap(build_model(family))
    heads = Heads.of(hooked)
    rows = [tuple(range(3, 3 + length)) for length in (5, 9, 5, 12)]
    means = heads.means(rows)
    everyone = [(layer, head) for layer in range(hooked.n_layers) for head in range(heads.count)]
    written = heads.written(means, everyone)
    for layer in range(hooked.n_layers):
        found = []
        for row in rows:
            last = torch.tensor([[len(row) - 1]])
            reading = hooked.runner.run(
                Inputs(torch.tensor([row])), sites=[attn_out(layer)], reads=last
            )
            found.append(reading.states[0, 0, 0])
        bias = getattr(heads.projections[layer], "bias", None)
        expected = torch.stack(found).mean(0) - (0 if bias is None else bias.detach())
        torch.testing.assert_close(written[layer], expected, atol=2e-5, rtol=1e-4)


def test_replacing_a_head_is_undone(build_model):
    hooked = HookedModel.wrap(build_model("gpt2").eval())
    heads = Heads.of(hooked)
    ids = torch.tensor([[4, 5, 6, 7]])
    with torch.no_grad():
        before = hooked.model(ids).logits
        with heads.replaced(1, 2, torch.full((8,), 3.0)):
            inside = hooked.model(ids).logits
        after = hooked.model(ids).logits
    assert torch.equal(before, after)
    # Causal, and only the last position was written to.
    assert torch.equal(before[:, :-1], inside[:, :-1])
    assert not torch.allclose(before[:, -1], inside[:, -1])


TASK = [("dog", "dogs"), ("cat", "cats"), ("cow", "cows"), ("bear", "bears"), ("pear", "pears")]


def test_placements_hold_the_same(hooked):
    heads = [(0, 1), (1, 0)]
    own = function_vector(hooked, TASK, heads=heads, shots=2, prompts=6)
    assert list(own.vectors) == ["blocks.0.hook_attn_out", "blocks.1.hook_attn_out"]
    together = function_vector(
        hooked, TASK, heads=heads, shots=2, prompts=6, placement="blocks.1.hook_resid_pre"
    )
    summed = own["blocks.0.hook_attn_out"] + own["blocks.1.hook_attn_out"]
    torch.testing.assert_close(together["blocks.1.hook_resid_pre"], summed)
    assert together.provenance.settings["heads"] == [[0, 1], [1, 0]]


@pytest.mark.parametrize("corrupted", ["zero_shot", "shuffled"])
def test_effects_are_those_of_the_replacement(hooked, corrupted):
    first = head_effects(hooked, [TASK], shots=2, prompts=5, corrupted=corrupted)
    again = head_effects(hooked, [TASK], shots=2, prompts=5, corrupted=corrupted)
    assert torch.equal(first.effects, again.effects)
    assert first.effects.shape == (2, 2)
    assert bool((first.effects != 0).all())
    assert set(first.to_frame().columns) == {"layer", "head", "effect", "chosen"}


def test_heads_are_chosen_by_effect():
    effects = HeadEffects(torch.tensor([[0.5, 0.04], [-0.2, 0.06]]), "m", ("t",))
    assert effects.chosen() == ((0, 0), (1, 1))
    assert effects.chosen(3) == ((0, 0), (0, 1), (1, 1))
    with pytest.raises(InvalidInputError, match="must be 1 to 4"):
        effects.chosen(5)
    with pytest.raises(InvalidInputError, match="no head of m restores"):
        HeadEffects(-effects.effects.abs(), "m", ("t",)).chosen()


def test_bad_input(hooked, build_model):
    with pytest.raises(InvalidInputError, match=r"no head \(2, 0\): .* blocks 0 to 1 of 2 heads"):
        function_vector(hooked, TASK, heads=[(2, 0)], shots=2)
    with pytest.raises(InvalidInputError, match="must name each"):
        function_vector(hooked, TASK, heads=[], shots=2)
    with pytest.raises(InvalidInputError, match="must be one task with inputs"):
        function_vector(hooked, "mixed-country", heads=[(0, 0)])
    with pytest.raises(InvalidInputError, match="name at least one task"):
        head_effects(hooked, [])


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_transformer_lens_is_refused():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=8, d_head=4, d_vocab=9, act_fn="relu", device="cpu"
    )
    with pytest.raises(CaptureError, match="of a transformers model, got a HookedTransformer"):
        Heads.of(HookedModel.wrap(HookedTransformer(config)))
