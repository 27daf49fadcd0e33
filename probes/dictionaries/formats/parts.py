"""What the converters share: reading files, and a SAELens object from a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ed_interp.errors import ModelLoadError

if TYPE_CHECKING:
    from sae_lens import SAE

Weights = dict[str, Tensor]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelLoadError: the file is missing, damaged, or holds something else.
    """
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
    """All tensors of a safetensors file, on the CPU.

    Raises:
        ModelLoadError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise ModelLoadError(f"there is no {file}") from error
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{file} is damaged ({error}); download or make it again") from error


def build(
    architecture: str,
    weights: Weights,
    *,
    where: str,
    dtype: str | None,
    device: str,
    metadata: dict[str, Any],
    **settings: Any,
) -> SAE[Any]:
    """A SAELens object in its form for inference.

    Args:
        architecture: SAELens's name.
        weights: In SAELens's names, ``W_enc`` as ``d_in d_sae``.
        where: The source of the weights, for errors.
        dtype: As SAELens spells it; None keeps the one of ``W_enc``.
        device: Device to put it on.
        metadata: ``hook_name``, ``model_name``, ...; None where it is unknown.
        **settings: Further fields of the configuration.

    Raises:
        ModelLoadError: tensors that are missing or do not fit each other.
    """
    from ed_interp.probes.dictionaries.backend import SAEMetadata, registry

    check_shapes(weights, where)
    width, latents = weights["W_enc"].shape
    sae_class, config_class = registry.get_sae_class(architecture)
    kept = dtype or str(weights["W_enc"].dtype).removeprefix("torch.")
    config = config_class(d_in=width, d_sae=latents, dtype=kept, device=device, **settings)
    config.metadata = SAEMetadata(**{k: v for k, v in metadata.items() if v is not None})
    sae: SAE[Any] = sae_class(config)
    try:
        with torch.no_grad():
            sae.load_state_dict({name: tensor.contiguous() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ModelLoadError(
            f"{where}: its tensors are not those of a {architecture} dictionary "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    return sae.eval().requires_grad_(False)


def check_shapes(weights: Weights, where: str) -> None:
    """Check that encoder and decoder have each other's transposed shape.

    Raises:
        ModelLoadError: one is missing, or they do not fit.
    """
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
