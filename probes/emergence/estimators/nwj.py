"""``nwj``: the held-out bound of Nguyen, Wainwright and Jordan, of a trained critic.

"Estimating divergence functionals and the likelihood ratio by convex risk minimization" (IEEE
Trans. Information Theory 2010), also called f-GAN KL or TUBA with a constant baseline. Unlike the
Donsker-Varadhan value it is unbiased for a given critic, at the price of a high variance. The
constant in the critic is set on the rows to stop by, where the bound is sharpest. See
``neural.heldout`` for how it is trained, valued and corrected, and for the cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from ed_interp.probes.emergence.estimators.neural.bounds import Bound
from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut


@dataclass(frozen=True, kw_only=True)
class NWJ(HeldOut):
    """The ``nwj`` estimator."""

    lr: float = 3e-4
    """Learning rate of Adam; lower than for the others, as exp f in the objective is unbounded."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "nwj"

    def bound(self) -> Bound:
        """Which bound is trained and reported."""
        return "nwj"
