"""Information between low-dimensional codes that predict each other: the estimator ``latent``.

Nearest neighbours fail in many columns, and most columns carry no information. So both sides are
first brought down to a few codes that predict each other as well as possible, and the information
between the codes is estimated by ``ksg``. A code is a function of one side alone, so the codes
cannot hold more than the rows do (data-processing inequality).

The idea is that of Gowri, Lun, Klein and Yin, "Approximating mutual information of
high-dimensional variables using learned representations" (LMI, NeurIPS 2024). What differs:
- no network is trained: codes are canonical variates of features (whitened columns, their squared
  length, random Fourier features: Rahimi and Recht 2007; Lopez-Paz and others, "Randomized
  nonlinear component analysis", 2014), computed by one decomposition;
- cross-fitting: codes for one half of the rows come from the other half, so that no row is scored
  by codes that saw it, and all rows get a term;
- as many codes as have a correlation in the other half that chance would not give, at most
  ``codes``; if there are none, the estimate is 0.

Cost: ``n features^2`` twice and KSG on two halves: 1 s at n = 5,000.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ed_interp.options import option
from ed_interp.probes.emergence.estimators import gaussian
from ed_interp.probes.emergence.estimators.base import Terms
from ed_interp.probes.emergence.estimators.ksg import KSG
from ed_interp.probes.emergence.estimators.registry import register
from ed_interp.probes.emergence.estimators.rows import equal_in_all, equal_rows
from ed_interp.probes.emergence.estimators.tables import DensityEstimator, whitened

# Added to the variances, so that directions without any do not become large codes.
_RIDGE = 1e-3
# Leading principal components that features are made of.
_LINEAR = 64
# Widths of the random features, in units of the typical distance of two rows.
_BANDS = (0.5, 1.0, 2.0)
# Rows below which codes cannot be fitted.
_FEWEST = 20


@register("latent")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent(DensityEstimator):
    """The ``latent`` estimator; see the module for what it computes and costs."""

    citation = (
        "G. Gowri, X.-K. Lun, A. M. Klein, P. Yin: Approximating mutual information of "
        "high-dimensional variables using learned representations. arXiv:2409.02732"
    )
    flags = KSG.flags
    random = True

    codes: int = option(3, "Most codes per side.", min=1)
    features: int = option(96, "Random features per side, added to the columns.", min=1)
    neighbours: int = option(3, "Number of neighbours in the estimate between the codes.", min=1)

    def each_block(
        self, sites: list[Tensor], share: Tensor, *, seed: int, max_bytes: int
    ) -> Iterator[tuple[Tensor, list[str]]]:
        """Terms and flags; ``seed`` draws the random features and the halves."""
        device = sites[0].device
        share = share.to(device)
        for pair in itertools.pairwise(sites):
            generator = torch.Generator().manual_seed(seed)
            terms = torch.zeros(len(share), dtype=torch.float64)
            flags: dict[str, None] = {}
            if len(share) >= _FEWEST:
                views = [self._features(whitened(z, share), share, generator) for z in pair]
                for train, test in self._halves(pair, generator):
                    part = self._scored(views, share, train.to(device), test.to(device), max_bytes)
                    if part is not None:
                        terms[test] = part.terms[0]
                        flags |= dict.fromkeys(part.flags_at(0))
            yield terms, list(flags)

    def _halves(
        self, sides: Sequence[Tensor], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """(train, test) twice; equal rows stay in one half, so that none is both."""
        first = equal_in_all(equal_rows(z).cpu() for z in sides)
        side = torch.rand(len(first), generator=generator)[first]
        middle = side.median()
        low, high = (side <= middle).nonzero()[:, 0], (side > middle).nonzero()[:, 0]
        return [(low, high), (high, low)] if len(high) >= 4 else []

    def _features(self, side: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
        """Columns, squared length and random Fourier features; each of variance 1."""
        table = side[:, :_LINEAR]
        width = table.shape[1]
        if width == 0:
            return table
        bands = torch.tensor(_BANDS)[torch.arange(self.features) % len(_BANDS)]
        # Two rows of variance 1 in each of d columns are typically sqrt(2 d) apart.
        drawn = torch.randn(width, self.features, generator=generator)
        drawn /= bands * math.sqrt(2 * width)
        phase = 2 * math.pi * torch.rand(self.features, generator=generator)
        waves = torch.cos(table @ drawn.to(table) * 2 + phase.to(table))
        length = table.square().sum(1, keepdim=True).log1p()
        return whitened(torch.cat([table, length, waves], 1), share)

    def _scored(
        self, views: list[Tensor], share: Tensor, train: Tensor, test: Tensor, max_bytes: int
    ) -> Terms | None:
        """KSG between the codes of the test rows; None if no code passes."""
        weight = share[train] / share[train].sum()
        # At least 4 rows a feature, or the covariance of the features would be mostly noise.
        most = gaussian.most_components(gaussian.degrees_of_freedom(weight))
        sides = [view[:, :most] for view in views]
        if min(side.shape[1] for side in sides) == 0:
            return None
        whites = []
        for side in sides:
            # Maps from the training rows, applied to all.
            mean = weight @ side[train]
            centred = side[train] - mean
            values, vectors = torch.linalg.eigh((centred * weight[:, None]).T @ centred)
            whites.append((side - mean) @ (vectors / (values.clamp(min=0) + _RIDGE).sqrt()))
        left, right = whites
        u, _, v = torch.linalg.svd((left[train] * weight[:, None]).T @ right[train])
        count = min(self.codes, u.shape[1], v.shape[0])
        codes = left[test] @ u[:, :count], right[test] @ v.T[:, :count]
        held = share[test] / share[test].sum()
        scores = []
        for code in codes:
            # A constant column becomes zeros.
            centred = code - held @ code
            spread = (held @ centred.square()).sqrt()
            scores.append(centred / torch.where(spread > 0, spread, torch.ones_like(spread)))
        correlations = (held[:, None] * scores[0] * scores[1]).sum(0)
        dof = max(2.0, gaussian.degrees_of_freedom(held))
        kept = correlations.square() > gaussian.largest_by_chance(1, 1, dof)
        if not bool(kept.any()):
            return None
        return KSG(neighbours=self.neighbours).pair(
            codes[0][:, kept], codes[1][:, kept], weights=held.cpu(), max_bytes=max_bytes
        )
