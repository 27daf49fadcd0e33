"""saprmarks' dictionary_learning: folders with ``config.json`` and ``ae.pt``, and live objects.

``ae.pt`` is a pickle, and pickles are not read. Pass the object or its state dictionary to
:func:`from_dictionary_learning`, or save the weights as ``ae.safetensors`` next to ``config.json``:
``load`` then reads the folder like any other.

How its classes correspond: ``AutoEncoder`` is SAELens's standard, ``AutoEncoderTopK`` topk without
rescaling, ``GatedAutoEncoder`` gated, ``JumpReluAutoEncoder``, ``BatchTopKSAE`` and
``MatryoshkaBatchTopKSAE`` jumprelu with the learned threshold, which is how they encode at
inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.probes.dictionaries.formats.parts import Parts, Weights, read_json, read_safetensors

WEIGHTS = "ae.safetensors"
PICKLE = "ae.pt"

_SAME = ("W_enc", "W_dec", "b_enc", "b_dec", "r_mag", "threshold")
# Their name -> ours. Several of theirs mean the same tensor, depending on the class.
_NAMES = dict(zip(_SAME, _SAME, strict=True)) | {
    "encoder.bias": "b_enc",
    "bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
}
_TRANSPOSED = {"encoder.weight": "W_enc", "decoder.weight": "W_dec"}
_THRESHOLDED = ("JumpReluAutoEncoder", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_ARCHITECTURES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "AutoEncoderTopK": "topk",
    "GatedAutoEncoder": "gated",
    **dict.fromkeys(_THRESHOLDED, "jumprelu"),
}


def from_dictionary_learning_folder(folder: Path) -> Parts:
    """A folder whose weights are safetensors; ModelLoadError for pickles and damaged files."""
    if not (folder / WEIGHTS).is_file():
        raise ModelLoadError(
            f"{folder / PICKLE} is a pickle, which is not read (it can run code); load it "
            f"yourself with torch (weights_only=True) and pass "
            f"from_dictionary_learning(state_dict, config), or save it as {WEIGHTS}"
        )
    config = read_json(folder / "config.json")
    return convert(read_safetensors(folder / WEIGHTS), config, where=str(folder))


def convert(
    source: Any, config: Mapping[str, Any] | None = None, *, where: str = "the object"
) -> Parts:
    """A dictionary of theirs, or its state dictionary; see ``from_dictionary_learning``."""
    trainer: dict[str, Any] = dict((config or {}).get("trainer", config or {}))
    tensors = source
    if isinstance(source, torch.nn.Module):
        trainer.setdefault("dict_class", type(source).__name__)
        if hasattr(source, "apply_b_dec_to_input"):
            trainer.setdefault("apply_b_dec_to_input", bool(source.apply_b_dec_to_input))
        tensors = source.state_dict()
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise InvalidInputError(
            f"source must be a dictionary of dictionary_learning, got a {type(source).__name__}; "
            "pass the object, or its state_dict() and config"
        )
    kind = trainer.get("dict_class") or _guess(tensors)
    if kind not in _ARCHITECTURES:
        raise InvalidInputError(
            f"{where}: class {kind!r} of dictionary_learning is not converted; supported: "
            f"{', '.join(_ARCHITECTURES)}"
        )
    architecture = _ARCHITECTURES[kind]
    weights = _renamed(tensors)
    settings: dict[str, Any] = {}
    if architecture == "topk":
        k = trainer.get("k", tensors.get("k"))
        if k is None:
            raise InvalidInputError(f"{where} must say the k of its top-k; pass {{'k': 32}}")
        settings = {"k": int(k), "rescale_acts_by_decoder_norm": False}
        weights.pop("threshold", None)
    elif architecture == "jumprelu":
        centred = trainer.get("apply_b_dec_to_input", kind != "JumpReluAutoEncoder")
        settings = {"apply_b_dec_to_input": bool(centred)}
        weights["threshold"] = _threshold(weights, where)
    return Parts(architecture, weights, _metadata(trainer), settings)


def _renamed(tensors: dict[str, Tensor]) -> Weights:
    weights = {ours: tensors[theirs] for theirs, ours in _NAMES.items() if theirs in tensors}
    # A Linear stores its weight as output by input; SAELens the other way round.
    transposed = {ours: tensors[name].T for name, ours in _TRANSPOSED.items() if name in tensors}
    return weights | transposed


def _threshold(weights: Weights, where: str) -> Tensor:
    if "threshold" not in weights or "W_enc" not in weights:
        raise ModelLoadError(f"{where} must hold a threshold and an encoder to be a jumprelu")
    threshold = weights["threshold"]
    if threshold.ndim == 0:
        # A batch-top-k has one threshold for all latents, which starts at -1.
        if threshold < 0:
            raise ModelLoadError(
                f"{where}: its threshold was never set (training was too short); train it longer"
            )
        threshold = threshold.expand(weights["W_enc"].shape[1])
    return threshold.to(weights["W_enc"].dtype)


def _guess(tensors: dict[str, Tensor]) -> str:
    """The class, if not given, from tensors that only it has."""
    if "r_mag" in tensors:
        return "GatedAutoEncoder"
    if "group_sizes" in tensors:
        return "MatryoshkaBatchTopKSAE"
    if "k" in tensors:
        raise InvalidInputError(
            "top-k and batch-top-k of dictionary_learning have the same tensors; pass config= with "
            "its dict_class, 'AutoEncoderTopK' or 'BatchTopKSAE'"
        )
    return "JumpReluAutoEncoder" if "threshold" in tensors else "AutoEncoder"


def _metadata(trainer: dict[str, Any]) -> dict[str, Any]:
    hook = model = None
    if trainer.get("layer") is not None:
        # Residual-stream runs read a block's output; other submodules are named.
        part = str(trainer.get("submodule_name") or "resid_post")
        kinds = {"mlp": "mlp_out", "attn": "attn_out"}
        kind = next((ours for theirs, ours in kinds.items() if theirs in part), "resid_post")
        hook = f"blocks.{int(trainer['layer'])}.hook_{kind}"
    if trainer.get("lm_name"):
        model = str(trainer["lm_name"]).rsplit("/", 1)[-1]
    return {"hook_name": hook, "model_name": model}
