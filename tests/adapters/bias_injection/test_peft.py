"""What PEFT promises for every adapter: saving, loading, several at once, merging."""

import copy
import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, PeftType, get_peft_model

import ed_interp
from ed_interp.adapters.bias_injection import BiasInjectionConfig, BiasInjectionLayer
from ed_interp.errors import InvalidInputError


def logits(model, padded):
    ids, mask, _ = padded
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def plain_weights(model):
    """Weights of the base model, by their names in it."""
    found = {}
    for name, value in model.state_dict().items():
        if "bias_injection" not in name:
            found[name.replace("base_model.model.", "").replace(".base_layer", "")] = value.clone()
    return found


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_the_method_is_a_real_member_of_the_enumeration():
    member = PeftType("BIAS_INJECTION")
    assert member is BiasInjectionConfig().peft_type
    assert member in list(PeftType)
    assert member.value == "BIAS_INJECTION"
    assert json.loads(json.dumps({"peft_type": member})) == {"peft_type": "BIAS_INJECTION"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saved_and_loaded_is_the_same(
    adapted, build_model, padded, tmp_path, family, low_cpu_mem_usage
):
    model = adapted(family, tau=[2.0, 7.0, 30.0], feedback="input")
    model.save_pretrained(tmp_path)
    base = build_model(family).eval()
    loaded = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(logits(loaded, padded), logits(model, padded))
    # And through the loader of transformers, which injects without a PeftModel.
    other = build_model(family).eval()
    other.load_adapter(str(tmp_path))
    assert torch.equal(logits(other, padded), logits(model, padded))
    other.disable_adapters()
    assert torch.equal(logits(other, padded), logits(build_model(family).eval(), padded))


def test_a_folder_alone_is_enough(adapted, build_model, padded, tmp_path):
    build_model("llama").save_pretrained(tmp_path / "base")
    model = adapted("llama")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded, padded), logits(model, padded))


def test_two_saves_of_one_adapter_are_the_same_bytes(adapted, tmp_path):
    model = adapted("llama", target_modules=["q_proj", "v_proj", "o_proj", "down_proj"])
    for name in ("one", "other"):
        model.save_pretrained(tmp_path / name)
    model.save_pretrained(tmp_path / "one")  # again: the card says it once
    card = (tmp_path / "one" / "README.md").read_text("utf-8")
    assert card.count("import ed_interp.adapters.bias_injection") == 1
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_several_adapters(adapted, padded):
    model = adapted("llama")
    first = logits(model, padded)
    model.add_adapter("second", BiasInjectionConfig(r=2, n_nodes=2, feedback="output"))
    assert torch.equal(logits(model, padded), first)
    model.set_adapter("second")
    with model.disable_adapter():
        base = logits(model, padded)
    assert torch.equal(logits(model, padded), base)  # fresh
    for name, parameter in model.named_parameters():
        if name.endswith(".second") and "tau" not in name:
            parameter.data.normal_(std=0.3)
    second = logits(model, padded)
    assert not torch.allclose(second, base, atol=1e-2)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model, padded)
    assert not torch.allclose(both, first, atol=1e-2)
    assert not torch.allclose(both, second, atol=1e-2)
    model.set_adapter("default")
    assert torch.equal(logits(model, padded), first)
    model.delete_adapter("second")
    assert "second" not in {
        n for m in model.modules() if isinstance(m, BiasInjectionLayer) for n in m.settings
    }
    assert torch.equal(logits(model, padded), first)


def test_a_saved_adapter_takes_another_name(adapted, build_model, padded, tmp_path):
    model = adapted("gpt2")
    model.save_pretrained(tmp_path)
    other = get_peft_model(build_model("gpt2").eval(), BiasInjectionConfig(), adapter_name="first")
    other.load_adapter(tmp_path, adapter_name="renamed")
    other.set_adapter("renamed")
    assert torch.equal(logits(other.eval(), padded), logits(model, padded))


