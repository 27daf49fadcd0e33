"""Sessions of an experience as one file: states by session and layer, and what they belong to.

The file is one of :mod:`ed_interp.records.tensors`: its SHA-256 covers states, times, units and the
fingerprints of the adapters, so a single flipped bit is refused. Files of version 1 have no digest;
they are read with a warning, and are checked again once :meth:`Experience.save` has written them
anew. COST: two passes over the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.records import tensors as files

KIND, VERSION = "experience", 2
UNITS = ("turns", "seconds")

_OLD_KIND = "bias-injection experience"


@dataclasses.dataclass(frozen=True)
class Session:
    """What one session left behind."""

    states: dict[str, Tensor]
    """Values of the nodes, by layer and adapter."""
    interactions: int
    """Interactions so far."""
    pending_turns: float
    """Turns that passed without an interaction since the last one."""
    ended: float
    """When the last one ended, in seconds of the clock."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a file holds."""

    sessions: dict[str, Session]
    tau: float
    unit: str
    fingerprints: dict[str, str]
    """Fingerprint of each adapter that left states, by its name."""


def write_sessions(path: Path, stored: Stored) -> Path:
    """Write sessions to ``path``, whole or not at all."""
    states, listed = {}, []
    for number, (name, session) in enumerate(stored.sessions.items()):
        # By number, since a session's name may hold any character.
        states |= {f"{number}|{key}": value for key, value in session.states.items()}
        plain = {k: v for k, v in vars(session).items() if k != "states"}
        listed.append({"name": name, **plain})
    # tau as text: it may be infinite, which JSON cannot say.
    meta = {"tau": repr(stored.tau), "unit": stored.unit, "sessions": listed}
    meta["fingerprints"] = stored.fingerprints
    return files.write(path, states, kind=KIND, version=VERSION, meta=meta)


def read_sessions(path: Path) -> Stored:
    """Read what :func:`write_sessions` wrote.

    Raises:
        InvalidInputError: no such file, or a damaged, altered or different one; the line says
            which.
    """
    states, header = files.read_unchecked(path)
    try:
        if header.get("kind") == _OLD_KIND and header.get("format") == "1":
            meta = _old_meta(path, header)
        else:
            states, meta = files.read(path, kind=KIND, version=VERSION)
        tau, unit, listed = float(meta["tau"]), str(meta["unit"]), meta["sessions"]
        names = [str(entry["name"]) for entry in listed]
        prints = {str(name): str(value) for name, value in meta["fingerprints"].items()}
        sessions = [
            Session({}, int(e["interactions"]), float(e["pending_turns"]), float(e["ended"]))
            for e in listed
        ]
    except InvalidInputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{path} is damaged: {error!r}; get an undamaged copy") from error
    if unit not in UNITS or not tau > 0 or math.isnan(tau) or len(set(names)) != len(names):
        raise InvalidInputError(
            f"{path} is damaged: tau, unit and session names must be those of an experience, got "
            f"tau {tau}, unit {unit!r} and {len(names)} names; get an undamaged copy"
        )
    for name, value in states.items():
        number, _, key = name.partition("|")
        if not number.isdecimal() or int(number) >= len(sessions) or "/" not in key:
            raise InvalidInputError(f"{path} is damaged: {name!r} belongs to none of its sessions")
        if not bool(torch.isfinite(value).all()):
            raise InvalidInputError(f"{path} is damaged: {name!r} must hold finite numbers")
        sessions[int(number)].states[key] = value
    return Stored(dict(zip(names, sessions, strict=True)), tau, unit, prints)


def _old_meta(path: Path, header: dict[str, str]) -> dict[str, Any]:
    warnings.warn(
        f"{path} was written by an older version, without a digest, so damage may go unnoticed; "
        "save the experience again to protect it",
        stacklevel=4,
    )
    return {**header, **{name: json.loads(header[name]) for name in ("sessions", "fingerprints")}}
