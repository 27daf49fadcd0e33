"""Information between low-dimensional codes that predict each other: the estimator ``latent``.

Nearest neighbours fail in many columns, and most columns tell nothing. So both sides are first
brought down to a few codes that predict each other as well as possible, and the information
between the codes is estimated by ``ksg``. A code is a function of one side alone, so the codes
cannot hold more than the rows do (data-processing inequality).

The idea is that of Gowri, Lun, Klein and Yin, "Approximating mutual information of
high-dimensional variables using learned representations" (LMI, NeurIPS 2024). What differs:
- no network is trained: codes are canonical variates of features (whitened columns, their squared
  length, random Fourier features: Rahimi and Recht 2007; Lopez-Paz and others, "Randomized
  nonlinear component analysis", 2014), found by one decomposition;
- cross-fitting: codes for one half of the rows are found in the other half, so that no row is
  scored by codes that saw it, and all rows get a term;
- as many codes as have a correlation in the other half that chance would not give, at most
  ``codes``; none: the estimate is 0.

Cost: ``n features^2`` twice and KSG on two halves: 1 s at n = 5,000.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.base import (
    DEFAULT_MAX_BYTES,
    PairEstimator,
    Terms,
    check_pair,
)
from ed_interp.probes.emergence.estimators.gaussian import largest_by_chance
from ed_interp.probes.emergence.estimators.ksg import KSG
from ed_interp.probes.emergence.estimators.rows import (
    equal_in_all,
    equal_rows,
    population_entropy,
    population_weights,
)
from ed_interp.probes.emergence.estimators.tables import Whitened, whitened

_RIDGE = 1e-3
_LINEAR = 64
"""Leading principal components that features are made of."""
_BANDS = (0.5, 1.0, 2.0)
"""Widths of the random features, in units of the typical distance of two rows."""
_FEWEST = 20
"""Rows below which there is nothing to fit codes on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent(PairEstimator):
    """The ``latent`` estimator; see the module for what it computes and costs."""

    codes: int = 3
    """Most codes a side."""
    features: int = 96
    """Random features a side, beside the columns."""
    neighbours: int = 3
    """k of the nearest-neighbour estimate between the codes."""

    def __post_init__(self) -> None:
        for what, value in (("codes", self.codes), ("features", self.features)):
            if value < 1:
                raise InvalidInputError(f"{what} must be at least 1, found {value}")

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "latent"

    @torch.no_grad()
    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``: terms of shape ``1 row``.

        Args:
            x: rows of one side.
            y: the same rows of the other side.
            weights: frequencies of the rows.
            seed: of the random features and of the halves.
            max_bytes: working memory.

        Raises:
            InvalidInputError: tables that do not fit, NaN or infinite values, bad weights.
        """
        check_pair(x, y)
        normal = population_weights(weights, (), len(x))
        device = x.device
        counted = (normal > 0).nonzero()[:, 0]
        share = normal[counted].to(device)
        there = counted.to(device)
        terms = torch.zeros(1, len(x), dtype=torch.float64)
        flags: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(seed)
        if len(counted) >= _FEWEST:
            views = [
                self._features(whitened(z[there], share), share, generator)
                for z in (x, y.to(device))
            ]
            for train, test in self._halves(x[there], y[there.to(y.device)], generator):
                found = self._scored(views, share, train.to(device), test.to(device), max_bytes)
                if found is not None:
                    terms[0, counted[test]] = found.terms[0]
                    flags |= {
                        name: flags.get(name, torch.zeros(1).bool()) | mask
                        for name, mask in found.flags.items()
                    }
        return Terms(
            terms=terms,
            weights=normal,
            limit=torch.tensor(population_entropy([x, y], normal), dtype=torch.float64),
            settings={"estimator": self.name, **dataclasses.asdict(self), "seed": seed},
            flags=flags,
        )

    def _halves(
        self, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """(train, test) twice; equal rows stay in one half, so that none is both."""
        first = equal_in_all([equal_rows(x).cpu(), equal_rows(y).cpu()])
        side = torch.rand(len(x), generator=generator)[first]
        middle = side.median()
        low, high = (side <= middle).nonzero()[:, 0], (side > middle).nonzero()[:, 0]
        return [(low, high), (high, low)] if len(high) >= 4 else []

    def _features(self, side: Whitened, share: Tensor, generator: torch.Generator) -> Tensor:
        """Columns, squared length and random Fourier features; each of variance 1."""
        table = side.scores[:, :_LINEAR]
        width = table.shape[1]
        if width == 0:
            return table
        bands = torch.tensor(_BANDS)[torch.arange(self.features) % len(_BANDS)]
        # Two rows of variance 1 in each of d columns are typically sqrt(2 d) apart.
        drawn = torch.randn(width, self.features, generator=generator) / (
            bands * math.sqrt(2 * width)
        )
        phase = 2 * math.pi * torch.rand(self.features, generator=generator)
        waves = torch.cos(table @ drawn.to(table) * 2 + phase.to(table))
        length = table.square().sum(1, keepdim=True).log1p()
        return whitened(torch.cat([table, length, waves], 1), share).scores

    def _scored(
        self,
        views: list[Tensor],
        share: Tensor,
        train: Tensor,
        test: Tensor,
        max_bytes: int,
    ) -> Terms | None:
        """KSG between the codes of the test rows; None where no code is found."""
        weight = share[train] / share[train].sum()
        dof = float(1 / weight.square().sum()) - 1
        most = max(1, math.floor(dof / 4))
        sides = [view[:, :most] for view in views]
        if min(side.shape[1] for side in sides) == 0:
            return None
        means = [weight @ side[train] for side in sides]
        roots = []
        for side, mean in zip(sides, means, strict=True):
            centred = side[train] - mean
            gram = (centred * weight[:, None]).T @ centred
            values, vectors = torch.linalg.eigh(gram)
            roots.append(vectors / (values.clamp(min=0) + _RIDGE).sqrt())
        left, right = (
            (side - mean) @ root for side, mean, root in zip(sides, means, roots, strict=True)
        )
        u, _, v = torch.linalg.svd((left[train] * weight[:, None]).T @ right[train])
        count = min(self.codes, u.shape[1], v.shape[0])
        codes = left[test] @ u[:, :count], right[test] @ v.T[:, :count]
        held = share[test] / share[test].sum()
        held_dof = max(2.0, float(1 / held.square().sum()) - 1)
        scores = [whitened_columns(code, held) for code in codes]
        found = (held[:, None] * scores[0] * scores[1]).sum(0).square()
        kept = found > largest_by_chance(1, 1, held_dof)
        if not bool(kept.any()):
            return None
        return KSG(neighbours=self.neighbours).pair(
            codes[0][:, kept], codes[1][:, kept], weights=held.cpu(), max_bytes=max_bytes
        )


def whitened_columns(
    table: Float[Tensor, "row d"], weights: Float[Tensor, "row"]
) -> Float[Tensor, "row d"]:
    """Every column with weighted mean 0 and variance 1; a constant column becomes zeros."""
    centred = table - weights @ table
    spread = (weights @ centred.square()).sqrt()
    return centred / torch.where(spread > 0, spread, torch.ones_like(spread))
