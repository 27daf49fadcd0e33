"""Bias injection in what people train with: SFTTrainer, checkpointing, bf16, compile, copies."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor

from ed_interp.adapters.bias_injection import BiasInjectionConfig
from ed_interp.adapters.training.trainer import checkpointing_arguments

TARGETS = {"gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "down_proj"]}


@pytest.fixture
def tuned(build_model: Callable[[str], Any]) -> Callable[..., Any]:
    """A tiny model with an adapter whose feedback is live."""

    def build(family: str = "gpt2") -> Any:
        config = BiasInjectionConfig(
            r=2, n_nodes=4, target_modules=TARGETS[family], task_type="CAUSAL_LM"
        )
        model = get_peft_model(build_model(family), config)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(3)
            for name, weight in model.named_parameters():
                if weight.requires_grad and "tau" not in name:
                    weight.normal_(std=0.2)
        return model.eval()

    return build


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, 101, (2, 20), generator=torch.Generator().manual_seed(0))


def trained_weights(model: Any) -> dict[str, Tensor]:
    return {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}


def rows(count: int = 8) -> list[dict[str, list[int]]]:
    numbers = torch.randint(3, 101, (count, 16), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in numbers.tolist()]


def run_trainer(model: Any, folder: Path, **options: Any) -> dict[str, Tensor]:
    from transformers import Trainer, TrainingArguments, default_data_collator

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        label_names=["labels"],
        dataloader_pin_memory=False,
        **options,
    )
    torch.manual_seed(0)
    Trainer(
        model=model, args=arguments, train_dataset=rows(), data_collator=default_data_collator
    ).train()
    return trained_weights(model)


def quiet(model: Any) -> Any:
    """Without dropout: two runs that recompute differ by their masks otherwise."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradient_checkpointing_through_the_trainer(
    tmp_path: Path, tuned: Callable[..., Any], family: str
):
    plain = run_trainer(quiet(tuned(family)), tmp_path / "plain")
    for reentrant in (True, False):
        model = quiet(tuned(family))
        before = trained_weights(model)
        with warnings.catch_warnings():
            # The reentrant kind warns where only adapters train; PEFT has prepared the inputs.
            warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
            found = run_trainer(
                model,
                tmp_path / str(reentrant),
                **checkpointing_arguments(reentrant=reentrant),
            )
        assert any(not torch.equal(found[name], before[name]) for name in found)
        for name, weight in found.items():
            torch.testing.assert_close(weight, plain[name], atol=1e-5, rtol=1e-4)


def test_mixed_precision_trains_float32_weights(tmp_path: Path, tuned: Callable[..., Any]):
    exact = run_trainer(quiet(tuned()), tmp_path / "float32")
    model = quiet(tuned())
    before = trained_weights(model)
    found = run_trainer(model, tmp_path / "bf16", bf16=True)
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    moved = torch.cat([(found[name] - before[name]).flatten() for name in found])
    wanted = torch.cat([(exact[name] - before[name]).flatten() for name in found])
    # Adam divides by the gradient's size, so rounding turns the smallest steps; not the whole.
    assert torch.nn.functional.cosine_similarity(moved, wanted, dim=0) > 0.95


def test_sft_trainer(tmp_path: Path, tuned: Callable[..., Any], tiny_tokenizer: Any):
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed: pip install trl")
    from datasets import Dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl's own, of its imports and of experimental parts
        from trl import SFTConfig, SFTTrainer

        import ed_interp

        hooked = ed_interp.load("icl-gpt2")
        data = Dataset.from_dict(
            {
                "prompt": ["France ->", "Spain ->", "Italy ->", "Peru ->"],
                "completion": [" Paris\n", " Madrid\n", " Rome\n", " Lima\n"],
            }
        )
        base = {name: weight.clone() for name, weight in hooked.model.state_dict().items()}
        arguments = SFTConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=0.01,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
            bf16=False,
            max_length=32,
        )
        trainer = SFTTrainer(
            model=hooked.model,
            args=arguments,
            train_dataset=data,
            processing_class=hooked.tokenizer,
            peft_config=BiasInjectionConfig(r=2, n_nodes=4, task_type="CAUSAL_LM"),
        )
        before = trained_weights(trainer.model)
        trainer.train()
        trainer.save_model(str(tmp_path / "adapter"))
        after = trained_weights(trainer.model)
        assert any(not torch.equal(after[name], before[name]) for name in after)
        inner = trainer.model.get_base_model().state_dict()
        for name, weight in base.items():
            matches = [n for n in inner if n.replace("base_layer.", "") == name]
            assert torch.equal(inner[matches[0]], weight), name
        loaded = PeftModel.from_pretrained(
            ed_interp.load("icl-gpt2").model, str(tmp_path / "adapter")
        )
        # Compared before anything is run: two loads of one file must be one adapter.
        for name, weight in loaded.named_parameters():
            if name in after:
                assert torch.equal(weight, after[name])


def test_a_copy_is_equal_and_independent(tuned: Callable[..., Any], ids: Tensor):
    model = tuned()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(twin(input_ids=ids).logits, expected)
        for name, weight in twin.named_parameters():
            if "write" in name:
                weight.zero_()
        assert torch.equal(model(input_ids=ids).logits, expected)
        assert not torch.allclose(twin(input_ids=ids).logits, expected, atol=1e-3)


def test_compiled_equals_eager(
    tuned: Callable[..., Any], ids: Tensor, monkeypatch: pytest.MonkeyPatch
):
    """Graphs as dynamo and autograd make them; no C++ compiler is needed for that."""
    import jaxtyping
    import torch._dynamo

    # What dynamo traces are no tensors to a type checker; outside tests there is none.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    model = quiet(tuned())
    stack = model.get_base_model().transformer
    stack.h = stack.h[:1]  # tracing costs seconds a block, and the blocks are alike
    eager = model(input_ids=ids, labels=ids, use_cache=False)
    eager.loss.backward()
    gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo's own deprecations
        compiled = torch.compile(model, backend="aot_eager")
        found = compiled(input_ids=ids, labels=ids, use_cache=False)
        torch.testing.assert_close(found.logits, eager.logits, atol=1e-5, rtol=1e-4)
        found.loss.backward()
    for name, weight in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(weight.grad, gradients[name], atol=1e-5, rtol=1e-3)
