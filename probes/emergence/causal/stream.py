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
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.causal.measures import causal_emergence, o_information
from ed_interp.probes.emergence.estimators import normalise

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_PARTS = 16


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
class CausalProfile:
    """Causal emergence and O-information per block. Made by :func:`causal_profile`."""

    rows: tuple[CausalRow, ...]
    settings: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One line per block, columns as in :class:`CausalRow`."""
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(CausalRow)]
        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows], columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"rows": [dataclasses.asdict(row) for row in self.rows], "settings": self.settings}

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.3f}".format))


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
        activations: from :func:`ed_interp.capture`.
        shots: which shot count.
        parts: how many principal components of all sites to take as parts, or directions of the
            stream as columns.
        macro: V: how many leading principal directions of the parts before the block, or a
            projection of the parts, the same for every block.
        normalisation: of the states first: ``layernorm``, ``rms`` or ``none``.

    Raises:
        InvalidInputError: parts that do not fit the width or the number of prompts, or states
            that are all the same before some block.
    """
    states = normalise(activations.at(shots), normalisation).double()
    prompts, _, width = states.shape
    if isinstance(parts, int):
        if not 3 <= parts <= min(width, prompts - 2):
            raise InvalidInputError(
                f"parts={parts}: at least 3 and at most {min(width, prompts - 2)} components can "
                f"be taken from {prompts} prompts of width {width}"
            )
        pooled = (states - states.mean(0)).reshape(-1, width)
        directions = torch.linalg.eigh(pooled.T @ pooled)[1][:, -parts:].flip(1)
    else:
        directions = parts.to(states)
        if directions.ndim != 2 or directions.shape[0] != width:
            raise InvalidInputError(
                f"parts have shape {tuple(directions.shape)}, expected ({width}, columns)"
            )
    seen = (states @ directions).movedim(1, 0)
    rows = []
    for layer, (before, after) in enumerate(itertools.pairwise(seen)):
        found = causal_emergence(before, after, macro=macro)
        rows.append(
            CausalRow(
                layer=layer,
                psi=found.psi,
                delta=found.delta,
                gamma=found.gamma,
                macro=found.macro,
                parts=found.parts,
                o_information=o_information(after).bits,
            )
        )
    settings = {
        "shots": shots,
        "parts": int(directions.shape[1]),
        "macro": macro if isinstance(macro, int) else int(macro.shape[1]),
        "prompts": int(prompts),
        "normalisation": normalisation,
    }
    return CausalProfile(tuple(rows), settings)
