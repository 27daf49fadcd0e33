"""Shared fixtures: a tiny random model and its tokenizer, live and as a folder. No downloads."""

from __future__ import annotations

import os

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import random
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

CONTEXT_WINDOW = 256
"""Of the tiny model, in tokens."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors: more threads only get into each other's way."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer trained on the words of the built-in tasks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_task_words(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any) -> Any:
    """A random GPT-2: 2 blocks, width 32, a context window of 256 tokens. Do not change it."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tiny_tokenizer),
        n_positions=CONTEXT_WINDOW,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def tiny_folder(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model and its tokenizer as ``save_pretrained`` writes them. Do not change it."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def _task_words() -> Iterator[str]:
    data = resources.files("ed_interp.prompts").joinpath("data")
    for relation in json.loads(data.joinpath("relations.json").read_text("utf-8")).values():
        yield from (f"{input} -> {output}\n" for input, output in relation["pairs"])
    for listed in json.loads(data.joinpath("lists.json").read_text("utf-8")).values():
        yield from (f"{entity}," for entity in listed["entities"])


SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 101,
    "max_position_embeddings": 160,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
# A window of 9 tokens is far shorter than the prompts: it must be applied in position space.
WINDOW = {"sliding_window": 9}


def _build(family: str) -> Any:
    import transformers as t

    if family == "gpt2":
        config = t.GPT2Config(
            n_layer=3, n_embd=32, n_head=4, vocab_size=101, n_positions=160, bos_token_id=1,
            eos_token_id=2,
        )  # fmt: skip
        return t.GPT2LMHeadModel(config)
    if family == "gemma2":
        return t.Gemma2ForCausalLM(t.Gemma2Config(**GROUPED, **WINDOW, attn_implementation="eager"))
    if family == "gemma3":
        sizes = {**GROUPED, "num_hidden_layers": 7}
        return t.Gemma3ForCausalLM(t.Gemma3TextConfig(**sizes, **WINDOW))
    if family == "mistral":
        return t.MistralForCausalLM(t.MistralConfig(**GROUPED, **WINDOW))
    if family == "qwen3":
        sizes = {**GROUPED, **WINDOW, "use_sliding_window": True, "max_window_layers": 1}
        return t.Qwen3ForCausalLM(t.Qwen3Config(**sizes))
    if family == "llama":
        return t.LlamaForCausalLM(t.LlamaConfig(**GROUPED))
    if family == "neox":
        return t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SIZES))
    if family == "opt":
        sizes = {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}
        del sizes["intermediate_size"]
        return t.OPTForCausalLM(t.OPTConfig(**sizes))
    if family == "phi":
        return t.PhiForCausalLM(t.PhiConfig(**SIZES))
    if family == "bloom":  # ALiBi: takes no 4-D mask
        return t.BloomForCausalLM(
            t.BloomConfig(
                n_layer=3,
                hidden_size=32,
                n_head=4,
                vocab_size=101,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        )
    if family == "gpt_neo":  # a local window inside the attention, in index space
        config = t.GPTNeoConfig(
            num_layers=2, hidden_size=32, num_heads=4, vocab_size=101, window_size=8,
            attention_types=[[["global", "local"], 1]], max_position_embeddings=160,
            bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return t.GPTNeoForCausalLM(config)
    raise AssertionError(family)


@pytest.fixture(scope="session")
def build_model() -> Callable[[str], Any]:
    """Builder of a tiny model by family name; the same weights each time."""

    import torch

    def build(family: str) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _build(family)
            # Random initialisation at 0.02 is nearly linear; larger weights make a wrongly
            # visible token visible in the numbers.
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.data *= 4
        return model

    return build


@pytest.fixture(scope="session")
def random_prompts() -> Callable[..., Any]:
    """Prompts of ragged lengths under no tokenizer, with queries and answers."""
    from ed_interp.prompts.population import Population, Prompt
    from ed_interp.prompts.tokens import ShotTokens, TokenPopulation

    def build(
        prompts: int = 5,
        shots: tuple[int, ...] = (0, 1, 2, 5),
        *,
        seed: int = 0,
        queries: bool = True,
        prefix: int = 1,
    ) -> Any:
        rng = random.Random(seed)

        def ids(low: int, high: int) -> tuple[int, ...]:
            return tuple(rng.randrange(3, 101) for _ in range(rng.randint(low, high)))

        items = tuple(
            ShotTokens(
                ids(prefix, prefix),
                tuple(ids(2, 4) for _ in range(shots[-1])),
                tuple((count, ids(1, 3)) for count in shots) if queries else (),
                ids(1, 3) if queries else (),
            )
            for _ in range(prompts)
        )
        texts = tuple(Prompt(("",) * shots[-1], "q" if queries else None) for _ in items)
        kind = "labelled" if queries else "list"
        chance, answers = (0.5, 2) if queries else (None, None)
        population = Population("random", kind, texts, shots, None, chance, answers, {})
        return TokenPopulation(population, items, "whole")

    return build
