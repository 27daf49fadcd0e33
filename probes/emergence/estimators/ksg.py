"""Nearest-neighbour mutual information: the estimator ``ksg``.

Kraskov, Stoegbauer and Grassberger, "Estimating mutual information" (Physical Review E 2004), the
first of their two estimators: with eps_i the distance of row i to its k-th neighbour in the joint
space, the larger of its distances in x and in y, and n_x, n_y the numbers of other rows nearer
than eps_i in x and in y,

    I = psi(k) + psi(N) - < psi(n_x + 1) + psi(n_y + 1) >.

Good to about five columns a side; in more it reads low, the more so the stronger the dependence.

What differs from the plain method:
- ``norm="max"`` (the paper's) or ``"euclidean"`` within x and within y; both are right, and the
  second is a matrix product. Default: maximum where trees are fast (6 columns in all), else
  Euclidean;
- columns are brought to one scale first; ``margins="rank"`` makes them normal by their ranks;
- repeated rows: where the k-th neighbour is at distance 0 the counts of equal rows are compared
  directly (Gao, Kannan, Oh and Viswanath, "Estimating mutual information for discrete-continuous
  mixtures", 2017), and the estimate is flagged ``ties``;
- weights: a row counts for ``n w_i`` rows; what it weighs beyond one row is equal rows at
  distance 0. With equal weights this is the formula above to the last digit.

It cannot exceed psi(N) - psi(k), and is flagged ``at-log-n`` within 5% of that.

Cost: up to 6 columns in all, trees: 0.1 s at 5,000 rows. Beyond, and with weights or repeated
rows, all distances: ``n^2 (d_x + d_y)`` operations, 1.5 s at 5,000 rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import digamma
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.base import SATURATED_SHARE
from ed_interp.probes.emergence.estimators.registry import register
from ed_interp.probes.emergence.estimators.tables import DensityEstimator, Margins, scaled

Array = NDArray[np.float64]

TREE_COLUMNS = 6
"""Columns of x and y together up to which trees are faster than all distances."""
_LOG2 = math.log(2)


@register("ksg")
@dataclasses.dataclass(frozen=True, kw_only=True)
class KSG(DensityEstimator):
    """The ``ksg`` estimator; see the module for what it computes and costs."""

    citation = (
        "A. Kraskov, H. Stoegbauer, P. Grassberger: Estimating Mutual Information. "
        "arXiv:cond-mat/0305641"
    )
    flags: ClassVar[dict[str, str]] = {
        "ties": "repeated rows: distances of 0 have no density, so the estimate treats these rows "
        "as a discrete part",
        "at-log-n": "near the largest value that this estimator can return for this many rows",
    }

    neighbours: int = option(3, "Number k of neighbours; more is smoother and reads lower.", min=1)
    norm: Literal["auto", "max", "euclidean"] = option(
        "auto", "Distance within x and within y; auto is max up to 6 columns in all."
    )
    margins: Margins = option(
        "raw", "Columns as they are (raw), or made normal by their ranks (rank)."
    )

    def each_block(
        self, sites: list[Tensor], share: Tensor, *, seed: int, max_bytes: int
    ) -> Iterator[tuple[Tensor, list[str]]]:
        scales = [scaled(site, share.to(site.device), self.margins) for site in sites]
        for x, y in itertools.pairwise(scales):
            if len(share) < 2:
                yield torch.zeros(len(share), dtype=torch.float64), []
                continue
            nats, ties = self._nats(x, y, share, max_bytes)
            terms = torch.from_numpy(nats / _LOG2)
            most = float(digamma(len(share)) - digamma(min(self.neighbours, len(share) - 1)))
            near = float(terms @ share) * _LOG2 >= SATURATED_SHARE * most
            # Ties have a ceiling of their own, the entropy of the labels.
            yield terms, ["ties"] if ties else ["at-log-n"] if near else []

    def _nats(self, x: Tensor, y: Tensor, share: Tensor, max_bytes: int) -> tuple[Array, bool]:
        """Terms of the rows, and whether any has its k-th neighbour at distance 0."""
        if x.shape[1] == 0 or y.shape[1] == 0:
            return np.zeros(len(x)), False
        few = x.shape[1] + y.shape[1] <= TREE_COLUMNS
        norm = ("max" if few else "euclidean") if self.norm == "auto" else self.norm
        mass = share.numpy() * len(share)
        even = bool(np.abs(mass - 1).max() < 1e-9)
        k = min(self.neighbours, len(x) - 1)
        # Trees count rows, so they need equal weights and no neighbour at distance 0.
        if few and norm == "max" and even:
            nats = _by_trees(x.cpu().numpy(), y.cpu().numpy(), k)
            if nats is not None:
                return nats, False
        return _by_distances(x, y, mass, k, norm, max_bytes)


def _by_trees(x: Array, y: Array, k: int) -> Array | None:
    """Terms by k-d trees under the maximum norm; None if a k-th neighbour is at distance 0."""
    joint = KDTree(np.concatenate([x, y], 1))
    # The nearest row of all is the row itself, so its k-th neighbour is the (k + 1)-th nearest.
    radius = np.asarray(joint.query(joint.data, k=[k + 1], p=np.inf)[0])[:, 0]
    if not bool((radius > 0).all()):
        return None
    # Nearer than the radius, not as near: a ball is closed, and sums are rounded.
    inside = radius * (1 - 1e-10)
    # Both counts hold the row itself, which is the "+ 1" of the formula.
    n_x, n_y = _nearer(x, inside), _nearer(y, inside)
    return np.asarray(digamma(k) + digamma(len(x)) - digamma(n_x) - digamma(n_y))


def _nearer(z: Array, radius: Array) -> Array:
    """Number of rows within the radius, the own one included."""
    if z.shape[1] > 1:
        counts = KDTree(z).query_ball_point(z, radius, p=np.inf, return_length=True)
        return np.asarray(counts, dtype=float)
    # A sorted column needs no tree.
    ordered = np.sort(z[:, 0])
    above = np.searchsorted(ordered, z[:, 0] + radius, side="right")
    return np.asarray(above - np.searchsorted(ordered, z[:, 0] - radius, side="left"), dtype=float)


def _by_distances(
    x: Tensor, y: Tensor, mass: Array, k: int, norm: str, max_bytes: int
) -> tuple[Array, bool]:
    rows = len(x)
    weight = torch.from_numpy(mass).to(x.device)
    # Six tables of rows x chunk in float64: distances in x, in y, jointly, and three temporaries.
    size = max(1, max_bytes // (rows * 8 * 6))
    parts = []
    for start in range(0, rows, size):
        here = slice(start, min(rows, start + size))
        parts.append(_chunk(_distances(x, here, norm), _distances(y, here, norm), here, weight, k))
    columns = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    k_near, n_x, n_y, tied = columns
    terms = digamma(k_near) + digamma(rows) - digamma(n_x) - digamma(n_y)
    return np.asarray(terms), bool(tied.any())


def _chunk(
    near_x: Tensor, near_y: Tensor, here: slice, weight: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mass of the neighbourhood and of its shadows in x and y, and whether its radius is 0."""
    own = torch.arange(here.start, here.stop, device=weight.device)
    rows = own - here.start
    joint = torch.maximum(near_x, near_y)
    joint[rows, own] = torch.inf
    radius, index = joint.topk(k, dim=1, largest=False, sorted=True)
    # The own row's weight beyond one row is mass at distance 0, before any neighbour.
    excess = (weight[own] - 1).clamp(min=0)
    reached = excess[:, None] + weight[index].cumsum(1)
    enough = reached >= k - 1e-9
    # Where light neighbours do not add up to k rows, the k-th neighbour is taken all the same.
    enough[:, -1] = True
    # argmax of 0 and 1 is the place of the first 1: the neighbour that completes k rows.
    place = enough.to(torch.int8).argmax(1)
    eps, mass = radius[rows, place], reached[rows, place]
    tied = (eps == 0) | (excess >= k)
    bound, base = torch.where(tied, torch.zeros_like(eps), eps)[:, None], 1 + excess
    shadow = []
    for near in (near_x, near_y):
        near[rows, own] = torch.inf
        inside = torch.where(tied[:, None], near <= bound, near < bound)
        shadow.append(base + inside.to(weight.dtype) @ weight)
    equal = torch.where(joint == 0, weight, torch.zeros_like(weight)).sum(1)
    return torch.where(tied, base + equal, mass), shadow[0], shadow[1], tied


def _distances(z: Tensor, here: slice, norm: str) -> Tensor:
    if norm == "max":
        return torch.cdist(z[here], z, p=math.inf)
    # Squared: neighbours are compared with each other only, so the root can be left out.
    squared = z.square().sum(1)
    product = z[here] @ z.T
    distances = (squared[here, None] + squared - 2 * product).clamp_(min=0)
    # Rounding leaves equal rows at a distance that is not 0.
    distances[distances < 1e-12 * squared.mean()] = 0
    return distances
