"""What another package has to write: a class with its options and a pair."""

import dataclasses
import math

import torch

from ed_interp.options import option
from ed_interp.probes.emergence.estimators import Estimator, Terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation(Estimator):
    """Information of the first columns alone, from their correlation."""

    column: int = option(0, "Column of each side that is used.", min=0)

    def pair(self, x, y, *, weights=None, seed=0, max_bytes=0):
        rows = len(x)
        share = torch.full((rows,), 1 / rows).double() if weights is None else weights.double()
        share = share / share.sum()
        u, v = (
            (z - share @ z) / (share @ (z - share @ z) ** 2).sqrt()
            for z in (x[:, self.column].double(), y[:, self.column].double())
        )
        rho = float(share @ (u * v))
        bits = -0.5 * math.log2(1 - rho**2)
        return Terms(
            terms=torch.full((1, rows), bits, dtype=torch.float64),
            weights=share,
            limit=torch.tensor(math.log2(rows), dtype=torch.float64),
            settings={"column": self.column},
        )
