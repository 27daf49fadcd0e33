"""The search for an induction head, by TransformerLens's own detector on a bridge of the model."""

import random
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ed_interp.errors import CaptureError
from ed_interp.models.recipe.tables import words
from ed_interp.models.transformer_lens import to_transformer_lens

LOGIT_TOLERANCE = 1e-3
UNIT = 12
COPIES = 5


def repeated_sequences(*, seed: int, count: int = 10) -> list[str]:
    """Random distinct words in random order, ``COPIES`` times."""
    # The first copy has nothing to look back to, so a perfect head scores about 1 - 1 / COPIES.
    rng = random.Random(f"induction {seed}")
    return ["".join(f" {w}" for w in rng.sample(words(), UNIT)) * COPIES for _ in range(count)]


@torch.inference_mode()
def induction_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, count: int = 10
) -> list[list[float]]:
    """The detector's induction score of every head, ``[layer][head]``, mean over sequences.

    Raises:
        CaptureError: the bridge's logits differ from those of ``model``.
    """
    from transformer_lens.head_detector import detect_head

    bridge: Any = to_transformer_lens(model, tokenizer=tokenizer)
    # The detector makes token ids itself: with a begin token only if the model's tokenizer adds it.
    bridge.cfg.default_prepend_bos = bool(tokenizer("")["input_ids"])
    # Scores of a copy that computes something else would mean nothing.
    ids = torch.arange(5, 100, device=model.device).unsqueeze(0)
    expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    worst = float((expected - bridge(ids)).abs().max())
    if worst > LOGIT_TOLERANCE:
        raise CaptureError(
            f"the logits of the TransformerLens bridge must be within {LOGIT_TOLERANCE} of the "
            f"model's, got a difference of {worst:.1e}; use another version of TransformerLens"
        )
    texts = repeated_sequences(seed=seed, count=count)
    heads = torch.stack([detect_head(bridge, text, "induction_head") for text in texts])
    return list(heads.mean(0).tolist())
