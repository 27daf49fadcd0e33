"""Tiny random models under the names that PEFT's tests ask the hub for.

Saved as folders ``NAMESPACE/NAME``: ``from_pretrained`` takes a folder of that name in the working
directory before it asks the hub. COST: seconds, a few megabytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as t
from peft import LoraConfig, LoraRuntimeConfig

WORDS = 1024
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "head_dim": 4}
GPT: dict[str, Any] = {
    "vocab_size": WORDS,
    "n_embd": 32,
    "n_layer": 5,
    "n_head": 4,
    "n_positions": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
BERT: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}


def build() -> dict[str, Any]:
    """Each model, by the name it is asked for."""
    opt = t.OPTConfig(
        vocab_size=WORDS, hidden_size=16, ffn_dim=4, num_hidden_layers=5, num_attention_heads=4,
        max_position_embeddings=512, word_embed_proj_dim=16, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    gptj = t.GPTJConfig(**GPT, rotary_dim=4)
    bart = t.BartConfig(
        vocab_size=WORDS, d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=4,
        decoder_ffn_dim=4, encoder_attention_heads=4, decoder_attention_heads=4,
        max_position_embeddings=512, decoder_start_token_id=2, bos_token_id=0, pad_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    t5 = t.T5Config(
        vocab_size=WORDS, d_model=32, d_kv=8, d_ff=37, num_layers=3, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    deberta = {**BERT, "pos_att_type": ["p2c", "c2p"], "relative_attention": True}
    internal = "peft-internal-testing/tiny-random-"
    tiny_gemma = t.Gemma3TextConfig(**GROUPED, sliding_window=9)
    return {
        f"{internal}OPTForCausalLM": t.OPTForCausalLM(opt),
        "peft-internal-testing/opt-125m": t.OPTForCausalLM(opt),
        f"{internal}GPT2LMHeadModel": t.GPT2LMHeadModel(t.GPT2Config(**GPT)),
        "hf-internal-testing/tiny-random-gpt2": t.GPT2LMHeadModel(t.GPT2Config(**GPT)),
        "gpt2": t.GPT2LMHeadModel(t.GPT2Config(**GPT)),
        f"{internal}GPTJForCausalLM": t.GPTJForCausalLM(gptj),
        "trl-internal-testing/tiny-random-LlamaForCausalLM": t.LlamaForCausalLM(
            t.LlamaConfig(**GROUPED)
        ),
        "peft-internal-testing/tiny-dummy-qwen2": t.Qwen2ForCausalLM(t.Qwen2Config(**GROUPED)),
        "hf-internal-testing/tiny-random-MistralForCausalLM": t.MistralForCausalLM(
            t.MistralConfig(**GROUPED)
        ),
        "hf-internal-testing/tiny-random-Gemma3ForCausalLM": t.Gemma3ForCausalLM(tiny_gemma),
        f"{internal}T5ForConditionalGeneration-calibrated": t.T5ForConditionalGeneration(t5),
        f"{internal}BartForConditionalGeneration": t.BartForConditionalGeneration(bart),
        f"{internal}BertModel": t.BertModel(t.BertConfig(**BERT)),
        f"{internal}RobertaModel": t.RobertaModel(t.RobertaConfig(**{**BERT, "pad_token_id": 1})),
        f"{internal}DebertaModel": t.DebertaModel(t.DebertaConfig(**deberta)),
        f"{internal}DebertaV2Model": t.DebertaV2Model(t.DebertaV2Config(**deberta)),
        f"{internal}BertForSequenceClassification": t.BertForSequenceClassification(
            t.BertConfig(**BERT)
        ),
        f"{internal}RobertaForSequenceClassification": t.RobertaForSequenceClassification(
            t.RobertaConfig(**{**BERT, "pad_token_id": 1})
        ),
        "bert-base-uncased": t.BertForSequenceClassification(t.BertConfig(**BERT)),
        "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
            t.LlamaForSequenceClassification(t.LlamaConfig(**GROUPED))
        ),
    }


def save(folder: Path) -> None:
    """Write all of them into ``folder``, the same weights each time."""
    torch.manual_seed(0)
    for name, model in build().items():
        # A calibrated model: outputs far enough from zero that a changed layer shows.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data *= 3
        model.save_pretrained(folder / name)
    LoraConfig(runtime_config=LoraRuntimeConfig()).save_pretrained(
        str(folder / "peft-internal-testing/tiny-opt-lora-revision")
    )
