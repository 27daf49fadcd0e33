"""The grid of a sweep: which vectors are added where, how strongly, and their random controls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from ed_interp.errors import InvalidInputError
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Where
from ed_interp.streams.injection.where import Selector

EVERY_SITE = "all sites"
"""Label of a grid row that writes at every site of the direction at once."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A place and a strength."""

    label: str
    """The site's name, or :data:`EVERY_SITE`."""
    direction: Direction
    coefficient: float

    def interventions(self, where: Selector | None = None) -> tuple[Add, ...]:
        """What to inject; ``where`` None is every token."""
        chosen = Where() if where is None else where
        return (Add(self.direction, coefficient=self.coefficient, where=chosen),)

    def random(self, seed: int) -> Cell:
        """The same with vectors drawn evenly over all directions, each of the same length."""
        generator = torch.Generator().manual_seed(seed)
        vectors = {}
        for name, vector in self.direction.vectors.items():
            drawn = torch.randn(vector.shape, generator=generator)
            vectors[name] = drawn / drawn.norm() * vector.norm()
        return dataclasses.replace(
            self, direction=dataclasses.replace(self.direction, vectors=vectors)
        )


def grid_of(direction: Direction, coefficients: Sequence[float], *, together: bool) -> list[Cell]:
    """Every site (or all at once) at every coefficient.

    Raises:
        InvalidInputError: no coefficient but 0, or one that is not finite.
    """
    wrong = [value for value in coefficients if not math.isfinite(value)]
    if wrong or len(set(coefficients)) < len(coefficients):
        raise InvalidInputError(f"coefficients={list(coefficients)}: finite numbers, each once")
    strengths = [float(value) for value in sorted(coefficients) if value]
    if not strengths:
        raise InvalidInputError(
            f"coefficients={list(coefficients)}: at least one other than 0 is needed (no steering "
            "is always measured)"
        )
    rows = (
        [(EVERY_SITE, direction)]
        if together
        else [(site.name, direction.restricted(site)) for site in direction.sites]
    )
    return [Cell(label, part, value) for label, part in rows for value in strengths]
