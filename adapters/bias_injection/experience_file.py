"""Sessions of an experience as one file: states by session and layer, and what they belong to.

The file is one of :mod:`ed_interp.records.tensors`: its SHA-256 covers states, times, units and the
fingerprints of the adapters, so a single flipped bit is refused. Files of version 1 had no digest;
they are refused, as damage to them cannot be seen. COST: two passes over the file.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.records import tensors as files

KIND, VERSION = "experience", 2
UNITS = ("turns", "seconds")


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
    states: dict[str, Tensor] = {}
    listed = []
    for number, (name, session) in enumerate(stored.sessions.items()):
        # By number, since a session's name may hold any character.
        states |= {f"{number}|{key}": value for key, value in session.states.items()}
        listed.append({"name": name, **vars(session), "states": sorted(session.states)})
    # tau as text: it may be infinite, which JSON cannot say.
    meta = {**vars(stored), "tau": repr(stored.tau), "sessions": listed}
    return files.write(path, states, kind=KIND, version=VERSION, meta=meta)


def read_sessions(path: Path) -> Stored:
    """Read what :func:`write_sessions` wrote.

    Raises:
        InvalidInputError: no such file, or a damaged, altered or different one; the line says
            which.
    """
    if files.read_unchecked(path)[1].get("kind") == "bias-injection experience":
        raise InvalidInputError(
            f"{path} must have a digest, so that damage shows, got version 1, which has none; "
            "repeat the interactions and save them with this version"
        )
    tensors, meta = files.read(path, kind=KIND, version=VERSION, finite=True)
    try:
        sessions = {}
        for number, entry in enumerate(meta["sessions"]):
            states = {key: tensors.pop(f"{number}|{key}") for key in entry["states"]}
            times = int(entry["interactions"]), float(entry["pending_turns"]), float(entry["ended"])
            sessions[str(entry["name"])] = Session(states, *times)
        if tensors or len(sessions) != len(meta["sessions"]):
            raise ValueError("its states and sessions do not match")
        prints = {str(name): str(value) for name, value in meta["fingerprints"].items()}
        return Stored(sessions, float(meta["tau"]), str(meta["unit"]), prints)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{path} is damaged: {error!r}; get an undamaged copy") from error
