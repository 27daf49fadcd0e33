"""What the converters share: reading files, and a SAELens object from a configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.records.tensors import read_unchecked

if TYPE_CHECKING:
    from sae_lens import SAE

Weights = dict[str, Tensor]


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
