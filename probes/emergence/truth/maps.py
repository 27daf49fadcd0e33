"""Invertible maps: they change how a population looks, and not its information.

Mutual information is unchanged by any map of x alone, or of y alone, that can be undone. All
take and return ``row d`` arrays. Formulas of the benchmark's maps are from Czyz, Grabowski, Vogt,
Beerenwinkel and Marx, "Beyond Normal: On the Evaluation of Mutual Information Estimators"
(NeurIPS 2023) and its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Map = Callable[[Array], Array]


def compose(*maps: Map) -> Map:
    """The maps one after another, the first one first."""
    return lambda x: reduce(lambda rows, one: one(rows), maps, x)


asinh: Map = np.arcsinh
"""Shortens long tails, coordinate by coordinate."""
normal_cdf: Map = ndtr
"""Uniform margins from standard normal ones."""


def half_cube(x: Array) -> Array:
    """``x sqrt(|x|)``: lengthens tails."""
    return np.asarray(x * np.sqrt(np.abs(x)))


def wiggly_x(x: Array) -> Array:
    """A monotone wiggle: its derivative lies between 0.16 and 1.84."""
    return np.asarray(
        x + 0.4 * np.sin(x) + 0.2 * np.sin(1.7 * x + 1) + 0.03 * np.sin(3.3 * x - 2.5)
    )


def wiggly_y(x: Array) -> Array:
    """Another monotone wiggle."""
    return np.asarray(
        x - 0.4 * np.sin(0.4 * x) + 0.17 * np.sin(1.3 * x + 3.5) + 0.02 * np.sin(4.3 * x - 2.5)
    )


def bimodal(x: Array) -> Array:
    """Two bumps at +-1 from a standard normal coordinate, by the quantiles of their mixture."""
    # Linear between the points of a table that rises everywhere: itself an invertible map.
    grid = np.linspace(-4.5, 4.5, 20_001)
    levels = 0.5 * ndtr((grid + 1) / 0.4) + 0.5 * ndtr((grid - 1) / 0.4)
    return np.asarray(np.interp(ndtr(x), levels, grid))


def swiss_roll(x: Array) -> Array:
    """One column in (0, 1) rolled up in the plane."""
    turn = 1.5 * math.pi * (1 + 2 * x[:, :1])
    return np.concatenate([turn * np.cos(turn), turn * np.sin(turn)], 1) / 21


def spiral(first: int, second: int, speed: float) -> Map:
    """Turns two coordinates by an angle that grows with the squared length of the row."""

    def run(x: Array) -> Array:
        angle = speed * (x**2).sum(1)
        turned = x.copy()
        turned[:, first] = np.cos(angle) * x[:, first] - np.sin(angle) * x[:, second]
        turned[:, second] = np.sin(angle) * x[:, first] + np.cos(angle) * x[:, second]
        return turned

    return run


def waves(x: Array) -> Array:
    """Shears the first of two columns by a sine of the second."""
    first = 0.1 * (x[:, 0] + 5 * np.sin(3 * x[:, 1])) - 0.8
    return np.stack([first, 0.5 * x[:, 1]], 1)


def affine(scales: Array, *, seed: int) -> Map:
    """Coordinates stretched by ``scales``, then turned by a random rotation."""
    return lambda x: np.asarray((x * scales) @ rotation(len(scales), seed))


@lru_cache(maxsize=8)
def rotation(width: int, seed: int) -> Array:
    """A random orthogonal matrix (not to be written to)."""
    drawn = np.random.default_rng([seed, width, 5]).standard_normal((width, width))
    q, r = np.linalg.qr(drawn)
    # The signs of the diagonal are the library's choice; positive, the matrix is unique.
    return np.asarray(q * np.sign(np.diag(r)))


def standardise(x: Array) -> Array:
    """Every column with mean 0 and standard deviation 1 over the sample."""
    spread = x.std(0)
    return np.asarray((x - x.mean(0)) / np.where(spread > 0, spread, 1))
