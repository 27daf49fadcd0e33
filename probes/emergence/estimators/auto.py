"""The estimator that fits the regime: ``auto``.

No estimator is right everywhere, but the cheap ones are wrong on a known side:

- ``ksg`` reads low, more so with columns and dependence: used up to 6 columns in all;
- ``latent`` reads low, as its codes keep only part: used at any width;
- ``gaussian`` sees linear dependence alone, at any width, without loss; used with raw columns and
  with columns made normal by their ranks. Where the rows are not Gaussian it may read high
  (clusters are the extreme case), so it is believed only as far as the bound of Donsker and
  Varadhan (1975) allows: I >= E[f] - log E'[exp f] for any f, here the Gaussian log density
  ratio, with E' over rows paired at random; the second term is 0 where the Gaussian is right, and
  what exceeds 0 is subtracted.

The rule: with repeated rows (a twentieth of them or more) ``ksg``, which counts them; else the
largest of the four. The largest of several noisy values reads up to one standard error high where
they agree. ``settings`` names the one that was chosen; blocks whose choice differs are less
comparable than blocks of one estimator.

Cost: that of the four: 0.6 s a block at n = 5,000.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.probes.emergence.estimators.base import (
    DEFAULT_MAX_BYTES,
    Estimator,
    Terms,
    check_pair,
)
from ed_interp.probes.emergence.estimators.gaussian import Gaussian, log_mean_ratio
from ed_interp.probes.emergence.estimators.ksg import KSG, TREE_COLUMNS
from ed_interp.probes.emergence.estimators.latent import Latent
from ed_interp.probes.emergence.estimators.registry import register
from ed_interp.probes.emergence.estimators.rows import counted_rows, equal_rows, population_weights
from ed_interp.probes.emergence.estimators.tables import Margins

_REPEATED = 0.05
# Rows whose random pairs check the Gaussian: two million pairs.
_PAIRED_ROWS = 1500


@register("auto")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Auto(Estimator):
    """The ``auto`` estimator; see the module for its rule."""

    citation = "; ".join((KSG.citation, Latent.citation))
    flags: ClassVar[Mapping[str, str]] = {**Gaussian.flags, **KSG.flags, **Latent.flags}

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
        """As for any; ``seed`` is that of ``latent`` and of the pairs that check the Gaussian."""
        check_pair(x, y)
        _, _, sides = counted_rows((x, y), population_weights(weights, (), len(x)))
        distinct = [len(torch.unique(equal_rows(side))) for side in sides]
        terms: dict[str, Terms] = {}
        few = x.shape[1] + y.shape[1] <= TREE_COLUMNS
        repeated = min(distinct) <= (1 - _REPEATED) * len(sides[0])
        if not repeated:
            for margins in ("raw", "rank"):
                terms[f"gaussian-{margins}"] = _bounded(x, y, weights, seed, margins)
            terms["latent"] = Latent().pair(x, y, weights=weights, seed=seed, max_bytes=max_bytes)
        if repeated or few:
            terms["ksg"] = KSG().pair(x, y, weights=weights, seed=seed, max_bytes=max_bytes)
        values = {name: float(one.bits[0]) for name, one in terms.items()}
        best = terms[max(values, key=lambda name: values[name])]
        settings = self.recorded(tried=values, chosen=dict(best.settings))
        return dataclasses.replace(best, settings=settings)


def _bounded(x: Tensor, y: Tensor, weights: Tensor | None, seed: int, margins: Margins) -> Terms:
    """The Gaussian estimate, less the logarithm by which its ratio fails to average to 1."""
    terms = Gaussian(margins=margins).pair(x, y, weights=weights)
    counted = (terms.weights > 0).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(
        terms.weights[counted].float(), _PAIRED_ROWS, replacement=True, generator=generator
    )
    excess = log_mean_ratio(x, y, terms.weights, counted[chosen], margins)
    return dataclasses.replace(terms, terms=terms.terms - max(0.0, excess) / math.log(2))
