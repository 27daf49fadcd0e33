"""Capture: what is read is the residual stream, the model is left alone, shards resume."""

import pytest
import torch

import ed_interp
from ed_interp.errors import CaptureError, RunFolderError, UnknownNameError
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import Site
from ed_interp.streams.capture import capture


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3", "llama", "neox", "opt"])
def test_block_boundaries_equal_the_models_hidden_states(family, build_model):
    model = build_model(family).eval()
    hooked = ed_interp.load(model)
    ids = torch.randint(3, 101, (2, 12))
    sites = [hooked.site("hook_embed")] + [
        hooked.site(f"blocks.{layer}.hook_{kind}")
        for layer in range(hooked.n_layers)
        for kind in ("resid_pre", "resid_post")
    ]
    reads = torch.arange(12).expand(2, -1)
    states = hooked.runner.run(Inputs(ids), sites=sites, reads=reads).states
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states
    for index, site in enumerate(sites[1:], 1):
        # The last entry of hidden_states is after the final norm: not the block's output.
        place = site.layer + (site.kind == "resid_post")
        if place < hooked.n_layers:
            assert (states[:, :, index] - hidden[place]).abs().max() < 1e-5
    before, after = states[:, :, 1::2], states[:, :, 2::2]
    # A block's output is the next one's input; and no block is the identity.
    assert torch.equal(after[:, :, :-1], before[:, :, 1:])
    assert all(
        (after[:, :, n] - before[:, :, n]).abs().max() > 1e-3 for n in range(hooked.n_layers)
    )


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama"])
def test_attention_and_mlp_sum_up_to_the_block(family, build_model):
    hooked = ed_interp.load(build_model(family))
    names = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
    sites = [hooked.site(f"blocks.1.hook_{name}") for name in names]
    ids = torch.randint(3, 101, (2, 9))
    reads = torch.arange(9).expand(2, -1)
    pre, attn, mid, mlp, post = hooked.runner.run(
        Inputs(ids), sites=sites, reads=reads
    ).states.unbind(2)
    assert (pre + attn - mid).abs().max() < 1e-4
    assert (mid + mlp - post).abs().max() < 1e-4


def test_parallel_blocks_have_no_middle(build_model):
    hooked = ed_interp.load(build_model("neox"))
    assert "blocks.0.hook_attn_out" in hooked.sites
    assert "blocks.0.hook_resid_mid" not in hooked.sites
    with pytest.raises(CaptureError, match="in parallel"):
        hooked.site("blocks.0.hook_resid_mid")


def test_the_pass_stops_behind_the_last_site(build_model, random_prompts):
    model = build_model("gpt2")
    calls = []
    model.transformer.h[2].register_forward_hook(lambda *_: calls.append("block 2"))
    model.lm_head.register_forward_hook(lambda *_: calls.append("head"))
    population = random_prompts(shots=(1, 2), queries=False)
    capture(model, population, sites=["blocks.1.hook_resid_post"])
    assert calls == []
    capture(model, population, sites=["blocks.2.hook_resid_post"])
    assert set(calls) == {"block 2"}


def test_the_model_is_left_as_it_was(build_model, random_prompts):
    model = build_model("gpt2")
    model.train()
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooked = ed_interp.load(model)
    one, two = (capture(hooked, random_prompts()) for _ in range(2))
    assert torch.equal(one.at(1), two.at(1))  # dropout was off
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_go_away_when_the_pass_fails(build_model):
    model = build_model("gpt2")
    hooked = ed_interp.load(model)
    sites = [hooked.site("blocks.0.hook_resid_post")]
    with pytest.raises(IndexError):
        hooked.runner.run(
            Inputs(torch.tensor([[500]])), sites=sites, reads=torch.zeros(1, 1).long()
        )
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_that_do_not_fire_raise(build_model):
    model = build_model("gpt2")
    hooked = ed_interp.load(model)
    model.transformer.h = torch.nn.ModuleList(list(model.transformer.h)[:2])
    site = Site.parse("blocks.2.hook_resid_post")
    with pytest.raises(CaptureError, match=r"did not fire.*blocks\.2\.hook_resid_post"):
        hooked.runner.run(Inputs(torch.tensor([[5]])), sites=[site], reads=torch.zeros(1, 1).long())


def test_unknown_sites_list_the_nearest(build_model):
    hooked = ed_interp.load(build_model("gpt2"))
    with pytest.raises(UnknownNameError, match=r"did you mean blocks\.1\.hook_resid_post"):
        hooked.site("blocks.1.hook_residpost")
    with pytest.raises(UnknownNameError, match="has 3 blocks"):
        hooked.site("blocks.3.hook_resid_post")


def test_a_killed_capture_resumes_and_equals_an_uninterrupted_one(
    build_model, random_prompts, tmp_path
):
    hooked = ed_interp.load(build_model("llama"))
    population = random_prompts(prompts=6)
    whole = capture(hooked, population, batch_size=2)

    def stop(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(hooked, population, batch_size=2, folder=tmp_path / "shards", progress=stop)
    written = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "shards").glob("shard-*")}
    assert len(written) == 2
    resumed = capture(hooked, population, batch_size=2, folder=tmp_path / "shards")
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "shards").glob("shard-*")}
    assert len(after) == 3
    assert written.items() <= after.items()  # the finished shards were not computed again
    for count in whole.shots:
        assert torch.equal(resumed.at(count), whole.at(count))
    assert torch.equal(resumed.scores()["logprob"], whole.scores()["logprob"])
    site = "blocks.1.hook_resid_post"
    assert torch.equal(resumed[site], whole[site])
    assert resumed[site].shape == (6, len(whole.shots), 32)


def test_a_folder_of_another_request_is_refused(build_model, random_prompts, tmp_path):
    hooked = ed_interp.load(build_model("llama"))
    capture(hooked, random_prompts(), folder=tmp_path / "shards")
    with pytest.raises(RunFolderError, match="the same request"):
        capture(hooked, random_prompts(seed=1), folder=tmp_path / "shards")


def test_a_damaged_shard_is_named(build_model, random_prompts, tmp_path):
    hooked = ed_interp.load(build_model("llama"))
    found = capture(hooked, random_prompts(), folder=tmp_path / "shards")
    shard = next((tmp_path / "shards").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=shard.name):
        found.at(1)


def test_asking_for_what_was_not_read_lists_what_was(build_model, random_prompts):
    found = capture(build_model("llama"), random_prompts(), sites=["blocks.1.hook_resid_post"])
    with pytest.raises(CaptureError, match=r"choose from: \[0, 1, 2, 5\]"):
        found.at(3)
    with pytest.raises(CaptureError, match=r"choose from: blocks\.1\.hook_resid_post"):
        found["blocks.0.hook_resid_post"]


def test_a_population_of_text_is_tokenized_with_the_models_own_tokenizer(tiny_folder):
    from ed_interp.prompts.population import draw
    from ed_interp.prompts.tasks import builtin_task
    from ed_interp.prompts.tokens import tokenize

    hooked = ed_interp.load(tiny_folder, device="cpu")
    population = draw(builtin_task("next-letter"), prompts=6, shots=[0, 2])
    one = capture(hooked, population)
    two = capture(hooked, tokenize(population, hooked.tokenizer))
    assert all(torch.equal(one.at(shots), two.at(shots)) for shots in (0, 2))
