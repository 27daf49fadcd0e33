"""The estimator that fits the regime: ``auto``.

No estimator is right everywhere, but the cheap ones are wrong on a known side:

- ``ksg`` reads low, more so with columns and dependence: asked up to 6 columns in all;
- ``latent`` reads low, as its codes keep only part: asked at any width;
- ``gaussian`` sees linear dependence alone, at any width, without loss; asked with raw columns
  and with columns made normal by their ranks. Where the rows are not
  Gaussian it may read high (clusters are the extreme case), so it is believed only as far as the
  bound of Donsker and Varadhan (1975) allows: I >= E[f] - log E'[exp f] for any f, here the
  Gaussian log density ratio, with E' over rows paired at random; the second term is 0 where the
  Gaussian is right, and what exceeds 0 is subtracted.

The rule: with repeated rows (a twentieth of them or more) ``ksg``, which counts them; else the
largest of the four. Largest of several noisy values reads up to one standard error high where they
agree. Which one it was stands in the settings; blocks whose choice differs are less comparable
than blocks of one estimator.

Cost: that of the four: 0.6 s a block at n = 5,000.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.probes.emergence.estimators.base import (
    DEFAULT_MAX_BYTES,
    PairEstimator,
    Terms,
    check_pair,
)
from ed_interp.probes.emergence.estimators.gaussian import Gaussian, log_mean_ratio
from ed_interp.probes.emergence.estimators.ksg import KSG, TREE_COLUMNS
from ed_interp.probes.emergence.estimators.latent import Latent
from ed_interp.probes.emergence.estimators.rows import equal_rows, population_weights

_REPEATED = 0.05
_PAIRED_ROWS = 1500
"""Rows whose random pairs check the Gaussian: two million pairs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auto(PairEstimator):
    """The ``auto`` estimator; see the module for its rule."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "auto"

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
        """Information between ``x`` and ``y``: the terms of the estimator that the rule chooses.

        Raises:
            InvalidInputError: tables that do not fit, NaN or infinite values, bad weights.
        """
        check_pair(x, y)
        asked: dict[str, Any] = {"weights": weights, "seed": seed, "max_bytes": max_bytes}
        counted = population_weights(weights, (), len(x)) > 0
        tables = [table[counted.to(table.device)] for table in (x, y)]
        repeated = any(
            len(torch.unique(equal_rows(table))) <= (1 - _REPEATED) * len(table) for table in tables
        )
        if repeated:
            found = KSG().pair(x, y, **asked)
            return self._named(found, {"ksg": float(found.bits[0])})
        tried = {
            **{f"gaussian-{how}": _bounded(x, y, weights, seed, how) for how in ("raw", "rank")},
            "latent": Latent().pair(x, y, **asked),
        }
        if x.shape[1] + y.shape[1] <= TREE_COLUMNS:
            tried["ksg"] = KSG().pair(x, y, **asked)
        values = {name: float(terms.bits[0]) for name, terms in tried.items()}
        best = max(values, key=lambda name: values[name])
        return self._named(tried[best], values)

    def _named(self, found: Terms, values: dict[str, float]) -> Terms:
        settings = {"estimator": self.name, "tried": values, "chosen": dict(found.settings)}
        return dataclasses.replace(found, settings=settings)


def _bounded(x: Tensor, y: Tensor, weights: Tensor | None, seed: int, margins: str) -> Terms:
    """The Gaussian estimate, less the logarithm by which its ratio fails to average to 1."""
    found = Gaussian(margins=margins).pair(x, y, weights=weights)
    counted = (found.weights > 0).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(
        found.weights[counted].float(), _PAIRED_ROWS, replacement=True, generator=generator
    )
    excess = log_mean_ratio(x, y, found.weights, counted[chosen], margins)
    return dataclasses.replace(found, terms=found.terms - max(0.0, excess) / math.log(2))
