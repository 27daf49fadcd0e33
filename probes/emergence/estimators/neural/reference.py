r"""What a critic starts from: sides made normal and white, and the ratio of fitted Gaussians.

In white canonical coordinates (u_i, v_i), whose correlations are s_i, the ratio of the fitted
Gaussians is a sum over pairs of coordinates (Gelfand and Yaglom 1957):

    g(x, y) = sum_i [ -1/2 ln(1 - s_i^2) - (s_i^2 (u_i^2 + v_i^2) - 2 s_i u_i v_i)
                      / (2 (1 - s_i^2)) ]

Directions come from the rows to train on and correlations from the rows to stop by, shrunk by the
positive-part rule s (1 - 1 / (n s^2))_+ : correlations of fitted directions with the rows they were
fitted on are far too high (Abadir, Distaso, Zikes 2014, use such a split for covariances).

A held-out value of the fitted ratio still falls short of the information by what the fit missed,
about d_x d_y / 2n nats: half a nat of two at 64 dimensions and 5,000 rows. So ``heldout`` replaces
the held-out mean of g by an unbiased value of it, :func:`gaussian_nats`.

Mutual information does not change under one-to-one maps of either side, so both are brought to the
form in which a Gaussian reference fits best and a critic trains best: every coordinate replaced by
the normal score of its rank (which makes monotone maps and heavy tails harmless), then turned to
the principal components and divided by their standard deviations. Only the leading components are
kept: that can lose information, never add any (data processing).

The maps are found from all rows of a side, held out or not, but never look at which x goes with
which y: what is held out is the pairing. Cost of white sides: a sort of every column and one
eigendecomposition of min(row, d) squared.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Marginals = Literal["normal", "raw"]

ROWS_PER_COMPONENT = 8
# Share of the largest variance below which a component is rounding error.
_LEAST = 1e-10
# Largest correlation, so that a copy has finite information.
_HIGHEST = 1 - 1e-9
# Largest correlation of the fitted ratio, whose products must not lose their digits in float32.
_STEEPEST = 1 - 1e-4

Table = Float[Tensor, "row d"]
White = Float[Tensor, "member row component"]
Shares = Float[Tensor, "member row"]


def white(
    x: Table, weights: Float[Tensor, "row"], *, components: int, marginals: Marginals
) -> Float[Tensor, "row component"]:
    """White coordinates, float64, padded with zeros to ``components`` columns.

    At most as many are used as there are directions with variance, and one for every
    ``ROWS_PER_COMPONENT`` rows (by their effective number, 1 / sum w^2). Weights are above 0 and
    sum to 1; marginals are ``normal`` scores, or the values as they are (``raw``).
    """
    table = x.detach().double()
    if marginals == "normal":
        table = normal_scores(table, weights)
    table = table - weights @ table
    scaled = table * weights.sqrt()[:, None]
    rows, width = scaled.shape
    # The smaller of the two Gram matrices has all eigenvalues that are not 0.
    narrow, tiny = width <= rows, torch.finfo(torch.float64).tiny
    variance, axes = torch.linalg.eigh(scaled.mT @ scaled if narrow else scaled @ scaled.mT)
    if not narrow:
        axes = scaled.mT @ (axes / variance.clamp(min=tiny).sqrt())
    effective = 1 / float(weights.square().sum())
    used = min(components, max(1, int(effective / ROWS_PER_COMPONENT + 1e-6)))
    variance, axes = variance.flip(0)[:used], axes.flip(1)[:, :used]  # the largest first
    kept = variance > _LEAST * variance[0].clamp(min=tiny)
    scores = table @ axes[:, kept] / variance[kept].sqrt()
    # The sign of an eigenvector is the library's choice; fixed here by the largest entry.
    largest = axes[:, kept].abs().argmax(0)
    scores = scores * axes[largest, torch.nonzero(kept)[:, 0]].sign()
    return torch.nn.functional.pad(scores, (0, components - scores.shape[1]))


def normal_scores(x: Table, weights: Float[Tensor, "row"]) -> Table:
    """Every column replaced by the normal quantile of its weighted mid-rank; ties share one."""
    columns = x.mT.contiguous()
    ordered, order = columns.sort(1)
    # below[i]: the weight of the i smallest values. A value's rank lies halfway between the weight
    # below the run of its equals and that up to its end.
    below = torch.nn.functional.pad(weights[order].cumsum(1), (1, 0))
    left = torch.searchsorted(ordered, columns, right=False)
    right = torch.searchsorted(ordered, columns, right=True)
    share = (below.gather(1, left) + below.gather(1, right)) / (2 * below[:, -1:])
    scores: Tensor = torch.special.ndtri(share)
    return scores.mT


@dataclasses.dataclass(frozen=True)
class Reference:
    """The ratio g as ``left . y + of_x + of_y``, for the rows of every member."""

    x: White
    """Canonical coordinates of the x side."""
    y: White
    left: Float[Tensor, "member component"]
    """Factors s / (1 - s^2) of the products u v."""
    of_x: Float[Tensor, "member row"]
    """The part of g that depends on x alone, with the constant."""
    of_y: Float[Tensor, "member row"]

    def joint(self) -> Float[Tensor, "member row"]:
        """G of the pairs that belong together."""
        return (self.x * self.left[:, None] * self.y).sum(-1) + self.of_x + self.of_y


def no_reference(x: White, y: White) -> Reference:
    """G = 0, in the coordinates as they are."""
    nothing = x.new_zeros(x.shape[:2])
    return Reference(x, y, x.new_zeros(len(x), x.shape[2]), nothing, nothing)


def fit_reference(x: White, y: White, train: Shares, stop: Shares) -> Reference:
    """Fit g for every member, of sides of one width in float64.

    Directions are determined by the rows with weights in ``train``, correlations by ``stop``.
    """
    left, _, right = torch.linalg.svd(_cross(x, y, train))
    u, v = x @ left, y @ right.mT
    share = (stop / stop.sum(1, keepdim=True))[..., None]
    spread = (share * u * u).sum(1) * (share * v * v).sum(1)
    fitted = (share * u * v).sum(1) / spread.clamp(min=1e-12).sqrt()
    noise = share[..., 0].square().sum(1)[:, None]
    # A negative one on other rows contradicts the direction: it is noise.
    kept = fitted.clamp(min=0, max=_STEEPEST)
    # In the limit of a correlation of 1 the sampling error vanishes as (1 - s^2)^2.
    shrunk = kept * (1 - noise * (1 - kept**2) ** 2 / kept.square().clamp(min=1e-12)).clamp(min=0)
    rest = 1 - shrunk**2
    quadratic = (-(shrunk**2) / (2 * rest))[:, None]
    constant = -0.5 * rest.log().sum(1, keepdim=True)
    of_x, of_y = (quadratic * u * u).sum(-1) + constant, (quadratic * v * v).sum(-1)
    return Reference(u, v, shrunk / rest, of_x, of_y)


def gaussian_nats(x: White, y: White, weights: Shares) -> Float[Tensor, "member"]:
    """Information of the Gaussian with these covariances in nats, without the sample's bias."""
    # The expected log determinant of a Wishart matrix of n - 1 degrees of freedom and width d is
    # that of its mean plus sum_i psi((n - i) / 2) for i = 1 to d and constants that cancel here, so
    # the plug-in value is too high by (p(d_x) + p(d_y) - p(d_x + d_y)) / 2 with p those sums,
    # exactly, whatever the correlations (for weights: n = 1 / sum w^2, approximately).
    squares = torch.linalg.svdvals(_cross(x, y, weights)).clamp(max=_HIGHEST).square()
    plug_in = -0.5 * torch.log1p(-squares).sum(-1)
    rows = 1 / weights.square().sum(-1)
    # Padding columns are 0 in every row and have no share in the bias.
    widths = [(side.square().sum(1) > 0).sum(-1) for side in (x, y)]
    first, second, both = (_digammas(rows, width) for width in (*widths, widths[0] + widths[1]))
    return plug_in - (first + second - both) / 2


def _digammas(rows: Float[Tensor, "member"], widths: Tensor) -> Float[Tensor, "member"]:
    steps = torch.arange(1, int(widths.max()) + 1, device=rows.device)
    values = torch.digamma(((rows[:, None] - steps) / 2).clamp(min=0.5))
    return (values * (steps <= widths[:, None])).sum(1)


def _cross(x: Tensor, y: Tensor, weights: Tensor) -> Float[Tensor, "member d_x d_y"]:
    share = weights / weights.sum(1, keepdim=True)
    return (x * share[..., None]).mT @ y
