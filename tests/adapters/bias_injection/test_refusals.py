"""Bad input: one clear line each, and nothing changed."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from ed_interp.adapters.bias_injection import BiasInjectionConfig
from ed_interp.errors import EdInterpError, InvalidInputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": -1}, "r must be a whole number from 0 up, got -1"),
        ({"r": True}, "r must be a whole number"),
        ({"n_nodes": -2}, "n_nodes must be a whole number"),
        ({"n_nodes": True}, "n_nodes must be a whole number"),
        ({"tau": 0.0}, "tau must be a positive number"),
        ({"tau": [1.0, -3.0, 1.0, 1.0]}, "tau must be a positive number"),
        ({"tau": float("nan")}, "tau must be a positive number"),
        ({"tau": [1.0, 2.0]}, "one per node, got 2 for 4 nodes"),
        ({"feedback": "both"}, "feedback must be one of input, output, none"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"lora_alpha": float("inf")}, "lora_alpha must be a finite number"),
        ({"r": 0, "n_nodes": 0, "use_bias": False}, "nothing would be trained"),
        ({"neutral": True, "n_nodes": 0}, "neutral=True ties the bias"),
        ({"neutral": True, "use_bias": False}, "neutral=True ties the bias"),
        ({"layers_pattern": "h"}, "needs layers_to_transform"),
        (
            {"target_modules": ".*q_proj", "layers_to_transform": 1},
            "target_modules must be a list",
        ),
        ({"format_version": 99}, "has format 99"),
    ],
)
def test_options(options, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        BiasInjectionConfig(**options)
    assert "\n" not in str(caught.value)


def test_no_target_matched(build_model):
    with pytest.raises(ValueError, match="not found in the base model"):
        get_peft_model(build_model("llama"), BiasInjectionConfig(target_modules=["c_attn"]))


@pytest.mark.parametrize("target", ["embed_tokens", "self_attn"])
def test_layers_that_are_not_linear(build_model, target):
    config = BiasInjectionConfig(target_modules=[target])
    with pytest.raises(InvalidInputError, match=r"adapts torch\.nn\.Linear"):
        get_peft_model(build_model("llama"), config)


def test_quantised_layers(build_model):
    class Linear4bit(nn.Linear):
        compute_dtype = torch.float16

    model = build_model("llama")
    model.model.layers[0].self_attn.q_proj = Linear4bit(32, 32)
    with pytest.raises(InvalidInputError, match=r"is quantised \(Linear4bit\)"):
        get_peft_model(model, BiasInjectionConfig())


def test_mixed_batches(adapted):
    model = adapted("llama")
    with pytest.raises(InvalidInputError, match="no mixed batches"):
        model.get_base_model().model.layers[0].self_attn.q_proj(
            torch.zeros(1, 2, 32), adapter_names=["default"]
        )


@pytest.fixture
def saved(adapted, tmp_path):
    adapted("llama").save_pretrained(tmp_path)
    return tmp_path


def tampered(saved, change):
    path = saved / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configured(saved, **options):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))


def key(tensors, name):
    return next(k for k in sorted(tensors) if k.endswith(name))


def nan(tensors):
    tensors[key(tensors, "_write")][0] = float("nan")


def nudge(tensors):
    tensors[key(tensors, "_write")] += 1e-3


def drop(tensors):
    del tensors[key(tensors, "_read")]


def add(tensors):
    tensors["base_model.model.model.layers.9.self_attn.q_proj.bias_injection_A"] = torch.ones(4, 32)


def reshape(tensors):
    name = key(tensors, "_B")
    tensors[name] = tensors[name][:, :2].contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, "must hold finite numbers"),
        (nudge, "changed after it was saved"),
        (drop, "it lacks 1 tensor "),
        (add, "has no place for 1 tensor "),
        (reshape, r"must be \(32, 4\), got \(32, 2\)"),
    ],
)
def test_tampered_checkpoints(build_model, saved, change, message):
    tampered(saved, change)
    base = build_model("llama").eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with pytest.raises(InvalidInputError, match=message) as caught:
        PeftModel.from_pretrained(base, saved)
    assert "\n" not in str(caught.value)
    # The model is as it was: no weight changed, no layer of ours left in it.
    after = base.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 6}, r"must be \(6, 32\), got \(4, 32\)"),
        ({"n_nodes": 5, "tau": 3.0}, r"\(5"),
        ({"feedback": "none"}, "has no place for"),
        ({"format_version": 2}, "has format 2"),
        ({"target_modules": ["q_proj"]}, "has no place for"),
    ],
)
def test_a_checkpoint_of_another_shape_or_version(build_model, saved, options, message):
    configured(saved, **options)
    with pytest.raises(InvalidInputError, match=message):
        PeftModel.from_pretrained(build_model("llama"), saved)


def test_another_architecture(build_model, saved):
    with pytest.raises(InvalidInputError, match="does not fit this model"):
        PeftModel.from_pretrained(build_model("gemma3"), saved)
    with pytest.raises(ValueError, match="not found in the base model"):
        PeftModel.from_pretrained(build_model("gpt2"), saved)


def test_a_second_adapter_that_is_refused_leaves_the_first(adapted, saved):
    model = adapted("llama", seed=3)
    tampered(saved, nan)
    with pytest.raises(InvalidInputError, match="must hold finite numbers"):
        model.load_adapter(saved, adapter_name="second")
    assert list(model.peft_config) == ["default"]
    assert not [n for n, _ in model.named_parameters() if "second" in n]


@pytest.mark.parametrize("size", [4, 40, 4000])
def test_truncated_files(build_model, saved, size):
    import ed_interp

    path = saved / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Exception, match=r"(?i)safetensor|header|incomplete|metadata"):
        PeftModel.from_pretrained(build_model("llama"), saved)
    build_model("llama").save_pretrained(saved / "base")
    configured(saved, base_model_name_or_path=str(saved / "base"))
    with pytest.raises(EdInterpError):
        ed_interp.load(str(saved))
