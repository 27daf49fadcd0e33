"""What an adapter folder holds, read without its base model.

Cost: one pass over the adapter's file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ed_interp.adapters.training.groups import group_of
from ed_interp.errors import ModelLoadError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def describe(folder: str | Path) -> dict[str, Any]:
    """Method, base model, parameters and norms by group, time constants, fingerprint.

    Returns:
        Plain data. ``groups`` has the number and the Euclidean norm of the parameters of each
        group, ``layers`` the norm of every tensor, ``taus`` the time constants in tokens (None
        without any), ``fingerprint`` the SHA-256 of the weights' file.

    Raises:
        ModelLoadError: no adapter there, or a file that is damaged.
    """
    path = Path(folder)
    config, weights = read_config(path), _weights(path)
    members: dict[str, list[Tensor]] = {}
    for name, tensor in weights.items():
        members.setdefault(group_of(name), []).append(tensor)
    return {
        "folder": str(path),
        "method": str(config.get("peft_type", "?")).lower().replace("_", "-"),
        "base_model": config.get("base_model_name_or_path"),
        "fingerprint": hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest(),
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in weights.values()})),
        "groups": {
            name: {"parameters": sum(t.numel() for t in tensors), "norm": _norm(tensors)}
            for name, tensors in sorted(members.items())
        },
        "layers": {name: _norm([tensor]) for name, tensor in sorted(weights.items())},
        "taus": _taus(config, weights),
        "config": {name: value for name, value in config.items() if value not in (None, {}, [])},
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration as plain data.

    Raises:
        ModelLoadError: it is not there or no JSON object.
    """
    try:
        found = json.loads((folder / CONFIG).read_text("utf-8"))
    except OSError:
        raise ModelLoadError(
            f"{folder} has no {CONFIG}; a folder of a PEFT adapter is expected"
        ) from None
    except ValueError as error:
        raise ModelLoadError(f"{folder / CONFIG} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{folder / CONFIG} is damaged: an object is expected")
    return found


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelLoadError(
            f"{folder} has no {WEIGHTS}; only safetensors are read: save the adapter again with "
            "save_pretrained"
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{file} is damaged: {error}") from error


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5)


def _taus(config: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any] | None:
    found = dict(_named_taus(weights))
    if not found:
        return None
    values = torch.cat([value.reshape(-1) for value in found.values()])
    return {
        "count": values.numel(),
        "least": float(values.min()),
        "median": float(values.median()),
        "greatest": float(values.max()),
        "by_layer": {name: value.tolist() for name, value in found.items()},
    }


def _named_taus(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights.items():
        if group_of(name) == "taus":
            yield name, tensor.double().exp()
