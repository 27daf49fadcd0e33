"""Training: the base stays bit for bit, a killed run ends as if nothing had happened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig
from safetensors.torch import load_file

import ed_interp
from ed_interp.adapters.training import (
    AdapterOptions,
    FrozenWeightsError,
    TrainedAdapter,
    TrainingOptions,
    examples_of_pairs,
    train,
)
from ed_interp.errors import EdInterpError, InvalidInputError, RunFolderError
from ed_interp.results import load_any

PAIRS = [(f"word{k}", "yes" if k % 2 else "no") for k in range(20)]
METHODS = ["lora", "bias-injection"]
DROPPING = {"r": 2, "dropout": 0.1}


def hash_of(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_learns_and_the_base_stays(tmp_path: Path, base: Any, short: Any, method: str):
    before = hash_of(base.model)
    trained = train(
        base,
        examples_of_pairs(PAIRS),
        out=tmp_path / "ck",
        method=method,
        targets=("c_attn", "c_proj", "c_fc"),
        **short(max_steps=30, lr_lora=0.01, lr_nodes=0.01),
    )
    frame = trained.to_frame()
    assert frame["loss"].iloc[-1] < 0.85 * frame["loss"].iloc[0]
    assert trained.eval_loss is not None
    assert trained.eval_loss < frame["eval_loss"].dropna().iloc[0]
    assert hash_of(base.model) == before, "a live model was changed"
    names = {path.name for path in (tmp_path / "ck").iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "settings.json",
        "training.json",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["ck"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tmp_path: Path, base: Any, short: Any
):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(
            base,
            examples_of_pairs(PAIRS),
            out=tmp_path / name,
            method="lora",
            **DROPPING,
            **short(seed=seed, max_steps=4),
        )
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [2, 7])
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, base: Any, short: Any, method: str, at: int
):
    def run(out: Path, progress: Any = None) -> TrainedAdapter:
        return train(
            base,
            examples_of_pairs(PAIRS),
            out=out,
            method=method,
            **DROPPING,
            **short(patience=3),
            progress=progress,
        )

    starts: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        if done == at:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    assert not (tmp_path / "cut").exists()
    resumed = run(tmp_path / "cut", lambda done, total, what: starts.append(done))
    # It went on from a checkpoint, where there was one, rather than began again.
    assert starts[0] == (6 if at == 7 else 1)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert resumed.history == whole.history


def test_a_changed_base_weight_is_noticed(
    tmp_path: Path, base: Any, short: Any, monkeypatch: pytest.MonkeyPatch
):
    from ed_interp.adapters.training.trainer import AdapterTrainer

    step = AdapterTrainer.training_step

    def meddle(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            model.get_input_embeddings().weight[0, 0].add_(1e-6)
        return step(self, model, *args, **kwargs)

    monkeypatch.setattr(AdapterTrainer, "training_step", meddle)
    with pytest.raises(FrozenWeightsError, match="wte"):
        train(base, examples_of_pairs(PAIRS), out=tmp_path / "ck", method="lora", **short())
    assert not (tmp_path / "ck").exists()


def test_the_checkpoint_loads_under_hooks_and_says_what_it_is(
    tmp_path: Path, tiny_folder: Path, short: Any
):
    trained = train(
        tiny_folder,
        examples_of_pairs(PAIRS),
        out=tmp_path / "ck",
        method="bias-injection",
        **short(),
        licence="mit",
        data_licence="cc0-1.0",
    )
    text = (tmp_path / "ck" / "README.md").read_text("utf-8")
    head = ModelCard(text).data
    assert (head.license, head.base_model, head.library_name) == ("mit", str(tiny_folder), "peft")
    assert head.tags == ["peft", "ed-interp", "bias-injection"]
    assert "import ed_interp.adapters.bias_injection" in text
    assert trained.data["sha256"] in text
    assert "| licence of the data | cc0-1.0 |" in text
    assert "| licence of the base model | not stated |" in text
    hooked = ed_interp.load(str(tmp_path / "ck"))
    found = hooked.model.state_dict()
    for name, tensor in load_file(tmp_path / "ck" / "adapter_model.safetensors").items():
        head, _, tail = name.rpartition(".")
        matches = [n for n in found if n in (f"{head}.default.{tail}", f"{name}.default")]
        assert len(matches) == 1
        assert torch.equal(found[matches[0]], tensor)


def test_results_survive_saving(tmp_path: Path, base: Any, short: Any):
    trained = train(base, examples_of_pairs(PAIRS), out=tmp_path / "ck", method="lora", **short())
    copy = load_any(trained.save(tmp_path / "copy"))
    assert copy == trained
    assert isinstance(copy, TrainedAdapter)
    assert copy.folder == tmp_path / "copy"
    assert copy.settings["options"]["data"] == "examples in memory"
    assert weights(tmp_path / "copy") == weights(tmp_path / "ck")
    assert len(trained.plot().data) == 2
    # The losses of a step and of its evaluation are one row.
    assert trained.to_frame()["step"].is_unique
    assert "lora" in trained._repr_html_()
    with pytest.raises(RunFolderError, match="exists"):
        trained.save(tmp_path / "copy")
    with pytest.raises(RunFolderError, match=r"without training\.json"):
        TrainedAdapter.load(tmp_path)


def test_an_adapter_as_options_or_as_a_peft_configuration(tmp_path: Path, base: Any):
    settings = {"max_steps": 1, "eval_share": 0.0, "batch_size": 2}
    own = LoraConfig(r=2, target_modules=["c_attn"], use_dora=True, task_type="CAUSAL_LM")
    for name, adapter, method in (("a", AdapterOptions(r=2, nodes=1), "bias-injection"),
                                  ("b", own, "dora")):  # fmt: skip
        examples = examples_of_pairs(PAIRS)
        trained = train(base, examples, out=tmp_path / name, adapter=adapter, **settings)
        assert (trained.method, trained.adapter["r"]) == (method, 2)
        assert trained.settings["options"]["method"] == method
        assert "No examples were held out" in trained.cautions()


def test_early_stopping_keeps_the_best(tmp_path: Path, base: Any, short: Any):
    noise = [(f"word{k}", "yes" if (k * 7919) % 11 < 5 else "no") for k in range(24)]
    trained = train(
        base,
        examples_of_pairs(noise),
        out=tmp_path / "ck",
        method="lora",
        **short(max_steps=60, lr_lora=1.0, patience=2, eval_share=0.3, schedule="constant"),
    )
    held = trained.to_frame()["eval_loss"].dropna()
    assert trained.steps < 60
    assert trained.stopped == "stopped early"
    assert trained.eval_loss == held.min()
    assert held.iloc[-2:].min() >= held.min()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lira"}, "did you mean lora"),
        ({"method": "lora", "nodes": 4}, "got nodes; drop them"),
        ({"method": "lora", "r": 0}, "r must be 1 or greater for method 'lora', got 0"),
        ({"method": "ia3", "layers": [0]}, "must be given targets only, got layers"),
        ({"method": "vera", "alpha": 4.0}, "got alpha"),
        ({"tau": -1.0}, "tau must be greater than 0"),
        ({"nodes": -1}, "nodes must be 0 or greater"),
        ({"r": 4, "adapter": AdapterOptions(r=2)}, "without single settings of it, got r too"),
        ({"rank": 4}, "rank must be a setting of train()"),
        ({"targets": ["nothing"]}, "nothing"),
        ({"data": None}, "data must be given"),
        ({"data": []}, "at least one Example"),
        ({"data": examples_of_pairs([("a", "b " * 400)] * 3)}, "must have 256 tokens or less"),
        ({"data": examples_of_pairs([("a", "b")])}, "must be 2 or more to hold one out"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, base: Any, short: Any, changes: dict[str, Any], message: str
):
    before = hash_of(base.model)
    settings = {"data": examples_of_pairs(PAIRS), "out": tmp_path / "ck", **short()}
    with pytest.raises(EdInterpError) as caught:
        train(base, **(settings | changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ck").exists()
    assert hash_of(base.model) == before


@pytest.mark.parametrize(
    "bad",
    [
        {"lr_nodes": -1.0},
        {"lr_tau": float("nan")},
        {"batch_size": 0},
        {"max_steps": 0},
        {"warmup": 1.0},
        {"eval_share": 1.0},
        {"seed": -1},
        {"seed": 2**32},
        {"schedule": "step"},
        {"batch_size": True},
        {"patience": 2, "eval_share": 0.0},
    ],
)
def test_options_are_refused_before_anything_is_loaded(bad: dict[str, Any]):
    with pytest.raises(InvalidInputError, match=f"^{next(iter(bad))} must "):
        TrainingOptions(**bad)


def test_an_exploding_loss_is_said_and_not_saved(
    tmp_path: Path, base: Any, short: Callable[..., Any]
):
    with pytest.raises(InvalidInputError, match="learning rates"):
        train(
            base,
            examples_of_pairs(PAIRS),
            out=tmp_path / "ck",
            method="lora",
            **short(lr_lora=1e30, clip=1e30, schedule="constant", warmup=0.0),
        )
    assert not (tmp_path / "ck").exists()
