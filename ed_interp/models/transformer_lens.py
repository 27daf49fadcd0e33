"""From any loaded model to a TransformerLens model, as a copy."""

from __future__ import annotations

import copy
import tempfile
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import is_transformer_lens
from ed_interp.models.load import load

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def to_transformer_lens(model: Any, *, tokenizer: Any = None) -> TransformerBridge:
    """A ``TransformerBridge`` of a copy of ``model``, with adapters merged into the weights first.

    Weights stay raw (no folding, no centring). The copy's tokenizer puts a begin token first, as
    TransformerLens's do; pass token ids if that matters. Takes what :func:`ed_interp.load` takes;
    a TransformerLens model, or one without a tokenizer, is an InvalidInputError.

    Cost: a second copy of the weights, and the import of TransformerLens.
    """
    if is_transformer_lens(model):
        raise InvalidInputError(
            f"the model must not be a TransformerLens model already, got a {type(model).__name__}"
        )
    hooked = load(model, tokenizer=tokenizer)
    if is_transformer_lens(hooked.model):
        return hooked.model
    if hooked.tokenizer is None:
        raise InvalidInputError(
            f"{hooked.name} has no tokenizer, and a TransformerBridge would load one from the "
            "hub; pass to_transformer_lens(model, tokenizer=...)"
        )
    # A bridge changes the model it wraps in place, and drops LoRA on fused weights such as GPT-2's
    # c_attn.
    plain = copy.deepcopy(hooked.model)
    if hasattr(plain, "merge_and_unload"):
        plain = plain.merge_and_unload()
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        # A copy, as the bridge sets special tokens on it and loads it again by its folder.
        hooked.tokenizer.save_pretrained(folder)
        copied = AutoTokenizer.from_pretrained(folder)
        return TransformerBridge.boot_transformers(
            hooked.name, hf_model=plain.eval(), tokenizer=copied, device=str(hooked.device)
        )
