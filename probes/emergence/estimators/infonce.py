"""``infonce``: the held-out InfoNCE bound of a trained critic.

van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018):
every x has to find its y among the alternatives. Low variance; it cannot exceed the log of the
number of alternatives, which here are all rows of a held-out fold (flag ``saturated`` within 5% of
it). See ``neural.heldout`` for how it is trained, valued and corrected, and for the cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from ed_interp.probes.emergence.estimators.neural.bounds import Bound
from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut


@dataclass(frozen=True, kw_only=True)
class InfoNCE(HeldOut):
    """The ``infonce`` estimator."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "infonce"

    def bound(self) -> Bound:
        """Which bound is trained and reported."""
        return "infonce"
