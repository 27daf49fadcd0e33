"""A steered model is used like a model, and undone; a direction becomes an adapter."""

import pytest
import torch

import ed_interp
from ed_interp.adapters.steering import SteeredModel, save_adapter, steer
from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Ablate, Add, Where, inject

SITE = "blocks.1.hook_resid_post"
IDS = torch.randint(3, 101, (2, 6), generator=torch.Generator().manual_seed(2))


def direction_of(model, *sites):
    generator = torch.Generator().manual_seed(0)
    vectors = {site: torch.randn(32, generator=generator) for site in sites or (SITE,)}
    return Direction.of(model, vectors, method="by hand")


def generated(model):
    out = model.generate(
        IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4, do_sample=False,
        pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return torch.stack(out.logits, 1)


@torch.no_grad()
def test_it_generates_and_runs_as_inject_does_and_leaves_the_model_alone(build_model):
    model = build_model("llama").eval()
    direction = direction_of(model)
    where = Where(phase="generation") | Where(positions=-1)
    treated = steer(model, direction, coefficient=2.0, where=where, decay=3.0)
    plain, plainly = generated(model), model(IDS).logits
    with inject(model, Add(direction, coefficient=2.0, where=where, decay=3.0)):
        expected, forward = generated(model), model(IDS).logits
    assert (expected - plain).abs().max() > 0.05
    assert torch.equal(generated(treated), expected)
    assert torch.equal(treated(IDS).logits, forward)
    assert torch.equal(treated.forward(IDS).logits, forward)
    with inject(model, *treated.interventions, prompt_length=2):
        ended = model(IDS).logits
    assert torch.equal(treated(IDS, prompt_length=2).logits, ended)
    assert not torch.equal(ended, forward)
    assert torch.equal(generated(model), plain)
    assert torch.equal(model(IDS).logits, plainly)
    assert treated.model is model
    assert treated.config is model.config
    assert treated.device == torch.device("cpu")


@torch.no_grad()
def test_within_a_block_the_users_own_model_is_steered_until_undone(build_model):
    model = build_model("gpt2").eval()
    treated = steer(model, direction_of(model))
    plain, expected = model(IDS).logits, treated(IDS).logits
    with treated as same:
        assert same is treated
        assert torch.equal(model(IDS).logits, expected)
        assert torch.equal(treated(IDS).logits, expected)  # once, not twice
        with pytest.raises(InvalidInputError, match="in use already"):
            treated.__enter__()
        treated.undo()
        assert torch.equal(model(IDS).logits, plain)
    treated.undo()
    with pytest.raises(RuntimeError, match="stop"), treated:
        raise RuntimeError("stop")
    assert torch.equal(model(IDS).logits, plain)


@torch.no_grad()
def test_any_intervention_can_be_kept(build_model):
    model = build_model("gpt2").eval()
    direction = direction_of(model)
    treated = SteeredModel(ed_interp.load(model), (Ablate(direction), Add(direction)))
    with inject(model, Ablate(direction), Add(direction)):
        expected = model(IDS).logits
    assert torch.equal(treated(IDS).logits, expected)


def test_what_does_not_fit_is_refused_when_it_is_made(build_model):
    model = build_model("gpt2")
    with pytest.raises(InvalidInputError, match="another architecture"):
        steer(build_model("llama"), direction_of(model))
    with pytest.raises(InvalidInputError, match="in float32, got"):
        steer(model, direction_of(model), coefficient=1e39)


@torch.no_grad()
def test_an_adapter_checkpoint_does_the_same(build_model, tmp_path):
    pytest.importorskip("ed_interp.adapters.bias_injection.directions")
    from peft import PeftModel

    model = build_model("gpt2").eval()
    direction = direction_of(model, SITE, "blocks.2.hook_attn_out")
    plain, expected = model(IDS).logits, steer(model, direction, coefficient=1.5)(IDS).logits
    folder = save_adapter(model, direction, tmp_path / "adapter", coefficient=1.5)
    assert torch.equal(model(IDS).logits, plain)
    assert not list(folder.glob("*.bin"))
    loaded = PeftModel.from_pretrained(build_model("gpt2"), str(folder)).eval()
    assert (loaded(IDS).logits - expected).abs().max() < 1e-4
    with pytest.raises(RunFolderError, match="is not empty"):
        save_adapter(model, direction, folder)
