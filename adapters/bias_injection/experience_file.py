"""Sessions of an experience as one safetensors file.

States by session and layer; times, units and the fingerprints of the adapters in the metadata.
Whatever is read is checked before it is used. COST: one pass over the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.records import write_bytes

FORMAT = "1"
KIND = "bias-injection experience"
UNITS = ("turns", "seconds")


@dataclasses.dataclass(frozen=True)
class Session:
    """What one session left behind."""

    states: dict[str, Tensor]
    """Values of the nodes, by layer and adapter."""
    interactions: int
    """Interactions so far."""
    pending_turns: float
    """Turns that passed since the last interaction without one."""
    ended: float
    """When the last one ended, in seconds of the clock."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a file holds."""

    sessions: dict[str, Session]
    tau: float
    unit: str
    fingerprints: dict[str, str]
    """Of each adapter that left states, by its name."""


def write_sessions(
    path: Path,
    sessions: Mapping[str, Session],
    *,
    tau: float,
    unit: str,
    fingerprints: Mapping[str, str],
) -> Path:
    """Write sessions to ``path``, whole or not at all."""
    tensors, listed = {}, []
    for number, (name, session) in enumerate(sessions.items()):
        listed.append(
            {
                "name": name,
                "interactions": session.interactions,
                "pending_turns": session.pending_turns,
                "ended": session.ended,
            }
        )
        for key, value in session.states.items():
            tensors[f"{number}|{key}"] = value.detach().contiguous()
    metadata = {
        "format": FORMAT,
        "kind": KIND,
        "tau": repr(tau),
        "unit": unit,
        "sessions": json.dumps(listed),
        "fingerprints": json.dumps(dict(fingerprints)),
    }
    return write_bytes(path, save(tensors, metadata))


def read_sessions(path: Path) -> Stored:
    """Read what :func:`write_sessions` wrote.

    Raises:
        InvalidInputError: no such file, or a damaged or different one; the line says which.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error) if path.is_file() else "there is no such file"
        raise InvalidInputError(f"cannot read the experience {path}: {reason}") from error
    if metadata.get("kind") != KIND:
        raise InvalidInputError(f"{path} is no saved experience; give a file that save() wrote")
    if metadata.get("format") != FORMAT:
        raise InvalidInputError(
            f"{path} has format {metadata.get('format')}, and this version reads {FORMAT}; "
            "upgrade ed-interp"
        )
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise InvalidInputError(f"{path} is damaged: it holds NaN or infinite values")
    try:
        tau, unit = float(metadata["tau"]), metadata["unit"]
        prints = {str(k): str(v) for k, v in json.loads(metadata["fingerprints"]).items()}
        listed = json.loads(metadata["sessions"])
        names = [str(entry["name"]) for entry in listed]
        sessions = [
            Session({}, int(e["interactions"]), float(e["pending_turns"]), float(e["ended"]))
            for e in listed
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{path} is damaged: {error!r}; take another copy") from error
    if unit not in UNITS or not tau > 0 or math.isnan(tau) or len(set(names)) != len(names):
        raise InvalidInputError(f"{path} is damaged: its settings make no sense; take another copy")
    for name, value in tensors.items():
        number, _, key = name.partition("|")
        if not number.isdecimal() or int(number) >= len(sessions) or "/" not in key:
            raise InvalidInputError(f"{path} is damaged: {name!r} belongs to no session")
        sessions[int(number)].states[key] = value
    return Stored(dict(zip(names, sessions, strict=True)), tau, unit, prints)
