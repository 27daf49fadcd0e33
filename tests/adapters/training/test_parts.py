"""Groups of weights, what trains, and adapters described and converted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ed_interp.adapters.bias_injection import BiasInjectionConfig
from ed_interp.adapters.training import (
    AdapterOptions,
    FrozenWeights,
    FrozenWeightsError,
    TrainedAdapter,
    TrainingOptions,
    available_methods,
    check_only_adapter_trains,
    methods,
    parameter_groups,
    register,
)
from ed_interp.adapters.training.convert import export_static, merge_adapter
from ed_interp.adapters.training.describe import describe
from ed_interp.adapters.training.methods import make_config
from ed_interp.adapters.training.rows import LossRow
from ed_interp.adapters.training.trainer import load_optimizer, save_optimizer
from ed_interp.errors import InvalidInputError, ModelLoadError, RunFolderError


def tuned_model(base: Any, *, live: bool, **changes: Any) -> Any:
    config = BiasInjectionConfig(**({"r": 2, "n_nodes": 3} | changes))
    model = get_peft_model(copy.deepcopy(base.model), config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if weight.requires_grad and "tau" not in name and (live or "write" not in name):
                weight.normal_(std=0.2)
    return model


def saved(model: Any, folder: Path, base: Any) -> Path:
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def test_three_rates_and_decay_for_matrices_only(base: Any):
    model = tuned_model(base, live=True)
    options = TrainingOptions(lr_lora=1.0, lr_nodes=2.0, lr_tau=3.0, weight_decay=0.5)
    groups = parameter_groups(model.named_parameters(), options)
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "lora": (1.0, 0.5),
        "nodes": (2.0, 0.5),
        "nodes, no decay": (2.0, 0.0),
        "taus, no decay": (3.0, 0.0),
    }
    grouped = [id(weight) for group in groups for weight in group["params"]]
    trained = [id(weight) for weight in model.parameters() if weight.requires_grad]
    assert sorted(grouped) == sorted(trained)
    fixed = tuned_model(base, live=True, learn_tau=False)
    names = {group["name"] for group in parameter_groups(fixed.named_parameters(), options)}
    assert "taus, no decay" not in names
    plain = get_peft_model(copy.deepcopy(base.model), LoraConfig(fan_in_fan_out=True))
    assert [g["name"] for g in parameter_groups(plain.named_parameters(), options)] == ["lora"]


def test_only_the_adapter_may_train(base: Any):
    model = tuned_model(base, live=True)
    check_only_adapter_trains(model)
    weight = model.get_base_model().transformer.ln_f.weight.requires_grad_(True)
    with pytest.raises(FrozenWeightsError, match="ln_f"):
        check_only_adapter_trains(model)
    weight.requires_grad_(False)
    model.requires_grad_(False)
    with pytest.raises(FrozenWeightsError, match="nothing would train"):
        check_only_adapter_trains(model)


def test_a_method_is_one_registration(base: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    takes = {"r": "r", "targets": "target_modules", "fixed_tau": "!use_rslora"}
    register("pissa", "peft:LoraConfig", takes, init_lora_weights="pissa")
    assert "pissa" in available_methods()
    config = make_config("pissa", AdapterOptions(r=3, targets=["c_attn"]))
    assert (config.r, config.init_lora_weights, config.use_rslora) == (3, "pissa", True)
    assert config.target_modules == {"c_attn"}
    assert config.task_type == "CAUSAL_LM"
    with pytest.raises(
        InvalidInputError, match="must be given r, targets, fixed_tau only, got alpha"
    ):
        make_config("pissa", AdapterOptions(alpha=2))


@pytest.mark.parametrize("method", available_methods())
def test_every_method_has_a_configuration_that_fits(build_model: Any, method: str):
    config = make_config(method, AdapterOptions(targets=["q_proj", "down_proj"]))
    model = get_peft_model(build_model("llama"), config)
    check_only_adapter_trains(model)
    model.get_base_model().model.norm.weight.requires_grad_(True)
    with pytest.raises(FrozenWeightsError, match="norm"):
        check_only_adapter_trains(model)


def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path: Path):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    weight.sum().backward()
    optimizer.step()
    save_optimizer(tmp_path, optimizer, scheduler)
    before = copy.deepcopy(optimizer.state_dict())
    load_optimizer(tmp_path, optimizer, scheduler)
    for name, value in before["state"][0].items():
        assert torch.equal(optimizer.state_dict()["state"][0][name], value)
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]
    file = tmp_path / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidInputError, match="was altered"):
        load_optimizer(tmp_path, optimizer, scheduler)


def test_records_of_older_versions_load(tmp_path: Path):
    """They log the loss of a step and its evaluation in two rows, and have no settings."""
    log = [
        {"loss": 2.0, "grad_norm": 1.5, "learning_rate": 0.1, "epoch": 1.0, "step": 1},
        {"eval_loss": 1.75, "epoch": 1.0, "step": 1},
        {"loss": 1.5, "grad_norm": 1.25, "learning_rate": 0.05, "epoch": 2.0, "step": 2},
    ]
    record = {
        "format": "ed-interp/adapter-training", "version": 1, "name": "CKPT",
        "model": {"name": "icl-gpt2", "fingerprint": "4896"}, "method": "lora",
        "adapter": {"r": 8}, "training": {"max_steps": 2, "answers_only": True, "seed": 0},
        "data": {"name": "pairs.jsonl", "sha256": "84a2", "training": 18, "held_out": 2},
        "card": {"licence": "mit"}, "steps": 2, "stopped": "all of them", "loss": 1.5,
        "eval_loss": 1.75, "history": log, "parameters": {"trained": 16384, "all": 1137408},
        "base_sha256": "838a", "adapter_sha256": "ca67", "environment": {"python": "3.11.7"},
    }  # fmt: skip
    (tmp_path / "training.json").write_text(json.dumps(record))
    trained = TrainedAdapter.load(tmp_path)
    assert trained.folder == tmp_path
    assert trained.history == (LossRow(1, 1.0, 2.0, 1.75, 1.5, 0.1),
                               LossRow(2, 2.0, 1.5, None, 1.25, 0.05))  # fmt: skip
    assert "1.7500 nats per token" in trained.headline()
    record["history"] = [{**log[0], "loss": True}]
    (tmp_path / "training.json").write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match=r"history\[0\]\.loss"):
        TrainedAdapter.load(tmp_path)


def test_one_changed_bit_is_seen(base: Any):
    model = tuned_model(base, live=True)
    watch = FrozenWeights.of(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(1.0)  # these may
        watch.check(model)
        bias = model.get_base_model().transformer.h[0].mlp.c_fc.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(1.0))
    with pytest.raises(FrozenWeightsError, match="c_fc"):
        watch.check(model)


def test_describe(tmp_path: Path, base: Any, tiny_folder: Path):
    model = tuned_model(base, live=True, tau=[2.0, 8.0, 50.0])
    found = describe(saved(model, tmp_path / "ck", tiny_folder))
    assert found.method == "bias-injection"
    assert found.taus.least == pytest.approx(2.0, rel=1e-5)
    assert found.taus.greatest == pytest.approx(50.0, rel=1e-5)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert found.parameters == sum(weight.numel() for weight in trained)
    squares = sum(group.norm**2 for group in found.groups.values())
    assert [table.name for table in found.tables()] == ["adapter", "groups", "config"]
    sizes = {name: group.parameters for name, group in found.groups.items()}
    assert set(sizes) == {"low-rank update", "bias", "nodes", "log time constants"}
    named = model.named_parameters()
    assert sizes["bias"] == sum(w.numel() for name, w in named if ".bias_injection_bias." in name)
    assert sizes["log time constants"] == found.taus.count
    assert squares == pytest.approx(
        sum(float(w.detach().square().sum()) for w in trained), rel=1e-5
    )
    assert describe(tmp_path / "ck").fingerprint == found.fingerprint
    file = tmp_path / "ck" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match="damaged"):
        describe(tmp_path / "ck")
    with pytest.raises(ModelLoadError, match=r"without adapter_config\.json"):
        describe(tmp_path)


def test_export_and_merge(tmp_path: Path, base: Any, tiny_model: Any, tiny_folder: Path):
    from transformers import GPT2LMHeadModel

    base = type(base).wrap(copy.deepcopy(tiny_model), base.tokenizer)
    model = tuned_model(base, live=False).eval()
    ids = torch.randint(0, 600, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    folder = saved(model, tmp_path / "still", tiny_folder)
    export_static(folder, tmp_path / "lora")
    plain = PeftModel.from_pretrained(copy.deepcopy(tiny_model), str(tmp_path / "lora")).eval()
    merge_adapter(folder, tmp_path / "merged")
    merged = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(RunFolderError, match="exists"):
        merge_adapter(folder, tmp_path / "merged")


def test_live_feedback_is_refused_and_nothing_is_left(tmp_path: Path, base: Any, tiny_folder: Path):
    folder = saved(tuned_model(base, live=True), tmp_path / "live", tiny_folder)
    for convert in (merge_adapter, export_static):
        with pytest.raises(InvalidInputError, match="feedback"):
            convert(folder, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["live"]
    export_static(folder, tmp_path / "out", drop_feedback=True)
    assert describe(tmp_path / "out").method == "lora"
    with pytest.raises(InvalidInputError, match="must hold a bias-injection adapter, got lora"):
        export_static(tmp_path / "out", tmp_path / "again")
