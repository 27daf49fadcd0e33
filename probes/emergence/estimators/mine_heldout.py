"""``mine-heldout``: the critic of the emergence paper, honestly valued.

The same MLP on (x, y) side by side and the same Donsker-Varadhan bound as ``mine``, but trained on
some rows and valued on others, stopped early, and cross-fitted, so that every row has a term from
a critic that has not seen it. By default it learns a correction to the Gaussian reference;
``reference="none"`` leaves the critic to itself, as in the paper (with ``marginals="raw"`` also on
the coordinates as they are, but for whitening). See ``neural.heldout``.

Cost: one pass of the MLP per pair of rows, so separate pairs are few and the value is noisier than
that of ``infonce`` for the same time.
"""

from __future__ import annotations

import dataclasses

from ed_interp.options import option
from ed_interp.probes.emergence.estimators.neural.critics import Concat, Critic
from ed_interp.probes.emergence.estimators.neural.heldout import HeldOut
from ed_interp.probes.emergence.estimators.registry import register


@register("mine-heldout")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MineHeldOut(HeldOut):
    """The ``mine-heldout`` estimator."""

    citation = (
        "M. I. Belghazi and others: MINE: Mutual Information Neural Estimation. arXiv:1801.04062"
    )
    bound = "dv"

    hidden: tuple[int, ...] | None = option(
        None,
        "Hidden widths of the critic.",
        shown="half of d_x + d_y, a quarter, ... down to 3",
        min=1,
    )

    def critic(self, rows: int) -> Critic:
        return Concat(self.hidden)
