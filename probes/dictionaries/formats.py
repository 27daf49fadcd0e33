"""Dictionaries written by other libraries, as SAELens objects; what has no form there is refused.

*EleutherAI's sparsify*: folders with ``cfg.json`` and ``sae.safetensors``. Its encoder is
``topk(relu((x - b_dec) W + b))`` and its decoder rows are used as they are saved, which is
SAELens's top-k without rescaling by the decoder's norm. SAELens's own reader of these folders loads
in bfloat16 whatever was saved, so that its outputs differ from sparsify's; this one keeps the
precision. Transcoders, skip connections and groupmax cannot be represented by a
:class:`~ed_interp.probes.dictionaries.dictionary.Dictionary` and are refused.

*saprmarks' dictionary_learning*: folders with ``config.json`` and ``ae.pt``, and live objects.
``ae.pt`` is a pickle, and pickles are not read. Pass the object or its state dictionary to
:func:`~ed_interp.probes.dictionaries.loading.from_dictionary_learning`, or save the weights as
``ae.safetensors`` next to ``config.json``: ``load`` then reads the folder like any other. How its
classes correspond: ``AutoEncoder`` is SAELens's standard, ``AutoEncoderTopK`` topk without
rescaling, ``GatedAutoEncoder`` gated, ``JumpReluAutoEncoder``, ``BatchTopKSAE`` and
``MatryoshkaBatchTopKSAE`` jumprelu with the learned threshold, which is how they encode at
inference.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.records.tensors import read_unchecked

if TYPE_CHECKING:
    from sae_lens import SAE

Weights = dict[str, Tensor]

SPARSIFY = "sae.safetensors"
_LEARNED, _PICKLE = "ae.safetensors", "ae.pt"
_LAYER = re.compile(r"(?:layers|h|blocks)[._](\d+)(?:[._](mlp|attn|self_attn|attention))?$")
_REFUSED = {
    "transcode": "a transcoder (it maps a module's input to its output)",
    "skip_connection": "a skip connection",
    "signed": "signed latents",
}
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
_PLAIN = {"rescale_acts_by_decoder_norm": False}
"""Top-k whose decoder rows are used as they are saved."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """A dictionary in SAELens's terms, from which :func:`build` makes its object."""

    architecture: str
    """SAELens's name."""
    weights: Weights
    """In SAELens's names, ``W_enc`` as ``d_in d_sae``."""
    metadata: dict[str, Any]
    """``hook_name`` and ``model_name``; None if unknown."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of the configuration."""


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; ModelLoadError says why it cannot be read."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ModelLoadError(f"cannot read {file} ({error.strerror or error})") from error
    except ValueError as error:
        raise ModelLoadError(f"{file} is damaged ({error}); download or make it again") from error
    if not isinstance(data, dict):
        raise ModelLoadError(f"{file} must hold a JSON object, got a {type(data).__name__}")
    return data


def read_safetensors(file: Path) -> Weights:
    """All tensors of a safetensors file, on the CPU; ModelLoadError if it is damaged."""
    try:
        return read_unchecked(file)[0]
    except InvalidInputError as error:
        raise ModelLoadError(str(error)) from error


def build(parts: Parts, *, where: str, device: str, dtype: str | None = None) -> SAE[Any]:
    """A SAELens object in its form for inference; ModelLoadError if its tensors do not fit."""
    from ed_interp.probes.dictionaries.backend import SAEMetadata, registry

    weights = parts.weights
    check_shapes(weights, where)
    width, latents = weights["W_enc"].shape
    sae_class, config_class = registry.get_sae_class(parts.architecture)
    # As it was saved: in bfloat16 other latents can be among the k largest.
    kept = dtype or str(weights["W_enc"].dtype).removeprefix("torch.")
    sizes = {"d_in": width, "d_sae": latents, "dtype": kept, "device": device}
    config = config_class(**sizes, **parts.settings)
    config.metadata = SAEMetadata(**{k: v for k, v in parts.metadata.items() if v is not None})
    sae: SAE[Any] = sae_class(config)
    try:
        with torch.no_grad():
            sae.load_state_dict({name: tensor.contiguous() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ModelLoadError(
            f"{where}: its tensors are not those of a {parts.architecture} dictionary "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    return sae.eval().requires_grad_(False)


def check_shapes(weights: Weights, where: str) -> None:
    """Raise ModelLoadError unless encoder and decoder have each other's transposed shape."""
    # Checked here, as load_state_dict would list every tensor and not say what is wrong.
    missing = [name for name in ("W_enc", "W_dec", "b_dec") if name not in weights]
    if missing:
        raise ModelLoadError(
            f"{where} holds no {' and no '.join(missing)}; it holds {', '.join(sorted(weights))}"
        )
    encoder, decoder = weights["W_enc"], weights["W_dec"]
    if encoder.ndim != 2 or decoder.shape != encoder.shape[::-1]:
        raise ModelLoadError(
            f"{where}: the decoder must have the encoder's shape transposed, got an encoder of "
            f"{tuple(encoder.shape)} and a decoder of {tuple(decoder.shape)}"
        )


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
    tensors = read_safetensors(folder / SPARSIFY)
    metadata = {"hook_name": hook_of(folder.name), "model_name": _model_of(folder)}
    return Parts("topk", _renamed(tensors), metadata, {"k": config["k"], **_PLAIN})


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


def from_dictionary_learning_folder(folder: Path) -> Parts:
    """A folder whose weights are safetensors; ModelLoadError for pickles and damaged files."""
    if not (folder / _LEARNED).is_file():
        raise ModelLoadError(
            f"{folder / _PICKLE} is a pickle, which is not read (it can run code); load it "
            f"yourself with torch (weights_only=True) and pass "
            f"from_dictionary_learning(state_dict, config), or save it as {_LEARNED}"
        )
    config = read_json(folder / "config.json")
    return convert(read_safetensors(folder / _LEARNED), config, where=str(folder))


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
        settings = {"k": int(k), **_PLAIN}
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


CONVERTERS: dict[str, Callable[[Path], Parts]] = {
    SPARSIFY: from_sparsify,
    **dict.fromkeys((_LEARNED, _PICKLE), from_dictionary_learning_folder),
}
"""By the file that a folder of the format holds."""
