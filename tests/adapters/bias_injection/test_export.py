"""The static part as LoRA; directions as adapters and back."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from peft import PeftModel

import ed_interp
from ed_interp.adapters.bias_injection import BiasInjectionLayer
from ed_interp.adapters.bias_injection.directions import (
    adapter_from_direction,
    direction_from_adapter,
)
from ed_interp.adapters.bias_injection.export import export_lora
from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.streams.direction import Direction


def logits(model, padded):
    with torch.no_grad():
        return model(input_ids=padded[0], attention_mask=padded[1]).logits


def without_feedback(model):
    silent = copy.deepcopy(model)
    for layer in silent.modules():
        if isinstance(layer, BiasInjectionLayer) and layer.settings["default"].has_feedback:
            layer.weights_of("default")["write"].data.zero_()
    return silent


# PEFT warns that a bias beside a layer without one cannot be merged, here or there.
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("llama", {"use_bias": False, "r": 2, "lora_alpha": 5.0}),
        ("gpt2", {"r": 0, "n_nodes": 0}),
        ("llama", {"feedback": "none"}),
        ("gemma2", {"feedback": "none", "neutral": True}),
    ],
)
def test_the_static_part_is_a_lora(adapted, build_model, padded, tmp_path, family, options):
    model = adapted(family, **options)
    export_lora(model, tmp_path / "lora", drop_feedback=True)
    loaded = PeftModel.from_pretrained(build_model(family).eval(), tmp_path / "lora").eval()
    expected = logits(without_feedback(model), padded)
    torch.testing.assert_close(logits(loaded, padded), expected, atol=1e-4, rtol=1e-4)
    assert json.loads((tmp_path / "lora/adapter_config.json").read_text())["peft_type"] == "LORA"


PLAIN = """
import sys, json

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ed_interp":
            raise ImportError("ed_interp is not here")

sys.meta_path.insert(0, Refuse())
try:
    import ed_interp
except ImportError:
    pass
else:
    raise SystemExit("ed_interp can be imported")
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
model = PeftModel.from_pretrained(base, sys.argv[2]).eval()
with torch.no_grad():
    logits = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
print(json.dumps(logits[0, -1, :5].tolist()))
"""


def test_it_loads_where_this_package_is_not_installed(adapted, build_model, tmp_path):
    build_model("llama").save_pretrained(tmp_path / "base")
    model = adapted("llama")
    export_lora(model, tmp_path / "lora", drop_feedback=True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PLAIN, str(tmp_path / "base"), str(tmp_path / "lora")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    silent = without_feedback(model)
    with torch.no_grad():
        expected = silent(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0, -1, :5]
    torch.testing.assert_close(
        torch.tensor(json.loads(done.stdout)), expected, atol=1e-4, rtol=1e-3
    )


def test_feedback_is_not_left_out_unasked(adapted, tmp_path):
    with pytest.raises(InvalidInputError, match="drop_feedback=True"):
        export_lora(adapted("llama"), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    # A fresh adapter's feedback is zero: nothing is lost.
    export_lora(adapted("llama", trained=False), tmp_path / "lora")
    with pytest.raises(RunFolderError, match="holds an adapter already"):
        export_lora(adapted("llama", trained=False), tmp_path / "lora")
    with pytest.raises(InvalidInputError, match=r"adapter_name must be .*, got 'x'"):
        export_lora(adapted("llama"), tmp_path / "other", adapter_name="x")


def direction(model, *sites):
    generator = torch.Generator().manual_seed(4)
    vectors = {site: torch.randn(32, generator=generator) for site in sites}
    return Direction.of(model, vectors, method="random")


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "neox"])
def test_a_direction_is_a_bias_and_comes_back(build_model, padded, tmp_path, family):
    from ed_interp.streams.injection import Add, inject

    base = build_model(family).eval()
    # Injection leaves padding alone, a bias does not: compare without any.
    padded = (padded[0], torch.ones_like(padded[1]))
    found = direction(base, "blocks.0.hook_resid_post", "blocks.1.hook_attn_out")
    with inject(base, Add(found * 0.5)):
        expected = logits(base, padded)
    assert not torch.allclose(expected, logits(base, padded), atol=1e-2)
    model = adapter_from_direction(copy.deepcopy(base), found, strength=0.5)
    torch.testing.assert_close(logits(model, padded), expected, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build_model(family).eval(), tmp_path)
    back = direction_from_adapter(loaded)
    assert list(back.vectors) == list(found.vectors)
    for site, vector in back.vectors.items():
        torch.testing.assert_close(vector, 0.5 * found[site])
    back.check(ed_interp.load(base))
    assert torch.equal(logits(loaded.eval(), padded), logits(model, padded))


def test_sites_that_are_one_place_add_up(build_model, padded):
    base = build_model("llama").eval()
    found = direction(base, "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre")
    back = direction_from_adapter(adapter_from_direction(base, found))
    total = found["blocks.0.hook_resid_post"] + found["blocks.1.hook_resid_pre"]
    torch.testing.assert_close(back["blocks.0.hook_resid_post"], total)


@pytest.mark.parametrize(
    ("family", "site"),
    [
        ("gemma2", "blocks.1.hook_resid_post"),
        ("gemma3", "blocks.1.hook_attn_out"),
        ("gpt2", "hook_embed"),
        ("gpt2", "blocks.0.hook_resid_pre"),
    ],
)
def test_places_that_no_bias_reaches_are_refused(build_model, family, site):
    base = build_model(family).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with pytest.raises(InvalidInputError, match="must be written by a linear layer"):
        adapter_from_direction(base, direction(base, site))
    assert before.keys() == base.state_dict().keys()


def test_another_models_direction_is_refused(build_model):
    found = direction(build_model("llama"), "blocks.0.hook_resid_post")
    with pytest.raises(InvalidInputError, match="belongs to"):
        adapter_from_direction(build_model("mistral"), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_nodes": 0}, "a low-rank part"),
        ({"r": 0}, "live feedback"),
        ({"r": 0, "n_nodes": 0}, "a bias in .*q_proj, which does not write the stream"),
    ],
)
def test_an_adapter_that_does_more_is_no_direction(adapted, options, message):
    with pytest.raises(InvalidInputError, match=message):
        direction_from_adapter(adapted("llama", **options))
