"""Populations of known information at the user's own width, for calibration.

Every population has ``d_x`` and ``d_y`` columns of unit scale over all, like layer-normed states,
and tells a given number of bits. Only a few directions tell anything; the directions' variances
fall off like ``1 / sqrt(i)`` and those that tell are spread over the larger ones, then everything
is rotated, so that no single column is special. Families:

- ``gaussian``: up to 8 correlated pairs of directions;
- ``student``: long tails; half of the information lies in the scale that x and y share;
- ``nonlinear``: the Gaussian through monotone maps of every column, others for x than for y;
- ``mixture``: the Gaussian hidden behind a fifth of rows in which x and y are independent;
- ``clusters``: tight clouds; y's cloud mostly follows from x's;
- ``deterministic``: few distinct rows that repeat, y a one-to-one function of x.

Cost: a rotation of ``d^3`` operations once per width, half a second for the values of a mixture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.probes.emergence.truth import maps
from ed_interp.probes.emergence.truth.known import Bits, KnownInformation, known
from ed_interp.probes.emergence.truth.laws import (
    Canonical,
    Clusters,
    Mixture,
    information,
    integrate,
    least_distance,
    mixture,
    student_extra_bits,
    table_bits,
)

Array = NDArray[np.float64]

DEFAULT_BITS = (0.0, 1.0, 2.0, 4.0, 8.0)
FAMILIES = ("gaussian", "student", "nonlinear", "mixture", "clusters", "deterministic")

_PAIRS = 8
_MIXED_PAIRS = 2
_INLIERS = 0.2
_NOISY_ROWS = 20_000
_MOST_BITS = 12.0
_WIDEST_CLOUD = 0.2


def calibration_tasks(
    d_x: int,
    d_y: int | None = None,
    *,
    bits: Sequence[float] = DEFAULT_BITS,
    families: Sequence[str] | None = None,
) -> tuple[KnownInformation, ...]:
    """Populations of that width at those true values, family by family.

    Information 0 is one population: independent Gaussians, in family ``gaussian``.

    Args:
        d_x: columns of x.
        d_y: columns of y; as many as x unless given.
        bits: true values. Clusters have whole numbers of clouds, so that ``deterministic`` tells
            ``log2`` of the nearest number; every population's own ``bits`` are what it tells.
        families: some of :data:`FAMILIES`; all by default.

    Raises:
        InvalidInputError: widths below 1, values below 0 or above 12 bits.
        UnknownNameError: no such family.
    """
    width_y = d_x if d_y is None else d_y
    if d_x < 1 or width_y < 1:
        raise InvalidInputError(
            f"calibration needs at least 1 column a side, found {d_x}, {width_y}"
        )
    if not bits or any(not (math.isfinite(b) and 0 <= b <= _MOST_BITS) for b in bits):
        raise InvalidInputError(
            f"bits={list(bits)}: true values between 0 and {_MOST_BITS:.0f} are expected"
        )
    asked = FAMILIES if families is None else tuple(families)
    for family in asked:
        if family not in FAMILIES:
            raise unknown("family", family, FAMILIES)
    makers: dict[str, Callable[[int, int, float], KnownInformation]] = {
        "gaussian": _gaussian,
        "student": _student,
        "nonlinear": _nonlinear,
        "mixture": _mixture,
        "clusters": _clusters,
        "deterministic": _deterministic,
    }
    return tuple(
        makers[family](d_x, width_y, value)
        for family in asked
        for value in sorted(set(map(float, bits)))
        if value > 0 or family == "gaussian"
    )


def _gaussian(d_x: int, d_y: int, bits: float) -> KnownInformation:
    pairs = min(_PAIRS, d_x, d_y)
    law = _pairs_law(pairs, bits)
    pad = (d_x - pairs, d_y - pairs)
    scales = _scales(d_x, pairs), _scales(d_y, pairs)

    def noisy(s_x: float, s_y: float) -> Bits:
        rho = np.array(law.correlations) * _kept(scales, pairs, s_x, s_y)
        return float(-0.5 * np.log2(1 - rho**2).sum()) + 0.0, 0.0

    return known(
        f"gaussian-{bits:g}",
        "gaussian",
        law,
        pad=pad,
        map_x=maps.affine(scales[0], seed=1),
        map_y=maps.affine(scales[1], seed=2),
        noisy=noisy,
    )


def _student(d_x: int, d_y: int, bits: float) -> KnownInformation:
    # The shared scale tells the more the fewer degrees of freedom: find those that tell half.
    def excess(log_dof: float) -> float:
        return student_extra_bits(math.exp(log_dof), d_x, d_y) - bits / 2

    low, high = math.log(3.0), math.log(1e6)
    dof = math.exp(brentq(excess, low, high)) if excess(low) > 0 else math.exp(low)
    pairs = min(_PAIRS, d_x, d_y)
    rest = bits - student_extra_bits(dof, d_x, d_y)
    law = Canonical(_pairs_law(pairs, rest).correlations, d_x, d_y, dof)
    return known(
        f"student-{bits:g}",
        "student",
        law,
        map_x=maps.affine(_scales(d_x, pairs), seed=1),
        map_y=maps.affine(_scales(d_y, pairs), seed=2),
    )


def _nonlinear(d_x: int, d_y: int, bits: float) -> KnownInformation:
    pairs = min(_PAIRS, d_x, d_y)
    return known(
        f"nonlinear-{bits:g}",
        "nonlinear",
        _pairs_law(pairs, bits),
        pad=(d_x - pairs, d_y - pairs),
        map_x=maps.compose(maps.affine(_scales(d_x, pairs), seed=1), maps.wiggly_x),
        map_y=maps.compose(maps.affine(_scales(d_y, pairs), seed=2), maps.half_cube),
    )


def _mixture(d_x: int, d_y: int, bits: float) -> KnownInformation:
    pairs = min(_MIXED_PAIRS, d_x, d_y)
    rho = _mixture_correlation(pairs, bits)
    scales = _scales(d_x, pairs), _scales(d_y, pairs)

    def noisy(s_x: float, s_y: float) -> Bits:
        return information(_hidden(rho * _kept(scales, pairs, s_x, s_y)))

    return known(
        f"mixture-{bits:g}",
        "mixture",
        _hidden(np.full(pairs, rho)),
        pad=(d_x - pairs, d_y - pairs),
        map_x=maps.affine(scales[0], seed=1),
        map_y=maps.affine(scales[1], seed=2),
        noisy=noisy,
    )


def _clusters(d_x: int, d_y: int, bits: float) -> KnownInformation:
    count = 2 ** (math.ceil(bits) + 1)

    def table(share: float) -> Array:
        even = np.full((count, count), (1 - share) / count**2)
        return np.asarray(even + share * np.eye(count) / count)

    share = brentq(lambda one: table_bits(table(one)) - bits, 0.0, 1.0)
    return _clouds(f"clusters-{bits:g}", "clusters", table(share), d_x, d_y, radius=1 / 24)


def _deterministic(d_x: int, d_y: int, bits: float) -> KnownInformation:
    count = max(2, round(2**bits))
    table = np.eye(count) / count
    return _clouds(f"deterministic-{bits:g}", "deterministic", table, d_x, d_y, radius=0.0)


def _clouds(
    name: str, family: str, table: Array, d_x: int, d_y: int, *, radius: float
) -> KnownInformation:
    centres = [_centres(len(table), width, seed) for seed, width in ((1, d_x), (2, d_y))]
    # In many columns the centres are so far apart that the clouds would outweigh them.
    radii = [min(_WIDEST_CLOUD, radius * least_distance(points)) for points in centres]
    law = Clusters(table, centres[0], centres[1], radii[0], radii[1])

    def noisy(s_x: float, s_y: float) -> Bits:
        seen = Clusters(
            table, centres[0], centres[1], math.hypot(radii[0], s_x), math.hypot(radii[1], s_y)
        )
        exact = seen.exact_bits()
        return (exact, 0.0) if exact is not None else integrate(seen, rows=_NOISY_ROWS)

    return known(name, family, law, noisy=noisy)


def _pairs_law(pairs: int, bits: float) -> Canonical:
    """Equal correlations that tell ``bits`` together."""
    rho = math.sqrt(1 - 2 ** (-2 * max(0.0, bits) / pairs))
    return Canonical((rho,) * pairs, pairs, pairs)


def _scales(width: int, pairs: int) -> Array:
    """Standard deviations, those of the telling directions first; of mean square 1."""
    spectrum = 1 / np.sqrt(np.arange(1, width + 1))
    spectrum *= width / spectrum.sum()
    step = 2 if width >= 2 * pairs else 1
    telling = np.arange(pairs) * step
    rest = np.setdiff1d(np.arange(width), telling)
    return np.asarray(np.sqrt(spectrum[np.concatenate([telling, rest])]))


def _kept(scales: tuple[Array, Array], pairs: int, s_x: float, s_y: float) -> Array:
    """The factor by which noise lowers each correlation: signal over signal and noise."""
    factor = np.ones(pairs)
    for one, s in zip(scales, (s_x, s_y), strict=True):
        factor *= one[:pairs] / np.sqrt(one[:pairs] ** 2 + s**2)
    return factor


def _hidden(rho: Array) -> Mixture:
    """Correlated pairs, in all rows but a share of inliers without any."""
    pairs = len(rho)
    signal = np.eye(2 * pairs)
    place = np.arange(pairs)
    signal[place, pairs + place] = signal[pairs + place, place] = rho
    zero = [0.0] * (2 * pairs)
    return mixture([zero, zero], [signal, np.eye(2 * pairs)], pairs, [1 - _INLIERS, _INLIERS])


@functools.lru_cache(maxsize=64)
def _mixture_correlation(pairs: int, bits: float) -> float:
    """Correlation at which the hidden Gaussian tells about ``bits`` (its value is worked out)."""

    def excess(log_gap: float) -> float:
        law = _hidden(np.full(pairs, math.sqrt(-math.expm1(-log_gap))))
        return integrate(law, rows=10_000)[0] - bits

    return math.sqrt(-math.expm1(-brentq(excess, 1e-6, 27.0, xtol=1e-3)))


@functools.lru_cache(maxsize=32)
def _centres(count: int, width: int, seed: int) -> Array:
    """Well separated points of unit scale: a lattice in few columns, random in many."""
    if width < 16:
        side = math.ceil(count ** (1 / width) - 1e-9)
        places = np.arange(count)[:, None] // side ** np.arange(width)[None] % side
        # A lattice in the order of its points would show y as a monotone map of x.
        points = np.random.default_rng([seed, count]).permutation(places).astype(np.float64)
    else:
        points = np.random.default_rng([seed, count, width]).standard_normal((count, width))
    points -= points.mean(0)
    return np.asarray(points / math.sqrt(float((points**2).mean())))
