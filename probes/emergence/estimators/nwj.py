"""``nwj``: the held-out bound of Nguyen, Wainwright and Jordan, of a trained critic.

"Estimating divergence functionals and the likelihood ratio by convex risk minimization" (IEEE
Trans. Information Theory 2010), also called f-GAN KL or TUBA with a constant baseline. Unlike the
Donsker-Varadhan value it is unbiased for a given critic, at the price of a high variance. The
constant in the critic is set on the rows to stop by, where the bound is sharpest. See
``neural.heldout`` for how it is trained, valued and corrected, and for the cost.
"""

from __future__ import annotations

import dataclasses

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut
from ed_interp.probes.emergence.estimators.registry import register


@register("nwj")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NWJ(HeldOut):
    """The ``nwj`` estimator."""

    citation = (
        "X. Nguyen, M. J. Wainwright, M. I. Jordan: Estimating divergence functionals and the "
        "likelihood ratio by convex risk minimization. arXiv:0809.0853"
    )
    bound = "nwj"

    # Lower than for the others, as exp f in the objective is unbounded.
    lr: float = option(3e-4, "Highest learning rate of Adam.", above=0)
