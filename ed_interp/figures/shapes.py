"""What a figure needs to know of an emergence curve.

The curve's class lives in the probes, which stand above the spine; figures and report take
anything of this shape. `probes/emergence/curve.py` says what each field means.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Row(Protocol):
    """Emergence of one block at one shot count."""

    @property
    def layer(self) -> int: ...
    @property
    def shots(self) -> int: ...
    @property
    def emergence(self) -> float: ...
    @property
    def ci_low(self) -> float: ...
    @property
    def ci_high(self) -> float: ...
    @property
    def macro(self) -> float: ...
    @property
    def micro(self) -> float: ...
    @property
    def limit(self) -> float: ...
    @property
    def macro_limit(self) -> float: ...
    @property
    def untrained(self) -> float | None: ...
    @property
    def flags(self) -> tuple[str, ...]: ...


@runtime_checkable
class Behaviour(Protocol):
    """How well the model answers at one shot count."""

    @property
    def shots(self) -> int: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def ci_low(self) -> float: ...
    @property
    def ci_high(self) -> float: ...
    @property
    def logprob(self) -> float: ...
    @property
    def logprob_ci_low(self) -> float: ...
    @property
    def logprob_ci_high(self) -> float: ...
    @property
    def rank(self) -> float: ...
    @property
    def chance(self) -> float: ...
    @property
    def gain(self) -> float: ...
    @property
    def gain_ci_low(self) -> float: ...
    @property
    def gain_ci_high(self) -> float: ...
    @property
    def n(self) -> int: ...


@runtime_checkable
class Profile(Protocol):
    """Emergence of one block and shot count at one noise scale."""

    @property
    def layer(self) -> int: ...
    @property
    def shots(self) -> int: ...
    @property
    def beta(self) -> float: ...
    @property
    def noise(self) -> float: ...
    @property
    def emergence(self) -> float: ...
    @property
    def macro(self) -> float: ...
    @property
    def micro(self) -> float: ...


@runtime_checkable
class Curve(Protocol):
    """An emergence curve."""

    @property
    def model(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def estimator(self) -> str: ...
    @property
    def noise(self) -> float | None: ...
    @property
    def unit(self) -> str: ...
    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def behaviour(self) -> Sequence[Behaviour]: ...
    @property
    def profile(self) -> Sequence[Profile]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def layers(self) -> Sequence[int]: ...
    @property
    def shots(self) -> Sequence[int]: ...


def rows_of(curve: Curve) -> dict[int, list[Row]]:
    """The rows of each block, blocks and shot counts ascending."""
    return {
        layer: sorted((row for row in curve.rows if row.layer == layer), key=lambda row: row.shots)
        for layer in curve.layers
    }


def behaviour_of(curve: Curve) -> list[Behaviour]:
    """The behaviour rows, shot counts ascending."""
    return sorted(curve.behaviour, key=lambda row: row.shots)


def limit_of(curve: Curve) -> dict[int, float]:
    """The limit of noiseless networks per shot count; it is a constant of the data."""
    return {row.shots: row.limit for row in sorted(curve.rows, key=lambda row: row.shots)}


def twin_range(curve: Curve) -> dict[int, tuple[float, float]]:
    """Lowest and highest E of the untrained twin over blocks, per shot count where it was run."""
    values: dict[int, list[float]] = {}
    for row in sorted(curve.rows, key=lambda row: row.shots):
        if row.untrained is not None:
            values.setdefault(row.shots, []).append(row.untrained)
    return {shots: (min(found), max(found)) for shots, found in values.items()}


def flag_meanings(curve: Curve) -> Mapping[str, str]:
    """What the flags of ``curve`` mean; empty where its module does not say.

    The words stand once, as ``FLAGS`` beside the curve's class. That module is loaded, since the
    curve was made by it, so it is looked up and not imported: the spine imports no probe.
    """
    for kind in type(curve).__mro__:
        found = getattr(sys.modules.get(kind.__module__), "FLAGS", None)
        if isinstance(found, Mapping):
            return found
    return {}
