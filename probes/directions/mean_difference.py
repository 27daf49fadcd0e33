"""Contrastive mean difference: the mean of one class less the mean of the other.

The plainest direction and the one to beat (Rimsky et al. 2024, arXiv 2312.06681; Marks and Tegmark
2023, arXiv 2310.06824). With pairs it equals the mean of the differences. Cost: none beside
reading the states.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ed_interp.probes.directions.states import ContrastStates


def mean_difference(states: ContrastStates) -> Float[Tensor, "site d_model"]:
    """The difference of the class means, summed in float64."""
    return states.gap
