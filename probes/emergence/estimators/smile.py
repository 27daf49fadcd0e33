"""``smile``: the held-out Donsker-Varadhan value with a clipped density ratio.

Song and Ermon, "Understanding the limitations of variational mutual information estimators" (ICLR
2020): clipping the ratio to [e^-tau, e^tau] in the second term trades variance for bias. Clipped,
the value bounds nothing. Trained by the Jensen-Shannon objective, as in the authors' code. See
``neural.heldout`` for how it is trained, valued and corrected, and for the cost.
"""

from __future__ import annotations

import dataclasses

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut
from ed_interp.probes.emergence.estimators.registry import register


@register("smile")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Smile(HeldOut):
    """The ``smile`` estimator."""

    citation = (
        "J. Song, S. Ermon: Understanding the Limitations of Variational Mutual Information "
        "Estimators. arXiv:1910.06222"
    )
    bound = "smile"

    tau: float = option(5.0, "Largest absolute log ratio in the second term, in nats.", above=0)

    def clip(self) -> float:
        return self.tau
