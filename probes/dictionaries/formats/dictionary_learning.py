"""saprmarks' dictionary_learning: folders with ``config.json`` and ``ae.pt``, and live objects.

``ae.pt`` is a pickle, and pickles are not read here: an object made from one can be handed over,
or its state dictionary (:func:`from_dictionary_learning`), or the folder's weights as
``ae.safetensors`` beside ``config.json``, which ``load`` then takes like any other.

How its classes correspond: ``AutoEncoder`` is SAELens's standard, ``AutoEncoderTopK`` topk without
rescaling, ``GatedAutoEncoder`` gated, ``JumpReluAutoEncoder``, ``BatchTopKSAE`` and
``MatryoshkaBatchTopKSAE`` jumprelu with the learned threshold, which is how they encode in use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.probes.dictionaries.formats.parts import (
    Weights,
    build,
    read_json,
    read_safetensors,
    wrong_type,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sae_lens import SAE
    from torch import Tensor

WEIGHTS = "ae.safetensors"
PICKLE = "ae.pt"

# (one of their names, another one) -> ours; transposed where it is a Linear's weight.
_NAMES = {
    "encoder.bias": "b_enc",
    "b_enc": "b_enc",
    "bias": "b_dec",
    "b_dec": "b_dec",
    "decoder_bias": "b_dec",
    "W_enc": "W_enc",
    "W_dec": "W_dec",
    "r_mag": "r_mag",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
    "threshold": "threshold",
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


def from_dictionary_learning_folder(
    folder: Path, *, device: str = "cpu", dtype: str | None = None
) -> SAE[Any]:
    """A folder whose weights are safetensors.

    Raises:
        ModelLoadError: only a pickle is there, or something is damaged.
    """
    if not (folder / WEIGHTS).is_file():
        raise ModelLoadError(
            f"{folder / PICKLE} is a pickle, which is not read (it can run code); load it "
            f"yourself with torch (weights_only=True) and pass "
            f"from_dictionary_learning(state_dict, config), or save it as {WEIGHTS}"
        )
    config = read_json(folder / "config.json")
    return convert(
        read_safetensors(folder / WEIGHTS), config, where=str(folder), device=device, dtype=dtype
    )


def convert(
    found: Any,
    config: Mapping[str, Any] | None = None,
    *,
    where: str = "the object",
    device: str = "cpu",
    dtype: str | None = None,
) -> SAE[Any]:
    """A dictionary of theirs, or its state dictionary, as SAELens's.

    Args:
        found: A live object of one of their classes, or what its ``state_dict()`` gives.
        config: Their ``config.json``; its ``trainer`` says class, k, layer and model. Not needed
            for a live object.
        where: For errors.
        device: Where it goes.
        dtype: As SAELens spells it; None keeps it.

    Raises:
        InvalidInputError: neither, or a class that is not known.
        ModelLoadError: tensors that are missing or do not fit each other.
    """
    trainer: dict[str, Any] = dict((config or {}).get("trainer", config or {}))
    if isinstance(found, torch.nn.Module):
        trainer.setdefault("dict_class", type(found).__name__)
        if hasattr(found, "apply_b_dec_to_input"):
            trainer.setdefault("apply_b_dec_to_input", bool(found.apply_b_dec_to_input))
        found = found.state_dict()
    if not isinstance(found, dict) or not all(torch.is_tensor(part) for part in found.values()):
        raise wrong_type("dictionary of dictionary_learning", found)
    kind = trainer.get("dict_class") or _guess(found)
    if kind not in _ARCHITECTURES:
        raise InvalidInputError(
            f"{where}: class {kind!r} of dictionary_learning is not converted; there are: "
            f"{', '.join(_ARCHITECTURES)}"
        )
    architecture = _ARCHITECTURES[kind]
    weights = _renamed(found)
    settings: dict[str, Any] = {}
    if architecture == "topk":
        k = trainer.get("k", found.get("k"))
        if k is None:
            raise InvalidInputError(f"{where}: top-k without its k; pass config={{'k': 32}}")
        settings = {"k": int(k), "rescale_acts_by_decoder_norm": False}
        weights.pop("threshold", None)
    elif architecture == "jumprelu":
        settings["apply_b_dec_to_input"] = bool(
            trainer.get("apply_b_dec_to_input", kind != "JumpReluAutoEncoder")
        )
        weights["threshold"] = _threshold(weights, where)
    return build(
        architecture,
        weights,
        where=where,
        dtype=dtype,
        device=device,
        metadata=_metadata(trainer),
        **settings,
    )


def _renamed(found: dict[str, Tensor]) -> Weights:
    weights = {ours: found[theirs] for theirs, ours in _NAMES.items() if theirs in found}
    return weights | {
        ours: found[theirs].T for theirs, ours in _TRANSPOSED.items() if theirs in found
    }


def _threshold(weights: Weights, where: str) -> Tensor:
    if "threshold" not in weights or "W_enc" not in weights:
        raise ModelLoadError(f"{where} holds no threshold and encoder; this is no jumprelu")
    threshold = weights["threshold"]
    if threshold.ndim == 0:
        if threshold < 0:
            raise ModelLoadError(
                f"{where}: its threshold was never set (training was too short); it cannot be used"
            )
        threshold = threshold.expand(weights["W_enc"].shape[1])
    return threshold.to(weights["W_enc"].dtype)


def _guess(found: dict[str, Tensor]) -> str:
    """The class, where nobody says it, by names that only it has."""
    if "r_mag" in found:
        return "GatedAutoEncoder"
    if "group_sizes" in found:
        return "MatryoshkaBatchTopKSAE"
    if "k" in found:
        raise InvalidInputError(
            "top-k and batch-top-k of dictionary_learning have the same tensors; pass config= with "
            "its dict_class, 'AutoEncoderTopK' or 'BatchTopKSAE'"
        )
    return "JumpReluAutoEncoder" if "threshold" in found else "AutoEncoder"


def _metadata(trainer: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if trainer.get("layer") is not None:
        # Their residual-stream runs read a block's output; a submodule of another kind says so.
        part = str(trainer.get("submodule_name") or "resid_post")
        kinds = {"mlp": "mlp_out", "attn": "attn_out"}
        kind = next((ours for theirs, ours in kinds.items() if theirs in part), "resid_post")
        metadata["hook_name"] = f"blocks.{int(trainer['layer'])}.hook_{kind}"
    if trainer.get("lm_name"):
        metadata["model_name"] = str(trainer["lm_name"]).rsplit("/", 1)[-1]
    return metadata
