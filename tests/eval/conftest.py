"""Small subjects: the tiny model under adapters, and models whose every prediction is known."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn


class _Table(nn.Module):
    """A model without weights to speak of; its runner answers for it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class _Runner:
    """Predicts ``rule(token)`` after ``token`` with near certainty, wherever it stands."""

    takes_masks = True
    n_layers, d_model = 1, 4
    device = torch.device("cpu")

    def __init__(self, vocabulary: int, rule: Callable[[int], int]) -> None:
        self.config = SimpleNamespace(d_vocab=vocabulary, model_type="table")
        self.table = torch.zeros(vocabulary, vocabulary)
        for token in range(vocabulary):
            self.table[token, rule(token)] = 20.0

    def place(self, site: Any) -> None:
        pass

    def run(self, inputs: Any, *, sites: Sequence[Any], reads: Any, logit_reads: Any = None) -> Any:
        from ed_interp.models.runners import Reading

        rows = torch.arange(len(inputs.ids))[:, None]
        states = torch.zeros(*reads.shape, len(sites), self.d_model)
        logits = None if logit_reads is None else self.table[inputs.ids[rows, logit_reads]]
        return Reading(states, logits)


@pytest.fixture
def table_subject() -> Callable[..., Any]:
    """``table_subject(rule)``: a subject that always predicts ``rule(token)``."""
    from ed_interp.eval.compare.subjects import Subject
    from ed_interp.models.hooked import HookedModel
    from ed_interp.models.runners import Runner

    Runner.register(_Runner)

    def build(rule: Callable[[int], int], *, vocabulary: int = 32, name: str = "table") -> Any:
        hooked = HookedModel(_Table(), None, name, _Runner(vocabulary, rule))
        return Subject(name, "frozen", hooked)

    return build


@pytest.fixture
def adapted(tiny_model: Any, tiny_tokenizer: Any) -> Callable[..., Any]:
    """``adapted(config, scale)``: the tiny model under an adapter, its weights moved by noise."""
    from ed_interp import load

    def build(config: Any, *, scale: float = 0.0, seed: int = 0) -> Any:
        from peft import get_peft_model

        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            torch.manual_seed(seed)
            model = get_peft_model(copy.deepcopy(tiny_model), config).eval()
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and scale and "log_tau" not in name:
                    parameter.data += scale * torch.randn_like(parameter)
        return load(model, tokenizer=tiny_tokenizer)

    return build


@pytest.fixture
def tiny(tiny_model: Any, tiny_tokenizer: Any) -> Any:
    """The tiny model under hooks."""
    from ed_interp import load

    return load(tiny_model, tokenizer=tiny_tokenizer)


@pytest.fixture(scope="session")
def lora() -> Callable[..., Any]:
    """A LoRA configuration for GPT-2."""

    def build(**options: Any) -> Any:
        from peft import LoraConfig

        given = {"r": 2, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", **options}
        return LoraConfig(fan_in_fan_out=True, **given)

    return build
