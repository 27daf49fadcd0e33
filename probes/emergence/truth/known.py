"""A population whose mutual information is known, from which samples can be drawn.

>>> task = ed_interp.probes.emergence.truth.ground_truth_tasks()[0]  # doctest: +SKIP
>>> x, y = task.sample(5000, seed=0)  # doctest: +SKIP

A population is a law with a known density ratio (:mod:`.laws`), padded with columns of noise that
carry no information, and shown through invertible maps of x and of y (:mod:`.maps`): neither
changes the information.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.truth.laws import Law, information
from ed_interp.probes.emergence.truth.maps import Map, compose, standardise

Bits = tuple[float, float]
"""A value and its standard error, in bits."""


@dataclasses.dataclass(frozen=True)
class KnownInformation:
    """One population of known mutual information."""

    name: str
    family: str
    """``gaussian``, ``student``, ``nonlinear``, ``mixture``, ``clusters`` or ``deterministic``."""
    law: Law = dataclasses.field(repr=False)
    """Law of the informative columns."""
    pad: tuple[int, int] = (0, 0)
    """Columns of independent standard normal noise behind those of the law, in x and in y."""
    map_x: Map = dataclasses.field(default=compose(), repr=False)
    map_y: Map = dataclasses.field(default=compose(), repr=False)
    columns: int | None = None
    """Columns of x after ``map_x``, if that changes their number."""
    standardised: bool = False
    """Whether every column of a sample is brought to mean 0 and standard deviation 1."""
    noisy: Callable[[float, float], Bits] | None = dataclasses.field(default=None, repr=False)
    """Information left when isotropic Gaussian noise of these standard deviations is added to x
    and y; None if it is not known."""

    @property
    def d_x(self) -> int:
        """Columns of x."""
        return self.columns or self.law.widths[0] + self.pad[0]

    @property
    def d_y(self) -> int:
        """Columns of y."""
        return self.law.widths[1] + self.pad[1]

    @property
    def bits(self) -> float:
        """The mutual information of x and y."""
        return self._value[0]

    @property
    def error(self) -> float:
        """Standard error of `bits`; 0 for a closed form."""
        return self._value[1]

    # When first read: some values are integrated, and most callers draw samples of a few only.
    @functools.cached_property
    def _value(self) -> Bits:
        return information(self.law)

    def sample(
        self, rows: int, *, seed: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "row d_x"], Float[Tensor, "row d_y"]]:
        """``rows`` independent rows of x and y; the same seed draws the same rows.

        Raises:
            InvalidInputError: no rows, a negative seed, or a dtype that is not floating point.
        """
        if rows < 1 or seed < 0:
            raise InvalidInputError(
                f"rows must be 1 or greater and seed 0 or greater, got {rows} and {seed}"
            )
        if not dtype.is_floating_point:
            raise InvalidInputError(f"dtype must be floating point, got {dtype}")
        # A second number in the seed: an estimator may use the plain seed for draws of its own.
        rng = np.random.default_rng([seed, 17])
        shown = []
        drawn = self.law.draw(rows, rng)
        for part, columns, view in zip(drawn, self.pad, (self.map_x, self.map_y), strict=True):
            seen = view(np.concatenate([part, rng.standard_normal((rows, columns))], 1))
            shown.append(torch.from_numpy(standardise(seen) if self.standardised else seen))
        return shown[0].to(dtype), shown[1].to(dtype)

    def through_noise(self, s_x: float, s_y: float) -> Bits | None:
        """Information (and its error) after Gaussian noise on both sides; None if not known.

        ``s_x`` and ``s_y`` are standard deviations per coordinate.
        """
        if s_x == 0 and s_y == 0:
            return self._value
        return None if self.noisy is None else self.noisy(s_x, s_y)
