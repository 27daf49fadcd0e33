"""What is added where: a direction, tokens by name, and the grid of a sweep with its controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from ed_interp.eval.steering.options import SteerOptions
from ed_interp.options import OptionError
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Where
from ed_interp.streams.injection.where import Selector

EVERY_SITE = "all sites"
"""Label of a grid row that writes at every site of the direction at once."""
EVERY_TOKEN = Where()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A place and a strength."""

    label: str
    """The site's name, or :data:`EVERY_SITE`."""
    direction: Direction
    coefficient: float

    def interventions(self, where: Selector = EVERY_TOKEN) -> tuple[Add, ...]:
        """Arguments for ``inject``."""
        return (Add(self.direction, coefficient=self.coefficient, where=where),)

    def random(self, seed: int) -> Cell:
        """The same with vectors drawn uniformly over all directions, each of the same length."""
        generator = torch.Generator().manual_seed(seed)
        vectors = {}
        for name, vector in self.direction.vectors.items():
            # A Gaussian looks the same in all directions, so its direction is uniform.
            drawn = torch.randn(vector.shape, generator=generator)
            vectors[name] = drawn / drawn.norm() * vector.norm()
        direction = dataclasses.replace(self.direction, vectors=vectors)
        return dataclasses.replace(self, direction=direction)


def grid_of(direction: Direction, coefficients: Sequence[float], *, together: bool) -> list[Cell]:
    """Every site (or all at once) at every coefficient but 0, at which nothing changes."""
    rows = [(site.name, direction.restricted(site)) for site in direction.sites]
    if together:
        rows = [(EVERY_SITE, direction)]
    # Ascending, as tables show them; no steering is measured once, not per place.
    return [Cell(label, part, value) for label, part in rows for value in sorted(coefficients)
            if value]  # fmt: skip


def direction_of(direction: Direction | str | Path | None, options: SteerOptions) -> Direction:
    """The direction of the options, or the live one, at the sites of the options."""
    if not isinstance(direction, Direction):
        direction = Direction.load(direction or options.direction)
    return direction.restricted(*options.sites) if options.sites else direction


def selector_of(where: Selector | str | None) -> Selector:
    """The tokens of that name; a selector as it is."""
    if isinstance(where, Selector):
        return where
    if where == "last":
        return Where(positions=-1)
    if where in ("prompt", "generation"):
        return Where(phase=where)
    if where not in (None, "all"):
        raise OptionError("where", f"must be all, prompt, last or generation, got {where!r}")
    return EVERY_TOKEN
