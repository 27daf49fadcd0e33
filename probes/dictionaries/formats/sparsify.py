"""EleutherAI's sparsify: folders with ``cfg.json`` and ``sae.safetensors``.

Its encoder is ``topk(relu((x - b_dec) W + b))`` and its decoder rows are as they are saved, which
is SAELens's top-k without rescaling by the decoder's norm. SAELens's own reader of these folders
loads in bfloat16 whatever was saved, so that its outputs are not sparsify's; this one keeps the
precision. Transcoders, skip connections and groupmax are not what a
:class:`~ed_interp.probes.dictionaries.dictionary.Dictionary` is, and are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import ModelLoadError
from ed_interp.probes.dictionaries.formats.parts import build, read_json, read_safetensors

if TYPE_CHECKING:
    from sae_lens import SAE

WEIGHTS = "sae.safetensors"
_LAYER = re.compile(r"(?:layers|h|blocks)[._](\d+)(?:[._](mlp|attn|self_attn|attention))?$")


def from_sparsify(folder: Path, *, device: str = "cpu", dtype: str | None = None) -> SAE[Any]:
    """A sparsify folder as SAELens's top-k.

    Raises:
        ModelLoadError: damaged, or of a kind that is not represented.
    """
    config = read_json(folder / "cfg.json")
    refused = {
        "transcode": "a transcoder (it maps a module's input to its output)",
        "skip_connection": "a skip connection",
        "signed": "signed latents",
    }
    for field, what in refused.items():
        if config.get(field):
            raise ModelLoadError(f"{folder} has {what}; dictionaries of one site are read here")
    if config.get("activation", "topk") != "topk":
        raise ModelLoadError(f"{folder}: activation {config['activation']!r} is not topk")
    if not isinstance(config.get("k"), int):
        raise ModelLoadError(f"{folder / 'cfg.json'} says no k; this is no sparsify folder")
    found = read_safetensors(folder / WEIGHTS)
    names = {"encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
    weights = {ours: found[theirs] for theirs, ours in names.items() if theirs in found}
    if "encoder.weight" in found:
        weights["W_enc"] = found["encoder.weight"].T
    metadata = {"hook_name": hook_of(folder.name), "model_name": _model_of(folder)}
    return build(
        "topk",
        weights,
        where=str(folder),
        dtype=dtype,
        device=device,
        metadata={name: value for name, value in metadata.items() if value is not None},
        k=config["k"],
        rescale_acts_by_decoder_norm=False,
    )


def hook_of(module: str) -> str | None:
    """The hook point that a module's output is, by the name of the folder; None if unknown.

    >>> hook_of("layers.3"), hook_of("h.0.mlp"), hook_of("embed_tokens")
    ('blocks.3.hook_resid_post', 'blocks.0.hook_mlp_out', 'hook_embed')
    """
    if module in ("embed_tokens", "wte"):
        return "hook_embed"
    match = _LAYER.search(module)
    if match is None:
        return None
    kinds = {None: "resid_post", "mlp": "mlp_out"}
    return f"blocks.{match[1]}.hook_{kinds.get(match[2], 'attn_out')}"


def _model_of(folder: Path) -> str | None:
    """What the run beside the folder says it was trained on."""
    file = folder.parent / "config.json"
    if not file.is_file():
        return None
    name = read_json(file).get("model")
    return None if name is None else str(name)
