"""The first principal direction of the pair differences (Zou et al. 2023, arXiv 2310.01405).

Uncentred, as differences and their negatives together have mean zero: the line through the origin
nearest to all differences. The sign is that of the mean difference, and the length the mean
difference's along the line, so that coefficient 1 means the same as for the other methods
(libraries that give a unit vector differ by this factor). Cost: a singular value decomposition of
``pair x d_model`` per site.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.probes.directions.scale import along_gap
from ed_interp.probes.directions.states import ContrastStates


def principal_direction(states: ContrastStates) -> Float[Tensor, "site d_model"]:
    """The first right singular vector of the differences at every site.

    Raises:
        InvalidInputError: the classes are not paired, or the direction is orthogonal to the mean
            difference, so that it has no sign.
    """
    found = [
        torch.linalg.svd(states.differences[:, place], full_matrices=False).Vh[0]
        for place in range(len(states.sites))
    ]
    return along_gap(torch.stack(found), states, "the first principal direction")