@pytest.mark.parametrize(("family", "bias"), [("gpt2", True), ("llama", False), ("gemma2", False)])
def test_merging_keeps_feedback_live_and_unmerging_restores(adapted, padded, family, bias):
    model = adapted(family, use_bias=bias)
    expected, weights = logits(model, padded), plain_weights(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model, padded), expected, atol=1e-4, rtol=1e-4)
    layer = next(m for m in model.modules() if isinstance(m, BiasInjectionLayer))
    assert layer.merged
    # Feedback is in no weight: without it the merged model is another one.
    for one in model.modules():
        if isinstance(one, BiasInjectionLayer):
            one.weights_of("default")["write"].data.zero_()
    assert not torch.allclose(logits(model, padded), expected, atol=1e-2)
    model.unmerge_adapter()
    for name, value in plain_weights(model).items():
        torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_live_feedback_is_not_merged_away(adapted, padded, family):
    model = adapted(family, use_bias=False)
    expected, weights = logits(model, padded), plain_weights(model)
    with pytest.raises(InvalidInputError, match=r"feedback nodes .* merge_adapter\(\)"):
        model.merge_and_unload()
    assert equal(plain_weights(model), weights)
    assert torch.equal(logits(model, padded), expected)


@pytest.mark.parametrize(("family", "bias"), [("gpt2", True), ("llama", False), ("gemma3", False)])
def test_an_adapter_without_feedback_merges_whole(adapted, padded, family, bias):
    model = adapted(family, use_bias=bias, n_nodes=3 if bias else 0, feedback="none")
    expected = logits(model, padded)
    merged = model.merge_and_unload(safe_merge=True)
    assert not any(isinstance(m, BiasInjectionLayer) for m in merged.modules())
    assert not merged._forward_pre_hooks
    torch.testing.assert_close(logits(merged, padded), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_bias_without_a_place_is_refused_before_any_weight_changes(adapted, padded, family):
    model = adapted(family)
    # Only the last layer has a bias that is not zero: the others would be merged before it.
    layers = [m for m in model.modules() if isinstance(m, BiasInjectionLayer)]
    for layer in layers[:-1]:
        layer.weights_of("default")["bias"].data.zero_()
    weights, expected = plain_weights(model), logits(model, padded)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(InvalidInputError, match="has no bias to merge"):
            merge()
        assert equal(plain_weights(model), weights)
        assert not any(layer.merged for layer in layers)
    assert torch.equal(logits(model, padded), expected)


def test_weights_with_nan_are_not_merged(adapted):
    model = adapted("llama", use_bias=False)
    layers = [m for m in model.modules() if isinstance(m, BiasInjectionLayer)]
    layers[-1].weights_of("default")["B"].data[0, 0] = float("nan")
    weights = plain_weights(model)
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)
    assert equal(plain_weights(model), weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adapters_and_autocast(build_model, padded, dtype):
    ids, mask, _ = padded
    base = build_model("llama").to(dtype)
    model = get_peft_model(base, BiasInjectionConfig(), autocast_adapter_dtype=False)
    assert all(p.dtype == dtype for p in model.parameters())
    model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
    model = get_peft_model(build_model("llama"), BiasInjectionConfig())
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)


def test_copies_and_moves(adapted, padded):
    model = adapted("gpt2")
    expected = logits(model, padded)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied, padded), expected)
    copied.double()
    assert logits(copied, padded).dtype == torch.float64
    # Like LoRA, an adapter of another precision than the layer gives the layer's.
    assert torch.equal(logits(model, padded), expected)
    torch.testing.assert_close(logits(copied, padded).float(), expected, atol=1e-4, rtol=1e-4)


def test_targets_can_be_chosen(adapted):
    def keys(**options):
        model = adapted("llama", trained=False, **options)
        return [m.key for m in model.modules() if isinstance(m, BiasInjectionLayer)]

    assert {k.rpartition(".")[2] for k in keys()} == {"q_proj", "v_proj"}
    assert len(keys(target_modules="all-linear")) == 3 * 7
    assert keys(target_modules=["o_proj"], layers_to_transform=[1]) == [
        "model.layers.1.self_attn.o_proj"
    ]
    assert not any("layers.2" in key for key in keys(exclude_modules=r".*layers\.2.*"))
    saved = adapted("llama", trained=False, modules_to_save=["lm_head"])
    assert any("modules_to_save" in n and p.requires_grad for n, p in saved.named_parameters())


def test_the_loader_knows_the_method(adapted, build_model, tiny_tokenizer, padded, tmp_path):
    build_model("gpt2").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    model = adapted("gpt2")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    loaded = ed_interp.load(str(tmp_path / "adapter"), device="cpu")
    assert torch.equal(logits(loaded.model, padded), logits(model, padded))
