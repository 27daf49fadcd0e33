"""EleutherAI's sparsify: folders with ``cfg.json`` and ``sae.safetensors``.

Its encoder is ``topk(relu((x - b_dec) W + b))`` and its decoder rows are used as they are saved,
which is SAELens's top-k without rescaling by the decoder's norm. SAELens's own reader of these
folders loads in bfloat16 whatever was saved, so that its outputs differ from sparsify's; this one
keeps the precision. Transcoders, skip connections and groupmax cannot be represented by a
:class:`~ed_interp.probes.dictionaries.dictionary.Dictionary` and are refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from ed_interp.errors import ModelLoadError
from ed_interp.probes.dictionaries.formats.parts import Parts, read_json, read_safetensors

WEIGHTS = "sae.safetensors"
_LAYER = re.compile(r"(?:layers|h|blocks)[._](\d+)(?:[._](mlp|attn|self_attn|attention))?$")
_REFUSED = {
    "transcode": "a transcoder (it maps a module's input to its output)",
    "skip_connection": "a skip connection",
    "signed": "signed latents",
}


def from_sparsify(folder: Path) -> Parts:
    """A sparsify folder as SAELens's top-k; ModelLoadError says why it cannot be one."""
    config = read_json(folder / "cfg.json")
    for field, what in _REFUSED.items():
        if config.get(field):
            raise ModelLoadError(f"{folder} has {what}; only dictionaries of one site can be read")
    if config.get("activation", "topk") != "topk":
        raise ModelLoadError(f"{folder}: activation {config['activation']!r} is not topk")
    if not isinstance(config.get("k"), int):
        raise ModelLoadError(f"{folder / 'cfg.json'} says no k; a sparsify folder must have one")
    tensors = read_safetensors(folder / WEIGHTS)
    names = {"encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
    weights = {ours: tensors[theirs] for theirs, ours in names.items() if theirs in tensors}
    if "encoder.weight" in tensors:
        # A Linear stores latent by channel; SAELens multiplies states from the left.
        weights["W_enc"] = tensors["encoder.weight"].T
    metadata = {"hook_name": hook_of(folder.name), "model_name": _model_of(folder)}
    return Parts(
        "topk", weights, metadata, {"k": config["k"], "rescale_acts_by_decoder_norm": False}
    )


def hook_of(module: str) -> str | None:
    """The hook point of a module's output, from the folder's name; None if unknown.

    >>> hook_of("layers.3"), hook_of("h.0.mlp"), hook_of("embed_tokens")
    ('blocks.3.hook_resid_post', 'blocks.0.hook_mlp_out', 'hook_embed')
    """
    if module in ("embed_tokens", "wte"):
        return "hook_embed"
    # sparsify names a folder after the module: layers.3, h.0.mlp, model.layers.3.mlp.
    match = _LAYER.search(module)
    if match is None:
        return None
    kinds = {None: "resid_post", "mlp": "mlp_out"}
    return f"blocks.{match[1]}.hook_{kinds.get(match[2], 'attn_out')}"


def _model_of(folder: Path) -> str | None:
    """The model that sparsify's run configuration, one folder up, names."""
    file = folder.parent / "config.json"
    name = read_json(file).get("model") if file.is_file() else None
    return None if name is None else str(name)
