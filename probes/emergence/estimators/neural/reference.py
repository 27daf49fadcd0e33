r"""The Gaussian reference: the log density ratio of fitted Gaussians, from which a critic starts.

In white canonical coordinates (u_i, v_i), whose correlations are s_i, the ratio of the fitted
Gaussians is a sum over pairs of coordinates (Gelfand and Yaglom 1957):

    g(x, y) = sum_i [ -1/2 ln(1 - s_i^2) - (s_i^2 (u_i^2 + v_i^2) - 2 s_i u_i v_i)
                      / (2 (1 - s_i^2)) ]

Directions come from the rows to train on and correlations from the rows to stop by, shrunk by the
positive-part rule s (1 - 1 / (n s^2))_+ : correlations of fitted directions with the rows they were
fitted on are far too high (Abadir, Distaso, Zikes 2014, use such a split for covariances).

A held-out value of the fitted ratio still falls short of the information by what the fit missed,
about d_x d_y / 2n nats: half a nat of two at 64 dimensions and 5,000 rows. That part is known: the
information of the Gaussian with the population's covariance is estimated without bias by
:func:`gaussian_nats`, and replaces the held-out mean of g (see ``heldout``).
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

# Largest correlation, so that a copy has finite information.
_HIGHEST = 1 - 1e-9
# Largest correlation of the fitted ratio, whose products must not lose their digits in float32.
_STEEPEST = 1 - 1e-4


@dataclasses.dataclass(frozen=True)
class Reference:
    """The ratio g as ``left . y + of_x + of_y``, for the rows of every member."""

    x: Float[Tensor, "member row component"]
    """Canonical coordinates of the x side."""
    y: Float[Tensor, "member row component"]
    left: Float[Tensor, "member component"]
    """Factors s / (1 - s^2) of the products u v."""
    of_x: Float[Tensor, "member row"]
    """The part of g that depends on x alone, with the constant."""
    of_y: Float[Tensor, "member row"]

    def joint(self) -> Float[Tensor, "member row"]:
        """G of the pairs that belong together."""
        return (self.x * self.left[:, None] * self.y).sum(-1) + self.of_x + self.of_y


def no_reference(
    x: Float[Tensor, "member row component"], y: Float[Tensor, "member row component"]
) -> Reference:
    """G = 0, in the coordinates as they are."""
    nothing = x.new_zeros(x.shape[:2])
    return Reference(x, y, x.new_zeros(len(x), x.shape[2]), nothing, nothing)


def fit_reference(
    x: Float[Tensor, "member row component"],
    y: Float[Tensor, "member row component"],
    train: Float[Tensor, "member row"],
    stop: Float[Tensor, "member row"],
) -> Reference:
    """Fit g for every member.

    Args:
        x: White coordinates, float64.
        y: White coordinates, of the same width.
        train: Weights of the rows that determine directions; 0 elsewhere.
        stop: Weights of the rows that determine correlations; 0 elsewhere.
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
    return Reference(
        x=u,
        y=v,
        left=shrunk / rest,
        of_x=(quadratic * u * u).sum(-1) + constant,
        of_y=(quadratic * v * v).sum(-1),
    )


def gaussian_nats(
    x: Float[Tensor, "pair row component"],
    y: Float[Tensor, "pair row component"],
    weights: Float[Tensor, "pair row"],
) -> Float[Tensor, "pair"]:
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


def _digammas(rows: Float[Tensor, "pair"], widths: Tensor) -> Float[Tensor, "pair"]:
    steps = torch.arange(1, int(widths.max()) + 1, device=rows.device)
    values = torch.digamma(((rows[:, None] - steps) / 2).clamp(min=0.5))
    return (values * (steps <= widths[:, None])).sum(1)


def _cross(x: Tensor, y: Tensor, weights: Tensor) -> Float[Tensor, "member d_x d_y"]:
    share = weights / weights.sum(1, keepdim=True)
    return (x * share[..., None]).mT @ y
