"""A population whose mutual information is known, from which samples can be drawn.

>>> task = ed_interp.probes.emergence.truth.ground_truth_tasks()[0]  # doctest: +SKIP
>>> x, y = task.sample(5000, seed=0)  # doctest: +SKIP

A population is a law with a known density ratio (:mod:`.laws`), padded with columns of noise that
tell nothing, and shown through maps of x and of y that can be undone (:mod:`.maps`): neither
changes the information.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.truth.laws import Law, information, integrate
from ed_interp.probes.emergence.truth.maps import Map, identity, standardise

Bits = tuple[float, float]
"""A value and its standard error, in bits."""


@dataclasses.dataclass(frozen=True)
class KnownInformation:
    """One population of known mutual information."""

    name: str
    family: str
    """``gaussian``, ``student``, ``nonlinear``, ``mixture``, ``clusters`` or ``deterministic``."""
    d_x: int
    d_y: int
    bits: float
    """The mutual information of x and y."""
    error: float
    """Standard error of `bits`; 0 where it is a closed form."""
    law: Law = dataclasses.field(repr=False)
    pad: tuple[int, int] = (0, 0)
    """Columns of independent standard normal noise behind those of the law, in x and in y."""
    map_x: Map = dataclasses.field(default=identity, repr=False)
    map_y: Map = dataclasses.field(default=identity, repr=False)
    standardised: bool = False
    """Whether every column of a sample is brought to mean 0 and standard deviation 1."""
    noisy: Callable[[float, float], Bits] | None = dataclasses.field(default=None, repr=False)
    """Information left when isotropic Gaussian noise of these standard deviations is added to x
    and y; None where it is not known."""

    def sample(
        self, rows: int, *, seed: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "row d_x"], Float[Tensor, "row d_y"]]:
        """``rows`` independent rows of x and y; the same seed gives the same rows.

        Raises:
            InvalidInputError: no rows, a negative seed, or a dtype that is not floating point.
        """
        if rows < 1 or seed < 0:
            raise InvalidInputError(
                f"a sample needs at least 1 row and a seed of 0 or above, found {rows} rows and "
                f"seed {seed}"
            )
        if not dtype.is_floating_point:
            raise InvalidInputError(f"a sample is floating point, found dtype {dtype}")
        rng = np.random.default_rng([seed, 17])
        shown = []
        drawn = self.law.draw(rows, rng)
        for part, columns, view in zip(drawn, self.pad, (self.map_x, self.map_y), strict=True):
            whole = np.concatenate([part, rng.standard_normal((rows, columns))], 1)
            seen = view(whole)
            shown.append(torch.from_numpy(standardise(seen) if self.standardised else seen))
        return shown[0].to(dtype), shown[1].to(dtype)

    def integrated(self, *, rows: int, seed: int = 0) -> Bits:
        """The value once more, as a Monte Carlo mean of the exact log density ratio."""
        return integrate(self.law, rows=rows, seed=seed)

    def through_noise(self, s_x: float, s_y: float) -> Bits | None:
        """Information (and its error) after Gaussian noise on both sides; None if not known.

        Args:
            s_x: standard deviation of the noise per coordinate of x.
            s_y: the same for y.
        """
        if s_x == 0 and s_y == 0:
            return self.bits, self.error
        return None if self.noisy is None else self.noisy(s_x, s_y)


def known(
    name: str,
    family: str,
    law: Law,
    *,
    pad: tuple[int, int] = (0, 0),
    map_x: Map = identity,
    map_y: Map = identity,
    d_x: int | None = None,
    standardised: bool = False,
    noisy: Callable[[float, float], Bits] | None = None,
) -> KnownInformation:
    """The population of a law, its value worked out (in closed form, or integrated).

    Args:
        name: of the population.
        family: see :class:`KnownInformation`.
        law: of the columns that tell something.
        pad: columns of noise to add.
        map_x: of all columns of x.
        map_y: of all columns of y.
        d_x: columns of x after ``map_x``, if that changes their number.
        standardised: see :class:`KnownInformation`.
        noisy: see :class:`KnownInformation`.
    """
    bits, error = information(law)
    widths = [width + extra for width, extra in zip(law.widths, pad, strict=True)]
    return KnownInformation(
        name=name,
        family=family,
        d_x=d_x or widths[0],
        d_y=widths[1],
        bits=bits,
        error=error,
        law=law,
        pad=pad,
        map_x=map_x,
        map_y=map_y,
        standardised=standardised,
        noisy=noisy,
    )
