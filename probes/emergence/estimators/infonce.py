"""``infonce``: the held-out InfoNCE bound of a trained critic.

van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018):
every x has to find its y among the alternatives. Low variance; it cannot exceed the log of the
number of alternatives, which here are all rows of a held-out fold (flag ``at-log-n`` within 5% of
it). See ``neural.heldout`` for how it is trained, valued and corrected, and for the cost.
"""

from __future__ import annotations

import dataclasses

from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut
from ed_interp.probes.emergence.estimators.registry import register


@register("infonce")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoNCE(HeldOut):
    """The ``infonce`` estimator."""

    citation = (
        "A. van den Oord, Y. Li, O. Vinyals: Representation Learning with Contrastive Predictive "
        "Coding. arXiv:1807.03748"
    )
    bound = "infonce"
