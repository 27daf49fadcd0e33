"""Causal emergence along the residual stream, from captured activations.

>>> activations = ed_interp.capture(model, population)  # doctest: +SKIP
>>> causal_profile(activations, shots=8).to_frame()  # doctest: +SKIP

A block is the step: parts are directions of the stream, before and after the block. By default
they are the leading principal components of all sites together, so that every block is measured
in the same parts, and V is the first of them.

Cost: a covariance of ``site * prompt`` rows and ``d_model`` columns, then microseconds a block.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.charts.spec import Chart, Line, Panel, Rule
from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.causal.measures import causal_emergence, o_information
from ed_interp.probes.emergence.estimators.noise import normalise
from ed_interp.results import Result
from ed_interp.tables import Table

DEFAULT_PARTS = 16

_MEASURES = ("psi", "delta", "gamma", "macro", "parts", "o_information")


@runtime_checkable
class Captured(Protocol):
    """Captured activations, as far as they are needed here."""

    def at(self, shots: int) -> Float[Tensor, "prompt site d_model"]:
        """States at the last token, per prompt and site."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class CausalRow:
    """Measures of one block, in bits; fields as in ``CausalEmergence`` and ``OInformation``."""

    layer: int
    psi: float
    delta: float
    gamma: float
    macro: float
    parts: float
    o_information: float
    """Of the parts after the block."""


@dataclasses.dataclass(frozen=True)
class CausalProfile(Result):
    """Causal emergence and O-information per block. Made by :func:`causal_profile`."""

    KIND = "causal-emergence"

    rows: tuple[CausalRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def title(self) -> str:
        return "Causal emergence per block"

    def headline(self) -> str:
        emergent = [str(row.layer) for row in self.rows if row.psi > 0]
        blocks = f"blocks {', '.join(emergent)}" if emergent else "none of the blocks"
        return f"Psi is above 0, which is sufficient for causal emergence, in {blocks}."

    def how(self) -> str:
        return (
            "The step is one block, the parts are directions of the residual stream before and "
            "after it, rows are prompts. Psi = I(V; V') - sum of I(part; V') for a macroscopic "
            "feature V; Delta and Gamma are the largest information of V and of the parts about "
            "one part after the block. Only linear dependence is seen, and redundant parts lower "
            "Psi: below 0 it decides nothing."
        )

    def tables(self) -> list[Table]:
        values = [[f"{getattr(row, name):.3f}" for name in _MEASURES] for row in self.rows]
        cells = [(str(row.layer), *own) for row, own in zip(self.rows, values, strict=True)]
        heads = ("block", *(name.replace("_", "-") for name in _MEASURES))
        return [Table(name="blocks", caption="Bits per block", heads=heads, rows=cells)]

    def charts(self) -> list[Chart]:
        x = [row.layer for row in self.rows]
        lines = [
            Line(name=name.replace("_", "-"), x=x, y=[getattr(row, name) for row in self.rows])
            for name in ("psi", "delta", "gamma", "o_information")
        ]
        # Along the scale of depth, so that the four differ without a colour table of their own.
        marks = [dataclasses.replace(line, colour=i / 3) for i, line in enumerate(lines)]
        panel = Panel(x="block", y="bits", marks=[*marks, Rule(at=0)])
        return [Chart(name="causal", title=self.title(), panels=[panel])] if x else []


def causal_profile(
    activations: Captured,
    *,
    shots: int,
    parts: int | Float[Tensor, "d_model part"] = DEFAULT_PARTS,
    macro: int | Float[Tensor, "part feature"] = 1,
    normalisation: str = "layernorm",
) -> CausalProfile:
    """Psi, Delta, Gamma and O-information of every block at one shot count.

    Args:
        activations: From :func:`ed_interp.capture`.
        shots: Number of demonstrations.
        parts: How many principal components of all sites to take as parts, or directions of the
            stream as columns.
        macro: V: how many leading principal directions of the parts before the block, or a
            projection of the parts, the same for every block.
        normalisation: How states are normalised first: ``layernorm``, ``rms`` or ``none``.

    Raises:
        InvalidInputError: parts that do not fit the width or the number of prompts, or states
            that are all the same before some block.
    """
    states = normalise(activations.at(shots), normalisation).double()
    prompts, _, width = states.shape
    if isinstance(parts, int):
        most = min(width, prompts - 2)
        if not 3 <= parts <= most:
            raise InvalidInputError(
                f"parts must be between 3 and {most} for {prompts} prompts of width {width}, got "
                f"{parts}"
            )
        pooled = (states - states.mean(0)).reshape(-1, width)
        directions = torch.linalg.eigh(pooled.T @ pooled)[1][:, -parts:].flip(1)
    else:
        directions = parts.to(states)
        if directions.ndim != 2 or directions.shape[0] != width:
            raise InvalidInputError(
                f"parts must have the shape ({width}, columns), got {tuple(directions.shape)}"
            )
    sites = (states @ directions).movedim(1, 0)
    rows = []
    for layer, (before, after) in enumerate(itertools.pairwise(sites)):
        measured = causal_emergence(before, after, macro=macro)
        values = {name: getattr(measured, name) for name in _MEASURES[:-1]}
        rows.append(CausalRow(layer, o_information=o_information(after).bits, **values))
    settings = {
        "shots": shots,
        "parts": int(directions.shape[1]),
        "macro": macro if isinstance(macro, int) else int(macro.shape[1]),
        "prompts": int(prompts),
        "normalisation": normalisation,
    }
    return CausalProfile(tuple(rows), settings)
