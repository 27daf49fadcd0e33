"""One scale for all directions: from the mean of one class to the mean of the other along them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.states import ContrastStates

_ORTHOGONAL = 1e-9


def along_gap(
    found: Float[Tensor, "site d_model"], states: ContrastStates, what: str
) -> Float[Tensor, "site d_model"]:
    """The mean difference projected on each direction: it fixes both the sign and the length.

    Added with coefficient 1 to the negative class, it moves the mean along the direction to where
    the positive class is, whatever the method, so coefficients compare between methods.

    Raises:
        InvalidInputError: a direction is zero or orthogonal to the mean difference.
    """
    unit = found / found.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
    length = (states.gap * unit).sum(-1, keepdim=True)
    flat = length.abs().flatten() <= _ORTHOGONAL * states.gap.norm(dim=-1)
    if bool(flat.any()):
        site = states.sites[int(flat.nonzero()[0])].name
        raise InvalidInputError(
            f"{what} at {site} does not separate the classes of {states.name!r} (it is zero or "
            "orthogonal to the difference of their means); try method='mean_difference' or look "
            "at preflight(...)"
        )
    scaled: Tensor = unit * length
    return scaled
