"""The ground-truth suite: populations on which estimators of mutual information are compared.

``ground_truth_tasks()`` draws the 26 tasks of version 2 of the ``benchmark-mi`` suite again from
their definitions (Czyz and others, "Beyond Normal", NeurIPS 2023, and "On the Properties and
Estimation of Pointwise Mutual Information Profiles", 2023), each column standardised as there;
``extended=True`` adds tasks of its first version and discrete populations. Nothing of that package
is needed or used.

Cost: about five seconds for the values of the mixtures, once per process.
"""

from __future__ import annotations

import functools

import numpy as np

import ed_interp.probes.emergence.truth.laws as laws
import ed_interp.probes.emergence.truth.maps as maps
from ed_interp.probes.emergence.truth.known import KnownInformation

# Correlation of the two interacting pairs: a shared part of variance 4 and noise of variance 1.
_PAIR = 0.8


def ground_truth_tasks(*, extended: bool = False) -> tuple[KnownInformation, ...]:
    """The suite, in its order; with ``extended`` also tasks beyond its version 2."""
    return (*_version_2(), *(_further() if extended else ()))


@functools.lru_cache(maxsize=1)
def _version_2() -> tuple[KnownInformation, ...]:
    # Twelve posts in x; y says which of four rows a post is in.
    posts = [[1.5 * post, 0, 1.5 * (post % 4)] for post in range(12)]
    fence = laws.mixture(posts, [np.diag([0.1, 1, 0.1])] * 12, 2)
    # Two unit balls at distance 3 in every coordinate.
    balls = laws.mixture([[-1.5] * 3, [1.5] * 3], [np.eye(3)] * 2, 2)
    pair3, pair5, pair25 = (laws.Canonical((_PAIR, _PAIR), d, d) for d in (3, 5, 25))
    uniform = maps.compose(maps.normal_cdf, maps.swiss_roll)
    binormal = laws.Canonical((0.75,), 1, 1)
    scaled = functools.partial(KnownInformation, standardised=True)
    tails = functools.partial(scaled, map_x=maps.asinh, map_y=maps.asinh)
    tasks = [
        scaled("additive-1x1-0.75", "nonlinear", laws.AdditiveUniform(0.75)),
        tails("student-asinh-1x1-dof1", "student", laws.Canonical((), 1, 1, 1.0)),
        scaled("x-1x1", "mixture", _crossed()),
        scaled("ai-1x1", "mixture", _letters()),
        scaled(
            "swiss-roll-2x1", "nonlinear", binormal, map_x=uniform, map_y=maps.normal_cdf, columns=2
        ),
        scaled("waves-2x1", "mixture", fence, map_x=maps.waves),
        scaled("galaxy-2x1", "mixture", balls, map_x=maps.spiral(0, 1, 0.5)),
    ]
    tasks += [
        scaled(f"concentric-{d}x1-{count}", "mixture", _concentric(d, count))
        for d, count in ((3, 5), (5, 5), (3, 10), (5, 10), (25, 5))
    ]
    tasks += [
        scaled(f"normal-dense-{d}x{d}", "gaussian", laws.gaussian(_dense(2 * d), d))
        for d in (5, 25, 50)
    ]
    tasks += [
        scaled(f"normal-2pair-{law.d_x}x{law.d_y}", "gaussian", law) for law in (pair5, pair25)
    ]
    tasks += [
        scaled(f"inliers-{d}x{d}-{share}", "mixture", _inliers(share), pad=(d - 2, d - 2))
        for share in (0.2, 0.5)
        for d in (5, 25)
    ]
    tasks += [
        tails(f"student-asinh-{d}x{d}-dof{dof}", "student", laws.Canonical((), d, d, float(dof)))
        for d, dof in ((2, 1), (3, 2), (5, 2))
    ]
    tasks += [
        scaled(
            f"spiral-{law.d_x}x{law.d_y}",
            "nonlinear",
            law,
            map_x=maps.spiral(0, 1, 1 / law.d_x),
            map_y=maps.spiral(1, 2, 1 / law.d_y),
        )
        for law in (pair3, pair5)
    ]
    return tuple(tasks)


def _further() -> list[KnownInformation]:
    task = KnownInformation
    binormal = laws.Canonical((0.75,), 1, 1)
    pair5, pair25 = (laws.Canonical((_PAIR, _PAIR), d, d) for d in (5, 25))
    tasks = [
        task("normal-1x1-0.75", "gaussian", binormal),
        task("additive-1x1-0.1", "nonlinear", laws.AdditiveUniform(0.1)),
        task("bimodal-1x1", "nonlinear", binormal, map_x=maps.bimodal, map_y=maps.bimodal),
        task("wiggly-1x1", "nonlinear", binormal, map_x=maps.wiggly_x, map_y=maps.wiggly_y),
        task("student-1x1-dof1", "student", laws.Canonical((), 1, 1, 1.0)),
        task("student-2pair-5x5-dof5", "student", laws.Canonical((_PAIR, _PAIR), 5, 5, 5.0)),
        task("student-2pair-25x25-dof5", "student", laws.Canonical((_PAIR, _PAIR), 25, 25, 5.0)),
        task("normal-dense-2x5", "gaussian", laws.gaussian(_dense(2 + 5), 2)),
    ]
    tasks += [
        task(f"{name}-{law.d_x}x{law.d_y}", "nonlinear", law, map_x=view, map_y=view)
        for name, view in (("normal-cdf", maps.normal_cdf), ("half-cube", maps.half_cube))
        for law in (binormal, pair5, pair25)
    ]
    codes = np.eye(16)
    pairs = np.eye(16).reshape(16, 8, 2).sum(2) / 16
    return [
        *tasks,
        task("copy-16x16", "deterministic", laws.Clusters(codes / 16, codes, codes, 0.0, 0.0)),
        task("merge-16x8", "deterministic", laws.Clusters(pairs, codes, codes[:8, :8], 0.01, 0.01)),
    ]


def _dense(width: int) -> laws.Array:
    """Covariance of columns that all have correlation 0.5."""
    return 0.5 + 0.5 * np.eye(width)


def _crossed() -> laws.Mixture:
    """Two bivariate normals of correlation 0.9 and -0.9: no correlation in all."""
    parts = [np.array([[1, rho], [rho, 1]]) for rho in (0.9, -0.9)]
    return laws.mixture([[0, 0], [0, 0]], parts, 1)


def _letters() -> laws.Mixture:
    """Six normals that draw the letters A and I."""
    slope = 0.95 * float(np.sqrt(0.04 * 0.2))
    return laws.mixture(
        [[1, 0], [1, 1], [1, -1], [-0.8, -0.2], [-1.2, 0], [-0.4, 0]],
        [
            *map(np.diag, ([0.01, 0.2], [0.05, 0.001], [0.05, 0.001], [0.03, 0.001])),
            *(np.array([[0.04, tilt], [tilt, 0.2]]) for tilt in (slope, -slope)),
        ],
        1,
    )


def _concentric(d: int, count: int) -> laws.Mixture:
    """Spheres of radius 1, 2, ... around one centre; y says which."""
    radii = range(1, count + 1)
    return laws.mixture(
        [[0] * d + [radius] for radius in radii],
        [np.diag([radius**2] * d + [1e-4]) for radius in radii],
        d,
    )


def _inliers(share: float) -> laws.Mixture:
    """Two correlated pairs, hidden behind a share of rows in which x and y are independent."""
    signal = np.kron([[1, _PAIR], [_PAIR, 1]], np.eye(2))
    return laws.mixture([[0.0] * 4] * 2, [signal, np.eye(4)], 2, [1 - share, share])
