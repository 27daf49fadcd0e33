"""Loading: every kind of thing a user may hand in, and one clear line for what cannot be."""

import json
import os
import shutil

import pytest
import torch

import ed_interp
from ed_interp.errors import InvalidInputError, ModelLoadError, UnknownNameError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.untrained import untrained_twin
from ed_interp.streams.capture import capture


@pytest.fixture
def gpt2():
    import transformers as t

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = t.GPT2Config(
            n_layer=2, n_embd=16, n_head=2, vocab_size=101, n_positions=64, bos_token_id=1,
            eos_token_id=2,
        )  # fmt: skip
        model = t.GPT2LMHeadModel(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        return model


@pytest.fixture
def folder(gpt2, tiny_tokenizer, tmp_path):
    gpt2.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def logits(hooked: HookedModel) -> torch.Tensor:
    with torch.no_grad():
        return hooked.model.eval()(torch.tensor([[5, 6, 7]])).logits


def test_a_folder_and_a_live_model_are_the_same_model(folder, gpt2, tiny_tokenizer):
    from_folder = ed_interp.load(folder, device="cpu")
    live = ed_interp.load(gpt2, tokenizer=tiny_tokenizer)
    assert live.model is gpt2
    assert ed_interp.load(live) is live
    assert from_folder.fingerprint == live.fingerprint
    assert torch.equal(logits(from_folder), logits(live))
    assert from_folder.name == "model"
    assert (live.n_layers, live.d_model, live.context_window) == (2, 16, 64)


def test_dtypes_and_devices(folder):
    assert ed_interp.load(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert ed_interp.load(folder, device="cpu").dtype == torch.float32
    with pytest.raises(InvalidInputError, match=r"dtype must be .* got 'int8'"):
        ed_interp.load(folder, dtype="int8")
    with pytest.raises(InvalidInputError, match=r"device must be .* got 'gpu'"):
        ed_interp.load(folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match="not available to torch"):
            ed_interp.load(folder, device="cuda")


def test_a_live_model_is_not_moved(gpt2):
    with pytest.raises(InvalidInputError, match="never changed"):
        ed_interp.load(gpt2, dtype="float16")
    with pytest.raises(InvalidInputError, match="got a dict"):
        ed_interp.load({})


def test_a_hub_id_without_network_names_the_ways_out(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError) as caught:
        ed_interp.load("no-such-org/no-such-model")
    text = str(caught.value)
    assert "\n" not in text
    for part in ("no-such-org/no-such-model", "icl-gpt2", "icl-gemma2", "local folder"):
        assert part in text


def test_pickles_are_not_read(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="only safetensors"):
        ed_interp.load(folder)


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        ed_interp.load(tmp_path)
    with pytest.raises(ModelLoadError, match="does not exist"):
        ed_interp.load("./nowhere")


def test_a_truncated_checkpoint_is_one_error(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ModelLoadError, match="weights are damaged"):
        ed_interp.load(folder)


def test_adapter_folders_load_on_their_base(folder, gpt2, tiny_tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        target_modules=["c_attn"],
        init_lora_weights=False,
        fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(gpt2, config, adapter_name="default")
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = ed_interp.load(tmp_path / "adapter", device="cpu")
    assert torch.equal(logits(loaded), logits(ed_interp.load(adapted, tokenizer=tiny_tokenizer)))
    assert loaded.tokenizer is not None
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="only safetensors"):
        ed_interp.load(tmp_path / "adapter")


def test_prompt_tuning_shifts_positions(gpt2, tiny_tokenizer):
    from peft import PromptTuningConfig, TaskType, get_peft_model

    from ed_interp.models.runners import Inputs

    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)
    adapted = get_peft_model(gpt2, config)
    hooked = ed_interp.load(adapted, tokenizer=tiny_tokenizer)
    assert hooked.context_window == 61
    ids = torch.tensor([[5, 6, 7, 8]])
    site = hooked.site("blocks.0.hook_resid_pre")
    states = hooked.runner.run(
        Inputs(ids), sites=[site], reads=torch.tensor([[0, 3]]), logit_reads=torch.tensor([[3]])
    )
    wte, wpe = gpt2.transformer.wte.weight, gpt2.transformer.wpe.weight
    assert torch.allclose(states.states[0, 0, 0], wte[5] + wpe[3], atol=1e-6)
    assert torch.allclose(states.states[0, 1, 0], wte[8] + wpe[6], atol=1e-6)
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1]
    assert torch.allclose(states.logits[:, 0], expected, atol=1e-5)


def test_the_fingerprint_sees_a_single_weight(gpt2):
    before = ed_interp.load(gpt2).fingerprint
    gpt2.transformer.h[1].ln_2.bias.data[3] += 1e-3
    assert HookedModel.wrap(gpt2).fingerprint != before


