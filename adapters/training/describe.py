"""What an adapter folder holds, read without its base model.

Cost: one pass over the adapter's file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ed_interp.adapters.training.groups import TIME_CONSTANTS, part_of
from ed_interp.adapters.training.rows import Group, Taus, pairs_table
from ed_interp.errors import ModelLoadError
from ed_interp.records.tensors import read_unchecked
from ed_interp.results import Result
from ed_interp.tables import Table

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclasses.dataclass(frozen=True)
class AdapterDescription(Result):
    """Configuration, parameters, time constants and norms of an adapter."""

    KIND = "adapter"

    folder: str
    method: str
    base_model: str | None
    fingerprint: str
    """SHA-256 of the file of weights."""
    parameters: int
    dtype: str
    groups: dict[str, Group]
    layers: dict[str, float]
    """Euclidean norm of every tensor."""
    taus: Taus | None
    """Time constants; None without feedback nodes."""
    config: dict[str, Any]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def title(self) -> str:
        return f"{self.method} adapter of {self.base_model or 'an unnamed base model'}"

    def facts(self) -> dict[str, str]:
        return {
            "folder": self.folder,
            "fingerprint": self.fingerprint,
            "parameters": f"{self.parameters:,} ({self.dtype}) in {len(self.layers)} tensors",
        }

    def tables(self) -> list[Table]:
        groups = {
            name: f"{group.parameters:,} parameters, norm {group.norm:.4g}"
            for name, group in self.groups.items()
        }
        if (taus := self.taus) is not None:
            spread = f"{taus.least:.4g}, {taus.median:.4g}, {taus.greatest:.4g}"
            groups["time constants"] = f"{taus.count}: least, median, greatest {spread} tokens"
        config = {name: json.dumps(value) for name, value in self.config.items()}
        return [
            pairs_table("adapter", "", self.facts()),
            pairs_table("groups", "Weights", groups),
            pairs_table("config", "Configuration", config),
        ]


def describe(folder: str | Path) -> AdapterDescription:
    """Method, base model, parameters and norms by group, time constants, fingerprint.

    Raises:
        ModelLoadError: the folder holds no adapter, or its configuration is damaged.
        InvalidInputError: its weights are damaged.
    """
    path = Path(folder)
    config, file = read_config(path), path / WEIGHTS
    if not file.is_file():
        raise ModelLoadError(
            f"{path} must hold {WEIGHTS}, as only safetensors are read; save the adapter again "
            "with save_pretrained"
        )
    weights = read_unchecked(file)[0]
    method = str(config.get("peft_type", "?")).lower().replace("_", "-")
    members: dict[str, list[Tensor]] = {}
    for name, tensor in weights.items():
        members.setdefault(part_of(name) or method, []).append(tensor)
    return AdapterDescription(
        folder=str(path),
        method=method,
        base_model=config.get("base_model_name_or_path"),
        fingerprint=hashlib.sha256(file.read_bytes()).hexdigest(),
        parameters=sum(tensor.numel() for tensor in weights.values()),
        dtype=", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in weights.values()})),
        groups={
            name: Group(sum(tensor.numel() for tensor in tensors), _norm(tensors))
            for name, tensors in sorted(members.items())
        },
        layers={name: _norm([tensor]) for name, tensor in sorted(weights.items())},
        taus=_taus(weights),
        config={name: value for name, value in config.items() if value not in (None, {}, [])},
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration as plain data, or ModelLoadError if there is none."""
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError:
        got = f"one without {CONFIG}" if folder.exists() else "a path that does not exist"
        text = f"{folder} must be the folder of a PEFT adapter, got {got}"
        raise ModelLoadError(text) from None
    except ValueError as error:
        raise ModelLoadError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{file} must hold a JSON object, got {type(config).__name__}")
    return config


def _norm(tensors: list[Tensor]) -> float:
    # In float64: a sum of millions of squares in half precision would overflow.
    return float(sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5)


def _taus(weights: dict[str, Tensor]) -> Taus | None:
    # They are stored as logarithms.
    named = {n: t.double().exp() for n, t in weights.items() if part_of(n) == TIME_CONSTANTS}
    if not named:
        return None
    values = torch.cat([value.reshape(-1) for value in named.values()])
    least, median, greatest = (
        float(each) for each in (values.min(), values.median(), values.max())
    )
    by_layer = {name: tuple(value.reshape(-1).tolist()) for name, value in named.items()}
    return Taus(values.numel(), least, median, greatest, by_layer)
