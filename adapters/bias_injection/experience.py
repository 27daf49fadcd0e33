"""Experience: node states that outlive a call, only inside ``with experience(...)``.

One ``with`` block is one interaction of each session in the batch::

    with experience(model, session="alice"):
        model.generate(**first)            # starts from zero states
    with experience(model, session="alice"):
        model.generate(**second)           # starts from where the first one ended, decayed

Every forward pass in the block that begins without a cache starts from the same states, so scoring
a prompt twice or generating without a cache changes nothing; the block's last states are kept when
it ends without an exception. Between interactions states decay by ``exp(-elapsed / tau)``, with
elapsed time in turns (one per interaction, and those given to ``advance``) or in seconds.

Rows of the batch are sessions by name: ``session=["alice", "bob"]``. Threads may share a model;
one session cannot be in two interactions at once.

A file of sessions is one of :mod:`ed_interp.records.tensors`: its SHA-256 covers states, times,
units and the fingerprints of the adapters, so a single flipped bit is refused.

COST: ``nodes`` float32 numbers per targeted layer and session, on the CPU.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ed_interp.adapters.bias_injection.config import digest
from ed_interp.adapters.bias_injection.hooks import hooked_modules
from ed_interp.adapters.bias_injection.layer import layers_in
from ed_interp.adapters.bias_injection.state import MEMORY
from ed_interp.errors import InvalidInputError, unknown
from ed_interp.records import tensors as files

_KIND, _VERSION = "experience", 2
_UNITS = ("turns", "seconds")


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


class Experience:
    """The sessions of one model; see the module for what an interaction is."""

    def __init__(
        self,
        model: Any,
        *,
        tau: float | int = 8.0,
        unit: str = "turns",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Empty experience of ``model``.

        Args:
            model: A model with a bias-injection adapter that has feedback nodes.
            tau: Time constant of forgetting between interactions, in ``unit``; ``math.inf``
                forgets nothing.
            unit: ``turns`` or ``seconds``.
            clock: Returns seconds since any fixed moment.

        Raises:
            InvalidInputError: no feedback nodes, or a time constant that is not positive.
        """
        if unit not in _UNITS:
            raise InvalidInputError(f"unit must be one of {', '.join(_UNITS)}, got {unit!r}")
        if not (isinstance(tau, (int, float)) and tau > 0):
            raise InvalidInputError(f"tau must be a positive number of {unit}, got {tau!r}")
        base = _base_of(model)
        if not any(s.has_feedback for layer in layers_in(base) for s in layer.settings.values()):
            raise InvalidInputError(
                f"{type(base).__name__} has no feedback nodes and cannot remember; add a "
                "BiasInjectionConfig with n_nodes above 0 and feedback 'input' or 'output'"
            )
        # Weak: the default store of a model must not keep the model alive.
        self._base = weakref.ref(base)
        self.tau, self.unit, self._clock = float(tau), unit, clock
        self._sessions: dict[str, Session] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model: Any) -> Experience:
        """The experience that ``experience(model, ...)`` uses without ``store``."""
        base = _base_of(model)
        with _DEFAULTS_LOCK:
            if base not in _DEFAULTS:
                _DEFAULTS[base] = cls(model)
            return _DEFAULTS[base]

    @property
    def model(self) -> nn.Module:
        """The base model it belongs to, or InvalidInputError once that is gone."""
        base = self._base()
        if base is None:
            raise InvalidInputError("the model of this experience is gone; load it with its model")
        return base

    def sessions(self) -> list[str]:
        """Names of the sessions, in the order they began."""
        with self._lock:
            return list(self._sessions)

    def session(self, name: str) -> Session:
        """What a session left behind, or UnknownNameError."""
        with self._lock:
            return self._known(name)

    def reset(self, session: str | None = None) -> None:
        """Forget a session, or all of them.

        Raises:
            UnknownNameError: no session has that name.
            InvalidInputError: it is in an interaction.
        """
        with self._lock:
            names = list(self._sessions) if session is None else [session]
            for name in names:
                self._known(name)
            self._refuse_busy(names)
            for name in names:
                del self._sessions[name]

    def advance(self, turns: float | int, session: str | None = None) -> None:
        """Let turns pass without an interaction, for a session or all of them.

        Raises:
            InvalidInputError: a negative number, or the experience counts seconds.
            UnknownNameError: no session has that name.
        """
        if self.unit != "turns":
            raise InvalidInputError("this experience counts seconds, which pass by themselves")
        if not (isinstance(turns, (int, float)) and math.isfinite(turns) and turns >= 0):
            raise InvalidInputError(f"turns must be a number, 0 or greater, got {turns!r}")
        with self._lock:
            for name in list(self._sessions) if session is None else [session]:
                known = self._known(name)
                passed = known.pending_turns + turns
                self._sessions[name] = dataclasses.replace(known, pending_turns=passed)

    def save(self, path: str | Path) -> Path:
        """Write all sessions to one safetensors file, whole or not at all.

        Raises:
            InvalidInputError: a session is in an interaction.
            RunFolderError: it cannot be written.
        """
        with self._lock:
            self._refuse_busy(list(self._sessions))
            kept = dict(self._sessions)
        states: dict[str, Tensor] = {}
        listed = []
        for number, (name, session) in enumerate(kept.items()):
            # By number, since a session's name may hold any character.
            states |= {f"{number}|{key}": value for key, value in session.states.items()}
            listed.append({"name": name, **vars(session), "states": sorted(session.states)})
        # States go by "layer/adapter".
        adapters = {key.rpartition("/")[2] for one in kept.values() for key in one.states}
        prints = {name: fingerprint(self.model, name) for name in sorted(adapters)}
        # tau as text: it may be infinite, which JSON cannot say.
        meta = {
            "unit": self.unit,
            "tau": repr(self.tau),
            "fingerprints": prints,
            "sessions": listed,
        }
        return files.write(path, states, kind=_KIND, version=_VERSION, meta=meta)

    @classmethod
    def load(
        cls, path: str | Path, model: Any, *, clock: Callable[[], float] = time.time
    ) -> Experience:
        """Read back what :meth:`save` wrote, for the model with the same adapter.

        Raises:
            InvalidInputError: no such file, a damaged, altered or different one, or one made with
                another adapter or with weights that were changed since.
        """
        if files.read_unchecked(path)[1].get("kind") == "bias-injection experience":
            raise InvalidInputError(
                f"{path} must have a digest, so that damage shows, got version 1, which has none; "
                "repeat the interactions and save them with this version"
            )
        tensors, meta = files.read(path, kind=_KIND, version=_VERSION, finite=True)
        sessions: dict[str, Session] = {}
        try:
            for number, entry in enumerate(meta["sessions"]):
                states = {key: tensors.pop(f"{number}|{key}") for key in entry["states"]}
                times = float(entry["pending_turns"]), float(entry["ended"])
                sessions[str(entry["name"])] = Session(states, int(entry["interactions"]), *times)
            if tensors or len(sessions) != len(meta["sessions"]):
                raise ValueError("its states and sessions do not match")
            prints = {str(name): str(value) for name, value in meta["fingerprints"].items()}
            tau, unit = float(meta["tau"]), str(meta["unit"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(
                f"{path} is damaged: {error!r}; get an undamaged copy"
            ) from error
        restored = cls(model, tau=tau, unit=unit, clock=clock)
        adapters = {name for layer in layers_in(restored.model) for name in layer.settings}
        here = {name: fingerprint(restored.model, name) for name in sorted(adapters)}
        for adapter, expected in prints.items():
            if here.get(adapter) != expected:
                listed = ", ".join(f"{name!r} ({value[:12]})" for name, value in here.items())
                raise InvalidInputError(
                    f"{path} belongs to another adapter: it was made with {adapter!r} of "
                    f"fingerprint {expected[:12]}, and this model has {listed}; load that adapter"
                )
        restored._sessions = sessions
        return restored

    def _known(self, name: str) -> Session:
        if name not in self._sessions:
            raise unknown("session", name, list(self._sessions) or ["(none yet)"])
        return self._sessions[name]

    def _refuse_busy(self, names: list[str]) -> None:
        busy = [name for name in names if name in self._busy]
        if busy:
            raise InvalidInputError(
                f"session {busy[0]!r} is in an interaction (another thread, or an outer block); "
                "wait for its end"
            )

    def _begin(self, names: list[str]) -> list[Session]:
        with self._lock:
            self._refuse_busy(names)
            self._busy |= set(names)
            now = self._clock()
            return [self._decayed(self._sessions.get(name), now) for name in names]

    def _decayed(self, session: Session | None, now: float) -> Session:
        if session is None:
            return Session({}, 0, 0.0, now)
        # This interaction is itself a turn, after those that passed without one.
        turns = 1.0 + session.pending_turns
        elapsed = turns if self.unit == "turns" else max(0.0, now - session.ended)
        factor = math.exp(-elapsed / self.tau)
        states = {key: value * factor for key, value in session.states.items()}
        return dataclasses.replace(session, states=states)

    def _end(self, names: list[str], begun: list[Session], finals: dict[str, Tensor]) -> None:
        with self._lock:
            self._busy -= set(names)
            if not finals:
                return
            for row, (name, session) in enumerate(zip(names, begun, strict=True)):
                # Layers that this pass did not run keep what they had, decayed.
                states = {**session.states, **{k: value[row] for k, value in finals.items()}}
                count = session.interactions + 1
                self._sessions[name] = Session(states, count, 0.0, self._clock())


class _Interaction:
    """What a forward pass inside an ``experience`` block sees."""

    def __init__(self, names: list[str], begun: list[Session], modules: set[int]) -> None:
        self.names, self.begun, self.modules = names, begun, modules
        self.finals: dict[str, Tensor] = {}

    def owns(self, module: nn.Module) -> bool:
        return id(module) in self.modules

    def start(self, key: str, rows: int, nodes: int) -> Tensor | None:
        self._check(rows)
        states = [session.states.get(key) for session in self.begun]
        if all(state is None for state in states):
            return None
        for name, state in zip(self.names, states, strict=True):
            if state is not None and state.shape != (nodes,):
                raise InvalidInputError(
                    f"session {name!r} holds {tuple(state.shape)} node values for {key!r}, which "
                    f"has {nodes} nodes now; reset the session"
                )
        return torch.stack([torch.zeros(nodes) if state is None else state for state in states])

    def finish(self, finals: dict[str, Tensor], rows: int) -> None:
        self._check(rows)
        self.finals.update({key: value.detach().float().cpu() for key, value in finals.items()})

    def _check(self, rows: int) -> None:
        if rows != len(self.names):
            raise InvalidInputError(
                f"this experience has {len(self.names)} sessions ({', '.join(self.names)}) and the "
                f"batch has {rows} rows; name one session per row, and use one beam per row"
            )


@contextmanager
def experience(
    model: Any, *, session: str | Sequence[str], store: Experience | None = None
) -> Iterator[Experience]:
    """One interaction that starts from what the sessions left behind and adds to it.

    Args:
        model: A model with a bias-injection adapter.
        session: A name, or one for each row of the batch.
        store: Keeps the sessions; by default one that lives as long as the model, with a time
            constant of eight turns.

    Yields:
        The store.

    Raises:
        InvalidInputError: no feedback nodes, a name given twice or in use, a store of another
            model; later, in the block, a batch of another size.
    """
    store = Experience.of(model) if store is None else store
    base = _base_of(model)
    if store.model is not base:
        raise InvalidInputError("this experience belongs to another model; load or make one for it")
    names = [session] if isinstance(session, str) else list(session)
    if not names or not all(names) or len(set(names)) != len(names):
        raise InvalidInputError(f"session names must be different and not empty, got {names!r}")
    begun = store._begin(names)
    # The hooked modules by identity: another model inside the block is left alone.
    interaction = _Interaction(names, begun, {id(module) for _, module in hooked_modules(base)})
    token = MEMORY.set(interaction)
    finals: dict[str, Tensor] = {}
    try:
        yield store
        # Not reached after an exception, which leaves the old states.
        finals = interaction.finals
    finally:
        MEMORY.reset(token)
        store._end(names, begun, finals)


def fingerprint(model: Any, adapter_name: str) -> str:
    """SHA-256 of an adapter's weights in ``model``."""
    weights = {
        f"{layer.key}.bias_injection_{name}": value
        for layer in layers_in(_base_of(model))
        for name, value in layer.weights_of(adapter_name).items()
        if adapter_name in layer.settings
    }
    return digest(weights)


def _base_of(model: Any) -> nn.Module:
    """The transformers model inside, however it is wrapped."""
    held: Any = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if not isinstance(held, nn.Module):
        raise InvalidInputError(f"model must be a torch module, got {type(model).__name__}")
    unwrap: Any = getattr(held, "get_base_model", None)
    base: nn.Module = unwrap() if unwrap is not None else held
    return base


_DEFAULTS: weakref.WeakKeyDictionary[nn.Module, Experience] = weakref.WeakKeyDictionary()
_DEFAULTS_LOCK = threading.Lock()
