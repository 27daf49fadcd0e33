"""``smile``: the held-out Donsker-Varadhan value with a clipped density ratio.

Song and Ermon, "Understanding the limitations of variational mutual information estimators" (ICLR
2020): clipping the ratio to [e^-tau, e^tau] in the second term trades variance for bias. Clipped,
the value is no lower bound. Trained by the Jensen-Shannon objective, as in the authors' code. See
``neural.heldout`` for how it is trained, valued and corrected, and for the cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.neural.bounds import Bound
from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut


@dataclass(frozen=True, kw_only=True)
class Smile(HeldOut):
    """The ``smile`` estimator."""

    tau: float = 5.0
    """Largest absolute log ratio in the second term, in nats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.tau) and self.tau > 0):
            raise InvalidInputError(f"tau must be a positive number of nats, found {self.tau}")

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "smile"

    def bound(self) -> Bound:
        """Which bound is reported; it is trained by the Jensen-Shannon objective."""
        return "smile"

    def clip(self) -> float:
        """Tau, in nats."""
        return self.tau