def test_the_twin_is_seeded_fresh_and_leaves_torch_alone(gpt2):
    hooked = ed_interp.load(gpt2)
    state = torch.random.get_rng_state()
    one, two, other = (untrained_twin(hooked, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.fingerprint == two.fingerprint
    assert len({one.fingerprint, other.fingerprint, hooked.fingerprint}) == 3
    assert float(one.model.transformer.wte.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
class TestTransformerLens:
    """Live TransformerLens models, and making one."""

    def test_a_bridge_is_a_copy_with_equal_states(self, gpt2, tiny_tokenizer, random_prompts):
        hooked = ed_interp.load(gpt2, tokenizer=tiny_tokenizer)
        before = hooked.fingerprint
        bridge = ed_interp.to_transformer_lens(gpt2, tokenizer=tiny_tokenizer)
        assert HookedModel.wrap(gpt2).fingerprint == before
        lens = ed_interp.load(bridge)
        assert lens.model is bridge
        assert lens.family == "gpt2"
        population = random_prompts()
        one, two = capture(hooked, population), capture(lens, population)
        assert two.path == "separate"
        for shots in one.shots:
            assert (one.at(shots) - two.at(shots)).abs().max() < 1e-4
        assert (one.scores()["logprob"] - two.scores()["logprob"]).abs().max() < 1e-4

    def test_adapters_are_merged_into_the_copy(self, gpt2, tiny_tokenizer):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            target_modules=["c_attn"],
            init_lora_weights=False,
            fan_in_fan_out=True,
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(gpt2, config)
        bridge = ed_interp.to_transformer_lens(adapted, tokenizer=tiny_tokenizer)
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            expected = adapted.eval()(ids).logits
            assert torch.allclose(bridge(ids), expected, atol=1e-4)
            with adapted.disable_adapter():
                assert not torch.allclose(bridge(ids), adapted(ids).logits, atol=1e-2)
        assert adapted.active_adapters == ["default"]

    def test_hooked_transformer_reads_at_its_own_hook_points(self, random_prompts):
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        config = HookedTransformerConfig(
            n_layers=2, d_model=16, n_ctx=64, d_head=8, n_heads=2, d_mlp=32, d_vocab=101,
            act_fn="gelu", normalization_type="LN", seed=0, device="cpu",
        )  # fmt: skip
        model = HookedTransformer(config)
        hooked = ed_interp.load(model)
        found = capture(hooked, random_prompts())
        assert found.path == "separate"
        prompt = random_prompts().prompts[0]
        ids = torch.tensor([prompt.sequence(2)])
        _, cache = model.run_with_cache(ids, prepend_bos=False)
        expected = cache["blocks.1.hook_resid_post"][0, -1]
        assert torch.allclose(found.at(2)[0, -1], expected, atol=1e-5)
        assert not hooked.processed_weights
        twin = untrained_twin(hooked, seed=3)
        assert twin.fingerprint not in (
            hooked.fingerprint,
            untrained_twin(hooked, seed=4).fingerprint,
        )

    def test_a_bridge_of_a_bridge_is_refused(self, gpt2, tiny_tokenizer):
        bridge = ed_interp.to_transformer_lens(gpt2, tokenizer=tiny_tokenizer)
        with pytest.raises(InvalidInputError, match="TransformerLens model already"):
            ed_interp.to_transformer_lens(bridge)
        with pytest.raises(InvalidInputError, match="no tokenizer"):
            ed_interp.to_transformer_lens(gpt2)


def test_bundled_names_take_a_checkpoint():
    names = ed_interp.bundled_names()
    assert names == ["icl-gemma2", "icl-gpt2"]
    from ed_interp.models.registry import bundled

    steps = list(bundled("icl-gpt2").checkpoints)
    first = ed_interp.load(f"icl-gpt2@{steps[0]}", device="cpu")
    final = ed_interp.load("icl-gpt2", device="cpu")
    assert first.fingerprint != final.fingerprint
    assert ed_interp.load("icl-gpt2", checkpoint=steps[0]).fingerprint == first.fingerprint
    with pytest.raises(UnknownNameError, match="choose from: 0"):
        ed_interp.load("icl-gpt2@7")
    with pytest.raises(InvalidInputError, match="after @"):
        ed_interp.load("icl-gpt2@last")
    with pytest.raises(InvalidInputError, match="must come with a bundled model"):
        ed_interp.load("gpt2", checkpoint=7)


def test_a_user_may_copy_a_bundled_folder(tmp_path):
    from ed_interp.models.registry import bundled

    shutil.copytree(bundled("icl-gemma2").folder, tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["model_type"] == "gemma2"
    mine = ed_interp.load(os.fspath(tmp_path / "mine"), device="cpu")
    assert mine.fingerprint == ed_interp.load("icl-gemma2", device="cpu").fingerprint
