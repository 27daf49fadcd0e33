"""The search for an induction head, by TransformerLens's own detector.

The bundled models are not in TransformerLens's tables, so its configuration is written here, and
its converters copy the weights, unprocessed. A copy whose logits differ from the original's is
refused, as its scores would mean nothing.
"""

import copy
import random
import warnings
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ed_interp.errors import CaptureError
from ed_interp.models.recipe.tables import words

LOGIT_TOLERANCE = 1e-3
UNIT = 12
COPIES = 5


def hooked_settings(model: PreTrainedModel) -> dict[str, Any]:
    """The fields of TransformerLens's configuration that describe ``model``."""
    cfg = model.config
    if cfg.model_type == "gpt2":
        return {
            "original_architecture": "GPT2LMHeadModel",
            "n_layers": cfg.n_layer,
            "d_model": cfg.n_embd,
            "n_heads": cfg.n_head,
            "d_head": cfg.n_embd // cfg.n_head,
            "d_mlp": cfg.n_inner or 4 * cfg.n_embd,
            "n_ctx": cfg.n_positions,
            "d_vocab": cfg.vocab_size,
            "act_fn": cfg.activation_function,
            "eps": cfg.layer_norm_epsilon,
            "normalization_type": "LN",
        }
    return {
        "original_architecture": "Gemma2ForCausalLM",
        "n_layers": cfg.num_hidden_layers,
        "d_model": cfg.hidden_size,
        "n_heads": cfg.num_attention_heads,
        "n_key_value_heads": cfg.num_key_value_heads,
        "d_head": cfg.head_dim,
        "d_mlp": cfg.intermediate_size,
        "n_ctx": cfg.max_position_embeddings,
        "d_vocab": cfg.vocab_size,
        "act_fn": "gelu_pytorch_tanh",
        "eps": cfg.rms_norm_eps,
        "normalization_type": "RMS",
        "positional_embedding_type": "rotary",
        "rotary_dim": cfg.head_dim,
        "rotary_base": 10000,
        "use_attn_scale": True,
        "attn_scale": cfg.query_pre_attn_scalar**0.5,
        "use_local_attn": True,
        "window_size": cfg.sliding_window,
        "attn_types": [
            "local" if kind == "sliding_attention" else "global" for kind in cfg.layer_types
        ],
        "attn_scores_soft_cap": cfg.attn_logit_softcapping,
        "output_logits_soft_cap": cfg.final_logit_softcapping,
        "gated_mlp": True,
        "final_rms": True,
        "use_normalization_before_and_after": True,
    }


def hooked_copy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    """``model`` as a TransformerLens ``HookedTransformer`` with raw weights, on the CPU.

    Raises:
        CaptureError: when the logits of the copy differ from those of ``model``.
    """
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.gemma import convert_gemma_weights
    from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights

    config = HookedTransformerConfig(
        **hooked_settings(model),
        device="cpu",
        default_prepend_bos=model.config.model_type != "gpt2",
    )
    with warnings.catch_warnings():
        # Deprecated in favour of the bridge, which would change ``model`` in place.
        warnings.simplefilter("ignore", DeprecationWarning)
        hooked = HookedTransformer(config)
    # Set here, as the constructor would load the tokenizer again by its name. A copy, as
    # TransformerLens leaves its padding and truncation set on it.
    hooked.tokenizer = copy.deepcopy(tokenizer)
    hooked.cfg.tokenizer_prepends_bos = bool(tokenizer("")["input_ids"])
    convert = convert_gpt2_weights if model.config.model_type == "gpt2" else convert_gemma_weights
    # load_state_dict copies values, so the copy shares nothing with the original.
    hooked.load_and_process_state_dict(
        {key: value.detach().cpu().clone() for key, value in convert(model, config).items()},
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    ids = torch.arange(5, 100, device=model.device).unsqueeze(0)
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.cpu()
        worst = float((expected - hooked(ids.cpu())).abs().max())
    if worst > LOGIT_TOLERANCE:
        raise CaptureError(
            f"the logits of the TransformerLens copy must be within {LOGIT_TOLERANCE} of the "
            f"model's, got a difference of {worst:.1e}; check hooked_settings"
        )
    return hooked


def repeated_sequences(*, seed: int, count: int = 10) -> list[str]:
    """Random distinct words in random order, ``COPIES`` times.

    The first of c copies has nothing to look back to, so a perfect induction head scores about
    (c - 1) / c.
    """
    rng = random.Random(f"induction {seed}")
    return ["".join(f" {w}" for w in rng.sample(words(), UNIT)) * COPIES for _ in range(count)]


def induction_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, count: int = 10
) -> list[list[float]]:
    """The detector's induction score of every head, ``[layer][head]``, mean over sequences."""
    from transformer_lens.head_detector import detect_head

    hooked = hooked_copy(model, tokenizer)
    total = torch.zeros(hooked.cfg.n_layers, hooked.cfg.n_heads)
    with torch.inference_mode():
        for text in repeated_sequences(seed=seed, count=count):
            total += detect_head(hooked, text, "induction_head")
    scores: list[list[float]] = (total / count).tolist()
    return scores
