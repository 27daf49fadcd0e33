"""Rows of the results of this room, and the table of two columns that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True, slots=True)
class LossRow:
    """A logged step; a missing number was not measured at it."""

    step: int
    epoch: float
    loss: float | None = None
    """Training loss since the row before, in nats per token."""
    eval_loss: float | None = None
    """Loss on the held-out examples, in nats per token."""
    grad_norm: float | None = None
    learning_rate: float | None = None
    """Learning rate of the first group of weights."""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share a learning rate."""

    parameters: int
    norm: float
    """Euclidean norm of all of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Taus:
    """Time constants, in tokens."""

    count: int
    least: float
    median: float
    greatest: float
    by_layer: dict[str, tuple[float, ...]]


def by_step(history: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The log of a Trainer with one row per step: it logs losses and evaluations apart."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        rows.setdefault(entry["step"], {}).update(entry)
    return list(rows.values())


def pairs_table(name: str, caption: str, values: dict[str, Any]) -> Table:
    """A table of two columns without heads: what, and its value."""
    rows = [(key, str(value)) for key, value in values.items()]
    return Table(name=name, caption=caption, heads=("", ""), rows=rows, text=frozenset({1}))
